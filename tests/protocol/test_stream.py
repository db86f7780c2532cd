"""The byte stream: huge and hostile lines, a host that does not read or goes away, stray prints."""
import json
import os
import signal
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(__file__))
from wire import DEADLINE_S, MODERN, SERVER, Wire, code, text


def resident_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))


class Lines(unittest.TestCase):
    def test_line_ends_of_windows_and_empty_lines_are_accepted(self):
        with Wire() as wire:
            wire.raw(b'\n\r\n{"jsonrpc":"2.0","id":1,"method":"ping"}\r\n\n')
            self.assertEqual(wire.next()["id"], 1)

    def test_a_line_may_come_in_pieces_and_several_at_once(self):
        with Wire() as wire:
            line = b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n'
            for i in range(len(line)):
                wire.raw(line[i:i + 1])
            self.assertEqual(wire.next()["id"], 1)
            wire.raw(line * 100)
            for _ in range(100):
                self.assertEqual(wire.next()["id"], 1)

    def test_a_line_of_100_megabytes_is_refused_once_and_not_kept(self):
        with Wire("--message-max", str(1 << 20)) as wire:
            chunk = b"x" * (1 << 20)
            for _ in range(100):
                wire.raw(chunk)
            wire.raw(b"\n")
            answer = wire.next()
            self.assertEqual((code(answer), answer["id"]), (-32600, None))
            self.assertIn("limits.message_max", answer["error"]["message"])
            self.assertEqual(wire.ask(1, "ping")["id"], 1)
            self.assertLess(resident_kib(wire.process.pid), 90 << 10)  # leaves room for a sanitizer

    def test_the_limit_is_exact(self):
        line = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
        for extra, refused in ((0, False), (1, True)):
            with self.subTest(extra=extra), Wire("--message-max", str(len(line))) as wire:
                wire.raw(line + b" " * extra + b"\r\n")
                self.assertEqual("error" in wire.next(), refused)

    def test_deep_nesting_is_refused_before_it_can_overflow_the_stack(self):
        with Wire() as wire:
            for line in (b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000,
                         b'{"jsonrpc":"2.0","id":1,"method":"ping","params":' + b'[' * 200 + b']' * 200 + b'}'):
                wire.raw(line + b"\n")
                self.assertEqual(code(wire.next()), -32700)
            wire.raw(b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":"' + b"[" * 500 + b'\\""}}\n')
            self.assertEqual(wire.next()["result"], {})


class Output(unittest.TestCase):
    def test_invalid_utf8_of_a_tool_is_replaced(self):
        with Wire("--structured") as wire:
            wire.call(1, "broken_text")
            answer = wire.next()
            self.assertEqual(text(answer), "a\ufffd\ufffd z\0")
            self.assertEqual(answer["result"]["structuredContent"]["text"], "a\ufffd\ufffd z\0")

    def test_prints_of_a_library_go_to_stderr(self):
        with Wire() as wire:
            wire.call(1, "noisy")
            self.assertEqual(text(wire.next()), "done")
            self.assertIn("this must not reach the protocol", wire.stderr())

    def test_nothing_is_written_before_the_first_request(self):
        with Wire() as wire:
            wire.end_input()
            self.assertEqual(wire.rest(), [])
            self.assertEqual(wire.status(), 0)

    def test_large_answers_arrive_whole_and_unmixed(self):
        with Wire() as wire:
            for request_id in range(8):
                wire.call(request_id, "echo", {"text": str(request_id), "repeat": 300_000})
            answers = [wire.next() for _ in range(8)]
            for answer in answers:
                self.assertEqual(text(answer), str(answer["id"]) * 300_000)


class DeafHost(unittest.TestCase):
    """A host that does not read: its pipe fills up."""

    def start(self, *options):
        process = subprocess.Popen([SERVER, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        self.addCleanup(lambda: (process.kill(), process.communicate()))
        return process

    @staticmethod
    def line(request_id, tool, arguments, meta=None):
        params = {"name": tool, "arguments": arguments, "_meta": {**MODERN, **(meta or {})}}
        return json.dumps({"jsonrpc": "2.0", "id": request_id, "method": "tools/call",
                           "params": params}).encode() + b"\n"

    def test_answers_wait_for_the_host_and_none_is_lost(self):
        process = self.start()
        for request_id in range(10):
            process.stdin.write(self.line(request_id, "echo", {"text": "x", "repeat": 100_000}))
        process.stdin.flush()
        got = [json.loads(process.stdout.readline()) for _ in range(10)]
        self.assertEqual(sorted(answer["id"] for answer in got), list(range(10)))

    def test_a_stop_request_ends_a_server_that_waits_for_the_host(self):
        process = self.start()
        process.stdin.write(self.line(1, "echo", {"text": "x", "repeat": 1_000_000}))
        process.stdin.flush()
        self.assertEqual(process.stdout.read(1), b"{")  # it writes, and the pipe is smaller than the answer
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(DEADLINE_S), 0)

    def test_a_host_that_is_gone_ends_the_server_without_a_signal(self):
        process = self.start("--progress-interval", "0")
        process.stdin.write(self.line(1, "slow", {}, {"progressToken": 1}))
        process.stdin.flush()
        self.assertIn(b"progress", process.stdout.readline())
        process.stdout.close()
        process.stdin.write(self.line(2, "echo", {"text": "nobody hears"}))
        process.stdin.flush()
        self.assertEqual(process.wait(DEADLINE_S), 0)
        self.assertIn(b"peer gone", process.stderr.read())
        process.stdout = None


if __name__ == "__main__":
    unittest.main()
