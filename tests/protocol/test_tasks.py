"""Long calls as tasks: the extension of 2026-07-28 and the experimental form of 2025-11-25."""
import os
import re
import signal
import sys
import unittest

sys.path.insert(0, os.path.dirname(__file__))
from wire import META, MODERN, TASKS, Wire, code, text

RELATED = META + "related-task"
DAY_MS = 24 * 3600 * 1000
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def release(wire, name, how="result", modern=True):
    """Ends the call of `wait` that waits for `name`, or the next one that will."""
    params = {"name": "release", "arguments": {"name": name, "how": how}}
    wire.request("release", "tools/call", {**params, "_meta": MODERN} if modern else params)


def until(wire, done, ask):
    """Asks again and again until the answer is what is waited for."""
    while not done(answer := ask()):
        assert answer.get("result", {}).get("status") == "working", answer
    return answer


class Client:
    """Requests of one kind of client, by words of the protocol."""

    def __init__(self, wire):
        self.wire = wire

    def ask(self, method, **params):
        return self.wire.ask("ask", method, {**params, **({"_meta": TASKS} if self.modern else {})})

    def get(self, task):
        return self.ask("tasks/get", taskId=task)

    def cancel(self, task):
        return self.ask("tasks/cancel", taskId=task)

    def ended(self, task):
        """The task once it works no more."""
        return until(self.wire, lambda answer: answer["result"]["status"] != "working",
                     lambda: self.get(task))["result"]

    def release(self, name, how="result"):
        release(self.wire, name, how, self.modern)
        assert text(self.wire.next()) == "released"


class Extension(Client):
    modern = True

    def start(self, request_id=1, tool="wait", token=None, **arguments):
        """The id of the task that the call becomes."""
        self.wire.call(request_id, tool, arguments or {"name": "it"},
                       {**TASKS, **({} if token is None else {"progressToken": token})})
        while "id" not in (answer := self.wire.next()):
            assert answer["method"] == "notifications/progress", answer
        assert (answer["id"], answer["result"]["resultType"]) == (request_id, "task"), answer
        return answer["result"]["taskId"]

    def start_running(self):
        """Returns once the work has begun: its first message is the proof, as progress or of the task."""
        self.wire.call(1, "wait", {"name": "it"}, {**TASKS, "progressToken": "t"})
        first = self.wire.next()
        task = (self.wire.next() if "method" in first else first)["result"]["taskId"]
        if first.get("method") != "notifications/progress":
            while "statusMessage" not in self.get(task)["result"]:
                pass
        return task


class Experimental(Client):
    modern = False

    def __init__(self, wire, version="2025-11-25"):
        super().__init__(wire)
        wire.initialize(version)

    def call(self, request_id=1, tool="wait", task=None, token=None, **arguments):
        params = {"name": tool, "arguments": arguments or {"name": "it"}, "task": {} if task is None else task}
        if token is not None:
            params["_meta"] = {"progressToken": token}
        self.wire.request(request_id, "tools/call", params)

    def start(self, **call):
        self.call(**call)
        return self.wire.next()["result"]["task"]["taskId"]

    def start_running(self):
        task = self.start(token="t")
        assert self.wire.next()["method"] == "notifications/progress"
        return task


