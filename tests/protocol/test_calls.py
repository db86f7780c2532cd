"""Calls side by side: cancellation, progress, limits, the end of the input."""
import os
import signal
import sys
import unittest

sys.path.insert(0, os.path.dirname(__file__))
from wire import MODERN, Wire, code, text


def start_slow(wire, request_id, token="t", **arguments):
    """Returns once the call runs: its first progress message is the proof."""
    wire.call(request_id, "slow", arguments, {"progressToken": token})
    message = wire.next()
    assert message["method"] == "notifications/progress", message
    return message["params"]


class Concurrency(unittest.TestCase):
    def test_a_slow_call_delays_neither_ping_nor_lists_nor_other_calls(self):
        with Wire() as wire:
            start_slow(wire, 1)
            self.assertEqual(wire.ask(2, "ping")["result"], {})
            self.assertIn("tools", wire.ask(3, "tools/list", {"_meta": MODERN})["result"])
            wire.call(4, "echo", {"text": "quick"})
            self.assertEqual(text(wire.next()), "quick")

    def test_an_id_in_use_is_refused_and_the_first_call_goes_on(self):
        with Wire() as wire:
            start_slow(wire, 7)
            wire.call(7, "echo", {"text": "x"})
            answer = wire.next()
            self.assertEqual((answer["id"], code(answer)), (7, -32600))
            self.assertEqual(code(wire.ask(7, "ping")), -32600)
            wire.call("7", "echo", {"text": "a string is another id"})
            self.assertEqual(wire.next()["id"], "7")

    def test_too_many_calls_get_an_error_that_names_the_setting(self):
        with Wire("--pending", "2", "--threads", "1") as wire:
            start_slow(wire, 1)
            wire.call(2, "slow")
            wire.call(3, "echo", {"text": "x"})
            answer = wire.next()
            self.assertEqual(answer["id"], 3)
            self.assertTrue(answer["result"]["isError"])
            self.assertIn("limits.pending_requests", text(answer))
            self.assertEqual(wire.ask(4, "ping")["result"], {})

    def test_a_waiting_call_that_is_cancelled_never_runs(self):
        with Wire("--threads", "1") as wire:
            start_slow(wire, 1)
            wire.call(2, "slow", {}, {"progressToken": "second"})
            wire.call(3, "echo", {"text": "third"})
            wire.notify("notifications/cancelled", {"requestId": 2})
            wire.notify("notifications/cancelled", {"requestId": 1})
            answer = wire.next()
            self.assertEqual((answer["id"], text(answer)), (3, "third"))


class Cancellation(unittest.TestCase):
    def test_a_cancelled_call_stops_and_is_never_answered(self):
        with Wire("--progress-interval", "0") as wire:
            start_slow(wire, 1)
            wire.notify("notifications/cancelled", {"requestId": 1, "reason": "enough"})
            # Everything that was sent for the call was sent before the server read the ping.
            wire.request(2, "ping")
            while (message := wire.next()).get("method") == "notifications/progress":
                pass
            self.assertEqual(message["id"], 2)
            # Its thread is free again and its id is, too: the end of the work is an event, not a time.
            wire.end_input()
            self.assertEqual(wire.rest(), [])
            self.assertEqual(wire.status(), 0)
            self.assertIn("slow stopped", wire.stderr())

    def test_ids_of_another_type_are_other_calls(self):
        with Wire() as wire:
            start_slow(wire, 1)
            wire.notify("notifications/cancelled", {"requestId": "1"})
            self.assertEqual(wire.ask(2, "ping")["result"], {})
            wire.call(1, "echo", {"text": "x"})
            self.assertEqual(code(wire.next()), -32600)  # 1 still runs


class Progress(unittest.TestCase):
    def test_progress_increases_and_echoes_the_token(self):
        with Wire("--progress-interval", "0") as wire:
            seen = [start_slow(wire, 1, token=0)]
            while len(seen) < 5:
                seen.append(wire.next()["params"])
            values = [params["progress"] for params in seen]
            self.assertEqual(values, sorted(set(values)))
            self.assertEqual({(type(p["progressToken"]), p["progressToken"]) for p in seen}, {(int, 0)})
            self.assertEqual(seen[0]["message"], "working")

    def test_no_token_means_no_progress(self):
        with Wire("--progress-interval", "0") as wire:
            for request_id, meta in ((1, {}), (2, {"progressToken": None}), (3, {"progressToken": 1.5})):
                wire.call(request_id, "slow", {}, meta)
            start_slow(wire, 4)  # reports, so the others had their turn
            for _ in range(5):
                self.assertEqual(wire.next()["params"]["progressToken"], "t")

    def test_messages_come_at_most_once_an_interval(self):
        with Wire("--progress-interval", "3600000") as wire:
            start_slow(wire, 1)
            wire.process.send_signal(signal.SIGTERM)
            self.assertEqual([m.get("id") for m in wire.rest()], [1])

    def test_the_first_revision_has_no_message(self):
        with Wire() as wire:
            wire.initialize("2024-11-05")
            wire.request(1, "tools/call", {"name": "slow", "arguments": {}, "_meta": {"progressToken": "a"}})
            self.assertEqual(wire.next()["params"], {"progressToken": "a", "progress": 1})

    def test_a_long_message_is_cut(self):
        with Wire() as wire:
            message = start_slow(wire, 1, said="é" * 5000)["message"]
            self.assertLessEqual(len(message.encode()), 1000)
            self.assertEqual(set(message), {"é"})


class End(unittest.TestCase):
    def test_quick_calls_are_answered_after_the_end_of_the_input(self):
        with Wire() as wire:
            for request_id in range(50):
                wire.call(request_id, "echo", {"text": str(request_id)})
            wire.end_input()
            self.assertEqual(sorted(m["id"] for m in wire.rest()), list(range(50)))
            self.assertEqual(wire.status(), 0)
            self.assertIn("ended: eof", wire.stderr())

    def test_a_last_line_without_an_end_counts(self):
        with Wire() as wire:
            wire.raw(b'{"jsonrpc":"2.0","id":1,"method":"ping"}')
            wire.end_input()
            self.assertEqual([m["id"] for m in wire.rest()], [1])

    def test_slow_calls_are_stopped_at_the_end_of_the_input(self):
        with Wire() as wire:
            start_slow(wire, 1)
            wire.end_input()
            self.assertEqual([text(m) for m in wire.rest() if "id" in m], ["stopped"])
            self.assertEqual(wire.status(), 0)

    def test_a_stop_request_ends_the_server(self):
        with Wire() as wire:
            start_slow(wire, 1)
            wire.process.send_signal(signal.SIGTERM)
            self.assertEqual(wire.status(), 0)
            self.assertIn("ended: stopped", wire.stderr())


if __name__ == "__main__":
    unittest.main()