class Offered(unittest.TestCase):
    """2026-07-28: the server decides."""

    def test_a_call_that_ends_in_time_is_answered_as_ever(self):
        with Wire() as wire:
            Extension(wire).release("it")
            wire.call(1, "wait", {"name": "it"}, TASKS)
            answer = wire.next()
            self.assertEqual((answer["result"]["resultType"], text(answer)), ("complete", "it"))

    def test_a_long_call_becomes_a_task_that_brings_the_result(self):
        with Wire("--task-after", "0") as wire:
            wire.call(1, "wait", {"name": "it"}, TASKS)
            created = wire.next()["result"]
            self.assertEqual((created["resultType"], created["status"]), ("task", "working"))
            self.assertRegex(created["taskId"], "^[0-9a-f]{32}$")
            for field in ("createdAt", "lastUpdatedAt"):
                self.assertRegex(created[field], TIME)
            self.assertGreaterEqual(created["ttlMs"], 600_000)
            self.assertGreater(created["pollIntervalMs"], 0)
            self.assertFalse({"task", "ttl", "pollInterval", "result", "content"} & set(created), created)

            client = Extension(wire)
            working = client.get(created["taskId"])["result"]
            self.assertEqual((working["resultType"], working["status"]), ("complete", "working"))
            self.assertNotIn("result", working)
            client.release("it")
            ended = client.ended(created["taskId"])
            self.assertEqual((ended["resultType"], ended["status"]), ("complete", "completed"))
            self.assertEqual(ended["result"]["content"], [{"type": "text", "text": "it"}])
            self.assertEqual((ended["result"]["resultType"], ended["result"]["isError"]), ("complete", False))
            self.assertNotIn(RELATED, ended["result"]["_meta"])
            self.assertEqual(client.get(created["taskId"])["result"]["ttlMs"], ended["ttlMs"])

    def test_ordinary_calls_are_answered_while_a_call_waits_to_become_a_task(self):
        with Wire("--task-after", "50") as wire:
            wire.call(1, "wait", {"name": "it"}, TASKS)
            wire.call(2, "echo", {"text": "quick"}, TASKS)
            self.assertEqual(text(wire.next()), "quick")
            self.assertEqual(wire.next()["result"]["resultType"], "task")

    def test_an_error_of_the_tool_is_a_completed_task_and_one_of_the_protocol_a_failed_one(self):
        with Wire("--task-after", "0") as wire:
            client = Extension(wire)
            task = client.start()
            client.release("it", "error")
            ended = client.ended(task)
            self.assertEqual((ended["status"], ended["result"]["isError"]), ("completed", True))
            task = client.start(name="other")
            client.release("other", "protocol_error")
            ended = client.ended(task)
            self.assertEqual(ended["status"], "failed")
            self.assertEqual(ended["error"], {"code": -32603, "message": "released with a protocol error"})
            self.assertNotIn("result", ended)

    def test_a_client_that_does_not_declare_tasks_never_gets_one(self):
        extensions = [{}, {"extensions": None}, {"extensions": []}, {"extensions": {}},
                      {"extensions": {META + "tasks": None}}, {"extensions": {META + "task": {}}},
                      {"tasks": {}}]
        for capabilities in extensions:
            meta = {META + "clientCapabilities": capabilities}
            with self.subTest(capabilities=capabilities), Wire("--task-after", "0") as wire:
                wire.call(1, "wait", {"name": "it"}, meta)
                release(wire, "it")
                results = {answer["id"]: answer["result"] for answer in (wire.next(), wire.next())}
                self.assertEqual((results[1]["resultType"], results[1]["isError"]), ("complete", False))
                for method in ("tasks/get", "tasks/update", "tasks/cancel"):
                    error = wire.ask(2, method, {"taskId": "x", "inputResponses": {},
                                                 "_meta": {**MODERN, **meta}})["error"]
                    self.assertEqual(error["code"], -32021)
                    self.assertEqual(error["data"],
                                     {"requiredCapabilities": {"extensions": {META + "tasks": {}}}})

    def test_tools_that_end_soon_are_never_tasks_whatever_the_client_asks_for(self):
        with Wire("--task-after", "0") as wire:
            for task in ({"ttl": 60000}, {}, 5, None):
                wire.request(1, "tools/call", {"name": "echo", "arguments": {"text": "x"}, "task": task,
                                               "_meta": TASKS})
                self.assertEqual(wire.next()["result"]["resultType"], "complete")

    def test_listings_say_nothing_of_tasks(self):
        with Wire() as wire:
            for tool in wire.ask(1, "tools/list", {"_meta": TASKS})["result"]["tools"]:
                self.assertNotIn("execution", tool)

    def test_progress_ends_with_the_answer_and_goes_on_as_the_tasks_message(self):
        with Wire("--task-after", "0", "--progress-interval", "0") as wire:
            client = Extension(wire)
            task = client.start(tool="slow", token="t", said="compiling")
            # Any notification that is still sent would be taken for an answer.
            state = client.get(task)["result"]
            while "statusMessage" not in state:
                state = client.get(task)["result"]
            self.assertEqual(state["statusMessage"], "compiling")
            self.assertGreaterEqual(state["lastUpdatedAt"], state["createdAt"])

    def test_cancel_stops_the_work_and_may_come_twice(self):
        with Wire("--task-after", "0", "--threads", "1") as wire:
            client = Extension(wire)
            task = client.start_running()
            for _ in range(2):
                result = client.cancel(task)["result"]
                self.assertEqual(set(result), {"resultType", "_meta"})
                self.assertEqual(result["resultType"], "complete")
            state = client.get(task)["result"]
            self.assertEqual(state["status"], "cancelled")
            self.assertNotIn("result", state)
            wire.call(2, "echo", {"text": "the only thread is free"})
            self.assertEqual(text(wire.next()), "the only thread is free")
            self.assertIn("it stopped", wire.stderr())
            self.assertEqual(client.get(task)["result"]["status"], "cancelled")

    def test_a_cancelled_task_that_waits_for_a_thread_never_runs(self):
        with Wire("--task-after", "0", "--threads", "1") as wire:
            client = Extension(wire)
            first, second = client.start(1, name="first"), client.start(2, name="second")
            client.cancel(second)
            client.cancel(first)
            wire.call(3, "echo", {"text": "third"})
            self.assertEqual(text(wire.next()), "third")
            self.assertEqual(client.get(second)["result"]["status"], "cancelled")
            self.assertNotIn("second stopped", wire.stderr())

    def test_cancel_of_an_ended_task_changes_nothing(self):
        with Wire("--task-after", "0") as wire:
            client = Extension(wire)
            task = client.start()
            client.release("it")
            client.ended(task)
            self.assertEqual(client.cancel(task)["result"]["resultType"], "complete")
            self.assertEqual(client.get(task)["result"]["status"], "completed")

    def test_a_notification_cannot_cancel_what_a_task_has_answered(self):
        with Wire("--task-after", "0") as wire:
            client = Extension(wire)
            task = client.start(7)
            wire.notify("notifications/cancelled", {"requestId": 7})
            self.assertEqual(client.get(task)["result"]["status"], "working")
            client.release("it")
            self.assertEqual(client.ended(task)["status"], "completed")

    def test_a_notification_cancels_a_call_before_it_is_a_task(self):
        with Wire() as wire:
            wire.call(1, "wait", {"name": "it"}, TASKS)
            wire.notify("notifications/cancelled", {"requestId": 1})
            wire.end_input()
            self.assertEqual(wire.rest(), [])
            self.assertEqual(wire.status(), 0)

    def test_the_id_of_the_request_is_free_once_a_task_has_answered_it(self):
        with Wire("--task-after", "0") as wire:
            client = Extension(wire)
            tasks = {client.start(1, name=name) for name in ("a", "b", "c")}
            self.assertEqual(len(tasks), 3)

    def test_unknown_and_ill_typed_task_ids_are_invalid_params(self):
        with Wire("--task-after", "0") as wire:
            client = Extension(wire)
            task = client.start()
            for method in ("tasks/get", "tasks/update", "tasks/cancel"):
                for bad in ("", "0" * 32, task[:-1], task.upper() + " ", 5, None, [task], {"taskId": task}):
                    with self.subTest(method=method, id=bad):
                        self.assertEqual(code(client.ask(method, taskId=bad, inputResponses={})), -32602)
                self.assertEqual(code(client.ask(method)), -32602)
            self.assertEqual(client.get(task)["result"]["status"], "working")

    def test_answers_to_questions_that_were_never_put_are_ignored(self):
        with Wire("--task-after", "0") as wire:
            client = Extension(wire)
            task = client.start()
            answer = client.ask("tasks/update", taskId=task, inputResponses={"x": {"action": "accept"}})
            self.assertEqual(set(answer["result"]), {"resultType", "_meta"})
            for bad in (None, [], "x", 5):
                self.assertEqual(code(client.ask("tasks/update", taskId=task, inputResponses=bad)), -32602)

    def test_the_methods_of_the_older_form_do_not_exist(self):
        with Wire() as wire:
            for method in ("tasks/result", "tasks/list", "tasks/", "tasks/no_such"):
                self.assertEqual(code(Extension(wire).ask(method, taskId="x")), -32601)

    def test_running_tasks_count_among_the_calls_that_wait(self):
        with Wire("--task-after", "0", "--pending", "1") as wire:
            client = Extension(wire)
            task = client.start()
            wire.call(2, "echo", {"text": "x"}, TASKS)
            self.assertIn("limits.pending_requests", text(wire.next()))
            client.cancel(task)
            wire.call(3, "echo", {"text": "x"}, TASKS)
            while wire.next()["result"]["isError"]:  # the work takes a moment to stop
                wire.call(3, "echo", {"text": "x"}, TASKS)

    def test_an_ended_task_is_forgotten_after_its_time(self):
        with Wire("--task-after", "0", "--task-ttl", "0") as wire:
            client = Extension(wire)
            task = client.start()
            client.release("it")
            gone = until(wire, lambda answer: "error" in answer, lambda: client.get(task))
            self.assertEqual(code(gone), -32602)
            self.assertEqual(code(client.cancel(task)), -32602)

    def test_running_tasks_are_stopped_at_the_end_of_the_input(self):
        with Wire("--task-after", "0") as wire:
            client = Extension(wire)
            for request_id in range(3):
                client.start(request_id, name=f"n{request_id}")
            wire.end_input()
            self.assertEqual(wire.rest(), [])
            self.assertEqual(wire.status(), 0)
            for request_id in range(3):
                self.assertIn(f"n{request_id} stopped", wire.stderr())

    def test_a_stop_request_ends_a_server_with_running_tasks(self):
        with Wire("--task-after", "0") as wire:
            Extension(wire).start()
            wire.process.send_signal(signal.SIGTERM)
            self.assertEqual(wire.status(), 0)
            self.assertIn("it stopped", wire.stderr())


class Requested(unittest.TestCase):
    """2025-11-25: the client asks."""

    def test_only_this_revision_knows_them(self):
        declared = {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}
        for version in ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"):
            with self.subTest(version=version), Wire() as wire:
                knows = version == "2025-11-25"
                capabilities = wire.initialize(version)["capabilities"]
                self.assertEqual(capabilities, {"tools": {}, **({"tasks": declared} if knows else {})})
                tools = {tool["name"]: tool for tool in wire.ask(1, "tools/list")["result"]["tools"]}
                self.assertEqual(tools["wait"].get("execution"), {"taskSupport": "optional"} if knows else None)
                self.assertNotIn("execution", tools["echo"])
                for method in ("get", "result", "list", "cancel", "update"):
                    expected = -32602 if knows and method != "update" else -32601
                    params = {"taskId": "x", "cursor": "x"}
                    self.assertEqual(code(wire.ask(2, "tasks/" + method, params)), expected)

    def test_older_revisions_take_no_notice_of_the_wish(self):
        with Wire() as wire:
            client = Experimental(wire, "2025-06-18")
            client.release("it")
            client.call()
            self.assertEqual(text(wire.next()), "it")

    def test_the_task_comes_at_once_and_its_result_when_there_is_one(self):
        with Wire() as wire:
            client = Experimental(wire)
            client.call(task={"ttl": 60000})
            answer = wire.next()["result"]
            self.assertEqual(list(answer), ["task"])
            created = answer["task"]
            self.assertEqual((created["status"], created["ttl"]), ("working", 60000))
            self.assertGreater(created["pollInterval"], 0)
            self.assertFalse({"ttlMs", "pollIntervalMs", "resultType"} & set(created))
            self.assertEqual(client.get(created["taskId"])["result"]["status"], "working")

            # Two that wait, and the server answers others meanwhile.
            for request_id in (2, 3):
                wire.request(request_id, "tasks/result", {"taskId": created["taskId"]})
            self.assertEqual(wire.ask(4, "ping")["result"], {})
            release(wire, "it", modern=False)
            answers = {answer["id"]: answer["result"] for answer in (wire.next() for _ in range(3))}
            expected = {"content": [{"type": "text", "text": "it"}], "isError": False,
                        "_meta": {RELATED: {"taskId": created["taskId"]}}}
            self.assertEqual((answers[2], answers[3]), (expected, expected))
            self.assertEqual(client.get(created["taskId"])["result"]["status"], "completed")
            self.assertEqual(client.ask("tasks/result", taskId=created["taskId"])["result"], expected)

    def test_errors_of_tool_and_protocol_are_failed_tasks_with_the_answer_of_the_call(self):
        with Wire() as wire:
            client = Experimental(wire)
            for name, how in (("a", "error"), ("b", "protocol_error")):
                client.release(name, how)
            tool, protocol = client.start(name="a"), client.start(name="b")
            result = client.ask("tasks/result", taskId=tool)["result"]
            self.assertEqual((result["isError"], result["_meta"][RELATED]), (True, {"taskId": tool}))
            self.assertEqual(code(client.ask("tasks/result", taskId=protocol)), -32603)
            for task in (tool, protocol):
                self.assertEqual(client.get(task)["result"]["status"], "failed")

    def test_a_call_without_the_wish_is_answered_as_ever(self):
        with Wire("--task-after", "0") as wire:
            client = Experimental(wire)
            client.release("it")
            for extra in ({}, {"task": None}):
                wire.request(1, "tools/call", {"name": "wait", "arguments": {"name": "it"}, **extra})
                self.assertEqual(wire.next()["result"],
                                 {"content": [{"type": "text", "text": "it"}], "isError": False})

    def test_a_tool_that_cannot_be_a_task_is_refused_as_one(self):
        with Wire() as wire:
            client = Experimental(wire)
            client.call(tool="echo", text="x")
            self.assertEqual(code(wire.next()), -32601)
            client.call(tool="no_such", text="x")
            self.assertEqual(code(wire.next()), -32602)
            self.assertEqual(client.ask("tasks/list")["result"], {"tasks": []})

    def test_ill_typed_wishes_are_invalid_params_and_run_nothing(self):
        with Wire() as wire:
            client = Experimental(wire)
            for task in ([], "x", 5, True, {"ttl": "5"}, {"ttl": -1}, {"ttl": 1.5}, {"ttl": True}, {"ttl": {}}):
                with self.subTest(task=task):
                    client.call(task=task)
                    self.assertEqual(code(wire.next()), -32602)
            self.assertEqual(client.ask("tasks/list")["result"], {"tasks": []})

    def test_no_wish_keeps_a_result_longer_than_a_day(self):
        with Wire() as wire:
            client = Experimental(wire)
            for ttl in (None, DAY_MS + 1, 2**53, 2**63, 2**64 - 1):
                with self.subTest(ttl=ttl):
                    client.call(task={"ttl": ttl})
                    self.assertEqual(wire.next()["result"]["task"]["ttl"], DAY_MS)

    def test_cancel_answers_with_the_cancelled_task_and_only_once(self):
        with Wire() as wire:
            client = Experimental(wire)
            task = client.start_running()
            self.assertEqual(client.cancel(task)["result"]["status"], "cancelled")
            self.assertEqual(code(client.cancel(task)), -32602)
            # What the tool had to say when it was stopped is not lost.
            self.assertEqual(text(client.ask("tasks/result", taskId=task)), "stopped")
            self.assertEqual(client.get(task)["result"]["status"], "cancelled")
            ended = client.start(request_id=2, name="other")
            client.release("other")
            client.ended(ended)
            self.assertEqual(code(client.cancel(ended)), -32602)

    def test_progress_names_the_task_and_ends_with_it(self):
        with Wire("--progress-interval", "0") as wire:
            client = Experimental(wire)
            client.call(tool="slow", token="t", said="compiling")
            task = wire.next()["result"]["task"]["taskId"]
            for _ in range(3):
                params = wire.next()["params"]
                self.assertEqual((params["progressToken"], params["message"]), ("t", "compiling"))
                self.assertEqual(params["_meta"], {RELATED: {"taskId": task}})
            wire.request(2, "tasks/cancel", {"taskId": task})
            while "id" not in (answer := wire.next()):
                pass
            self.assertEqual(answer["result"]["status"], "cancelled")
            self.assertEqual(text(client.ask("tasks/result", taskId=task)), "stopped")

    def test_who_waits_for_a_result_can_give_up_and_the_task_goes_on(self):
        with Wire("--pending", "2") as wire:
            client = Experimental(wire)
            task = client.start_running()
            for _ in range(3):  # no place is lost
                wire.request(2, "tasks/result", {"taskId": task})
                wire.notify("notifications/cancelled", {"requestId": 2})
            self.assertEqual(client.get(task)["result"]["status"], "working")
            wire.request(2, "tasks/result", {"taskId": task})
            self.assertEqual(code(wire.ask(3, "tasks/result", {"taskId": task})), -32603)  # two wait already
            self.assertEqual(code(wire.ask(2, "ping")), -32600)
            client.cancel(task)
            self.assertEqual(text(wire.next()), "stopped")

    def test_too_many_tasks_get_an_error_that_names_the_setting(self):
        with Wire("--pending", "1") as wire:
            client = Experimental(wire)
            client.start()
            client.call(request_id=2)
            error = wire.next()["error"]
            self.assertEqual(error["code"], -32603)
            self.assertIn("limits.pending_requests", error["message"])

    def test_of_a_thousand_tasks_the_newest_are_kept_and_all_are_listed(self):
        with Wire("--tasks-kept", "150") as wire:
            client = Experimental(wire)
            client.release("it")
            tasks = []
            for _ in range(1000):
                tasks.append(client.start())
                self.assertEqual(text(client.ask("tasks/result", taskId=tasks[-1])), "it")
            self.assertEqual(len(set(tasks)), 1000)
            self.assertEqual(code(client.get(tasks[0])), -32602)
            self.assertEqual(client.get(tasks[-1])["result"]["status"], "completed")
            first = client.ask("tasks/list")["result"]
            second = client.ask("tasks/list", cursor=first["nextCursor"])["result"]
            self.assertNotIn("nextCursor", second)
            self.assertEqual([task["taskId"] for task in first["tasks"] + second["tasks"]], tasks[-150:])

    def test_cursors_that_were_never_handed_out_are_invalid(self):
        with Wire() as wire:
            client = Experimental(wire)
            client.start()
            for cursor in ("", "x", "-1", "1 ", "2", "9" * 30, 5, [], True):
                with self.subTest(cursor=cursor):
                    self.assertEqual(code(client.ask("tasks/list", cursor=cursor)), -32602)

    def test_clients_of_one_kind_see_nothing_of_the_other_kinds_tasks(self):
        with Wire("--task-after", "0") as wire:
            old, new = Experimental(wire), Extension(wire)
            requested, offered = old.start(name="a"), new.start(name="b")
            self.assertEqual([t["taskId"] for t in old.ask("tasks/list")["result"]["tasks"]], [requested])
            for client, task in ((old, offered), (new, requested)):
                self.assertEqual(code(client.get(task)), -32602)
                self.assertEqual(code(client.cancel(task)), -32602)
            self.assertEqual(code(old.ask("tasks/result", taskId=offered)), -32602)

    def test_who_waits_at_the_end_of_the_input_still_gets_the_stopped_tasks_result(self):
        with Wire() as wire:
            client = Experimental(wire)
            task = client.start()
            wire.request(2, "tasks/result", {"taskId": task})
            wire.end_input()
            self.assertEqual([(answer["id"], text(answer)) for answer in wire.rest()], [(2, "stopped")])
            self.assertEqual(wire.status(), 0)


if __name__ == "__main__":
    unittest.main()
