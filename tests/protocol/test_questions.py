"""Tools that ask their user: by a request while they wait (2025-06-18 on), by input_required (2026-07-28), and in the
state of a task."""
import os
import signal
import sys
import unittest

sys.path.insert(0, os.path.dirname(__file__))
from wire import META, MODERN, Wire, code, text

CAPABILITIES = META + "clientCapabilities"
FORMS = {"elicitation": {}}
ASKED = {CAPABILITIES: FORMS}
ASKED_IN_TASKS = {CAPABILITIES: {**FORMS, "extensions": {META + "tasks": {}}}}
LABELS = {"once": "Once", "sandbox": "For this sandbox", "no": "No?!"}
NO_FORMS = ({}, {"elicitation": None}, {"elicitation": True}, {"elicitation": []}, {"elicitation": {"url": {}}})


def chosen(value):
    return {"action": "accept", "content": {"choice": value}}


# Everything but a choice means no.
NO_CHOICES = (
    ({"action": "decline"}, "declined"), ({"action": "decline", "content": {"choice": "once"}}, "declined"),
    ({"action": "cancel"}, "none"), ({"action": "cancel", "content": {"choice": "once"}}, "none"),
    ({"action": "accept"}, "none"), ({"action": "accept", "content": None}, "none"),
    ({"action": "accept", "content": "once"}, "none"), ({"action": "accept", "content": ["once"]}, "none"),
    ({"action": "accept", "content": {}}, "none"), (chosen("Once"), "none"), (chosen(""), "none"),
    (chosen("once "), "none"), (chosen(0), "none"), (chosen(None), "none"), (chosen(["once"]), "none"),
    (chosen({"choice": "once"}), "none"), ({"action": "Accept", "content": {"choice": "once"}}, "none"),
    ({"action": ["accept"], "content": {"choice": "once"}}, "none"), ({"content": {"choice": "once"}}, "none"),
    ({}, "none"), ([], "none"), ("accept", "none"), (True, "none"), (None, "none"),
)


class Old:
    """A client that is sent requests."""

    def __init__(self, wire, version="2025-11-25", capabilities=None):
        self.wire = wire
        wire.initialize(version, capabilities=FORMS if capabilities is None else capabilities)

    def call(self, request_id, tool="ask", task=None, **arguments):
        params = {"name": tool, "arguments": {"name": "it", **arguments}}
        self.wire.request(request_id, "tools/call", params if task is None else {**params, "task": task})

    def question(self):
        message = self.wire.next()
        assert message["method"] == "elicitation/create", message
        return message

    def answer(self, question, result):
        self.wire.send({"jsonrpc": "2.0", "id": question["id"], "result": result})

    def outcome(self, request_id=1):
        answer = self.wire.next()
        assert answer["id"] == request_id, answer
        return text(answer)


class Waiting(unittest.TestCase):
    def test_the_question_is_a_form_with_the_choices_in_the_words_of_each_revision(self):
        titles = {"2025-06-18": {"enum": list(LABELS), "enumNames": list(LABELS.values())},
                  "2025-11-25": {"oneOf": [{"const": value, "title": title} for value, title in LABELS.items()]}}
        modes = {"2025-06-18": {}, "2025-11-25": {"mode": "form"}}
        for version in titles:
            with self.subTest(version=version), Wire(record=True) as wire:
                client = Old(wire, version)
                client.call(1)
                question = client.question()
                self.assertEqual(set(question), {"jsonrpc", "id", "method", "params"})
                choice = {"type": "string", "title": "Your choice", **titles[version]}
                self.assertEqual(question["params"], {
                    **modes[version], "message": "Allow it?",
                    "requestedSchema": {"type": "object", "properties": {"choice": choice}, "required": ["choice"]}})
                client.answer(question, chosen("once"))
                self.assertEqual(client.outcome(), "chosen once")

    def test_every_choice_reaches_the_tool_and_everything_else_is_no(self):
        cases = [(chosen(value), "chosen " + value) for value in LABELS]
        with Wire() as wire:
            client = Old(wire)
            for answer, outcome in (*cases, *NO_CHOICES):
                with self.subTest(answer=answer):
                    client.call(1)
                    client.answer(client.question(), answer)
                    self.assertEqual(client.outcome(), outcome)

    def test_an_error_of_the_host_is_no_answer(self):
        with Wire() as wire:
            client = Old(wire)
            for error in ({"code": -32601, "message": "Method not found"}, {}, None, "no"):
                client.call(1)
                wire.send({"jsonrpc": "2.0", "id": client.question()["id"], "error": error})
                self.assertEqual(client.outcome(), "none")

    def test_a_host_that_does_not_answer_in_time_is_told_that_it_need_not(self):
        with Wire(record=True) as wire:
            client = Old(wire)
            client.call(1, timeout_ms=1)
            question, cancelled = client.question(), wire.next()
            self.assertEqual(cancelled["method"], "notifications/cancelled")
            self.assertEqual(cancelled["params"]["requestId"], question["id"])
            self.assertEqual(client.outcome(), "none")
            client.answer(question, chosen("once"))  # too late: nobody waits for it
            self.assertEqual(wire.ask(2, "ping")["result"], {})

    def test_who_does_not_declare_forms_is_never_asked(self):
        for version in ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"):
            for capabilities in (FORMS, *NO_FORMS) if version < "2025-06-18" else NO_FORMS:
                with self.subTest(version=version, capabilities=capabilities), Wire() as wire:
                    client = Old(wire, version, capabilities)
                    client.call(1)
                    self.assertEqual(client.outcome(), "none")

    def test_forms_are_what_a_host_with_modes_must_name(self):
        for declared in ({"form": {}}, {"form": {}, "url": {}}, {}, {"new": 1}):
            with self.subTest(declared=declared), Wire() as wire:
                client = Old(wire, capabilities={"elicitation": declared})
                client.call(1)
                client.answer(client.question(), chosen("once"))
                self.assertEqual(client.outcome(), "chosen once")

    def test_a_new_handshake_without_forms_ends_the_asking(self):
        with Wire() as wire:
            client = Old(wire)
            wire.initialize()
            client.call(1)
            self.assertEqual(client.outcome(), "none")

    def test_five_questions_at_once_get_their_own_answers_and_delay_nobody(self):
        for threads in ("64", "1"):
            with self.subTest(threads=threads), Wire("--threads", threads) as wire:
                client = Old(wire)
                side_by_side = 5 if threads == "64" else 1
                for i in range(side_by_side):
                    client.call(i, text=str(i))
                questions = {q["params"]["message"]: q for q in (client.question() for _ in range(side_by_side))}
                self.assertEqual(len({q["id"] for q in questions.values()}), side_by_side)
                self.assertEqual(wire.ask("p", "ping")["result"], {})
                for i in reversed(range(side_by_side)):
                    value = list(LABELS)[i % 3]
                    client.answer(questions[str(i)], chosen(value))
                    self.assertEqual(client.outcome(i), "chosen " + value)

    def test_a_cancelled_call_takes_its_question_back(self):
        with Wire(record=True) as wire:
            client = Old(wire)
            client.call(1)
            question = client.question()
            wire.notify("notifications/cancelled", {"requestId": 1})
            cancelled = wire.next()
            self.assertEqual((cancelled["method"], cancelled["params"]["requestId"]),
                             ("notifications/cancelled", question["id"]))
            client.answer(question, chosen("once"))
            wire.end_input()
            self.assertEqual(wire.rest(), [])
            self.assertEqual(wire.status(), 0)
            self.assertIn("it stopped", wire.stderr())

    def test_a_question_whose_answer_is_needed_no_more_is_taken_back(self):
        with Wire() as wire:
            client = Old(wire)
            client.call(1, until="over")
            question = client.question()
            wire.request(2, "tools/call", {"name": "release", "arguments": {"name": "over"}})
            messages = [wire.next() for _ in range(3)]
            (cancelled,) = [m for m in messages if "method" in m]
            self.assertEqual((cancelled["method"], cancelled["params"]["requestId"]),
                             ("notifications/cancelled", question["id"]))
            self.assertEqual({m["id"]: text(m) for m in messages if "id" in m}, {1: "none", 2: "released"})

    def test_a_client_that_goes_has_said_no(self):
        with Wire() as wire:
            client = Old(wire)
            client.call(1)
            client.question()
            wire.end_input()
            self.assertEqual([(answer["id"], text(answer)) for answer in wire.rest()], [(1, "none")])
            self.assertEqual(wire.status(), 0)

    def test_a_stop_request_ends_a_server_with_open_questions(self):
        with Wire() as wire:
            client = Old(wire)
            for i in range(5):
                client.call(i)
                client.question()
            wire.process.send_signal(signal.SIGTERM)
            self.assertEqual(wire.status(), 0)

    def test_answers_to_questions_that_were_never_put_are_ignored(self):
        with Wire() as wire:
            client = Old(wire)
            client.call(1)
            question = client.question()
            for other in (1, 0, None, "", "1", question["id"] + "x", question["id"].upper(), [question["id"]], {}):
                client.answer({"id": other}, chosen("sandbox"))
            self.assertEqual(wire.ask(2, "ping")["result"], {})
            client.answer(question, chosen("once"))
            client.answer(question, chosen("sandbox"))
            self.assertEqual(client.outcome(), "chosen once")

    def test_a_call_asks_once(self):
        with Wire() as wire:
            client = Old(wire)
            client.call(1, twice=True)
            client.answer(client.question(), chosen("once"))
            self.assertEqual(client.outcome(), "chosen once, then none")

    def test_only_printable_ascii_reaches_the_host(self):
        with Wire() as wire:
            client = Old(wire)
            client.call(1, text="a\x1b[2Jb\r\n\x00c\x7f\u202e\tz")
            self.assertEqual(client.question()["params"]["message"], "a?[2Jb?\n?c?????z")

    def test_a_tool_cannot_end_the_call_of_an_older_client_with_a_question(self):
        with Wire() as wire:
            client = Old(wire)
            client.call(1, anyway=True)
            answer = wire.next()
            self.assertTrue(answer["result"]["isError"])
            self.assertIn("a client that cannot be asked\n  while running ask", text(answer))
            for state in ("x", 5):
                wire.request(2, "tools/call", {"name": "ask", "arguments": {"name": "it"}, "requestState": state})
                client.answer(client.question(), chosen("once"))  # a word of another revision means nothing
                self.assertEqual(client.outcome(2), "chosen once")

    def test_a_requested_task_requires_input_until_it_is_answered(self):
        with Wire(record=True) as wire:
            client = Old(wire)
            client.call(1, "ask_long", task={})
            first, second = wire.next(), wire.next()
            created, question = (second, first) if "method" in first else (first, second)
            task = created["result"]["task"]["taskId"]
            self.assertEqual(question["params"]["_meta"], {META + "related-task": {"taskId": task}})
            state = wire.ask(2, "tasks/get", {"taskId": task})["result"]
            self.assertEqual(state["status"], "input_required")
            self.assertNotIn("inputRequests", state)
            wire.request(3, "tasks/result", {"taskId": task})
            client.answer(question, chosen("sandbox"))
            self.assertEqual(client.outcome(3), "chosen sandbox")
            self.assertEqual(wire.ask(4, "tasks/get", {"taskId": task})["result"]["status"], "completed")


class New:
    """A client whose calls end with questions."""

    def __init__(self, wire, meta=None):
        self.wire, self.meta = wire, meta or ASKED

    def call(self, request_id=1, tool="ask", arguments=None, meta=None, **retry):
        self.wire.request(request_id, "tools/call", {
            "name": tool, "arguments": {"name": "it"} if arguments is None else arguments,
            "_meta": {**MODERN, **(meta or self.meta)}, **retry})

    def asked(self, **call):
        """The requestState with which a call ends."""
        self.call(**call)
        return self.wire.next()["result"]["requestState"]

    def retry(self, state, response=None, **call):
        responses = {} if response is None else {"question": response}
        self.call(requestState=state, inputResponses=responses, **call)
        return self.wire.next()


class RoundTrip(unittest.TestCase):
    def test_the_call_ends_with_the_question_and_the_next_one_goes_on_with_the_answer(self):
        with Wire(record=True) as wire:
            client = New(wire)
            client.call(1)
            result = wire.next()["result"]
            self.assertEqual(set(result), {"resultType", "inputRequests", "requestState", "_meta"})
            self.assertEqual(result["resultType"], "input_required")
            choice = {"type": "string", "title": "Your choice",
                      "oneOf": [{"const": value, "title": title} for value, title in LABELS.items()]}
            self.assertEqual(result["inputRequests"], {"question": {
                "method": "elicitation/create",
                "params": {"mode": "form", "message": "Allow it?",
                           "requestedSchema": {"type": "object", "properties": {"choice": choice},
                                               "required": ["choice"]}}}})
            answer = client.retry(result["requestState"], chosen("sandbox"), request_id=2)
            self.assertEqual((answer["id"], answer["result"]["resultType"]), (2, "complete"))
            self.assertEqual(text(answer), "it, work of it: chosen sandbox")
            self.assertEqual(wire.stderr().count("it begins"), 1)

    def test_everything_but_a_choice_is_no(self):
        with Wire() as wire:
            client = New(wire)
            for response, outcome in NO_CHOICES:
                with self.subTest(response=response):
                    self.assertEqual(text(client.retry(client.asked(), response)), "it, work of it: " + outcome)
            for responses in ({"other": chosen("once")}, {"Question": chosen("once")}, {}):
                client.call(requestState=client.asked(), inputResponses=responses)
                self.assertEqual(text(wire.next()), "it, work of it: none")
            client.call(requestState=client.asked())
            self.assertEqual(text(wire.next()), "it, work of it: none")

    def refused(self, answer, why):
        self.assertEqual(code(answer), -32602, answer)
        self.assertIn(why, answer["error"]["message"])

    def test_forged_states_run_nothing(self):
        with Wire() as wire, Wire() as other:
            client = New(wire)
            state = client.asked()
            flipped = [state[:i] + ("0" if state[i] != "0" else "1") + state[i + 1:]
                       for i in (0, 63, 64, 70, len(state) // 2, len(state) - 1)]
            shorter = [state[:n] for n in (0, 1, 63, 64, 65, len(state) - 1)]
            for forged in (*flipped, *shorter, state + " ", " " + state, state.upper(), "0" * 64 + state[64:],
                           state[64:], state * 2, "{}", "\u0000", New(other).asked()):
                with self.subTest(forged=forged):
                    self.refused(client.retry(forged, chosen("once")), "not given out by this server")
            self.assertEqual(text(client.retry(state, chosen("once"))), "it, work of it: chosen once")
            self.assertEqual(wire.stderr().count("begins"), 1)

    def test_a_state_is_good_for_the_same_call_only(self):
        with Wire() as wire:
            client = New(wire)
            arguments = {"name": "it", "text": "x"}
            state = client.asked(arguments=arguments)
            for other in ({"name": "it"}, {**arguments, "twice": False}, {**arguments, "name": "it "}, {}):
                with self.subTest(other=other):
                    self.refused(client.retry(state, chosen("once"), arguments=other), "belongs to another call")
            for tool in ("ask_long", "echo", "fail"):
                answer = client.retry(state, chosen("once"), tool=tool, arguments=arguments)
                self.refused(answer, "belongs to another call")
            # The order of the keys is no difference.
            reordered = dict(reversed(arguments.items()))
            self.assertEqual(text(client.retry(state, chosen("no"), arguments=reordered)),
                             "it, work of it: chosen no")
            self.assertEqual(wire.stderr().count("begins"), 1)

    def test_a_state_is_good_once(self):
        with Wire() as wire:
            client = New(wire)
            state = client.asked()
            for i in range(5):
                client.call(i, requestState=state, inputResponses={"question": chosen("once")})
            answers = [wire.next() for _ in range(5)]
            self.assertEqual([text(a) for a in answers if "result" in a], ["it, work of it: chosen once"])
            for answer in answers:
                if "error" in answer:
                    self.refused(answer, "was used already")

    def test_a_state_is_good_for_a_while(self):
        with Wire("--question-lifetime", "0") as wire:
            client = New(wire)
            self.refused(client.retry(client.asked(), chosen("once")), "has expired")

    def test_ill_typed_fields_are_invalid_params_and_use_nothing_up(self):
        with Wire() as wire:
            client = New(wire)
            state = client.asked()
            for bad in (5, True, [state], {"requestState": state}):
                client.call(requestState=bad, inputResponses={})
                self.refused(wire.next(), "requestState must be a string")
            for bad in (5, "x", [chosen("once")], True):
                client.call(requestState=state, inputResponses=bad)
                self.refused(wire.next(), "inputResponses must be an object")
            self.assertEqual(text(client.retry(state, chosen("once"))), "it, work of it: chosen once")

    def test_an_answer_that_has_lost_its_state_does_not_begin_anew(self):
        with Wire() as wire:
            client = New(wire)
            client.asked()
            for state in ({}, {"requestState": None}):
                client.call(inputResponses={"question": chosen("once")}, **state)
                self.refused(wire.next(), "without the requestState")
            self.assertEqual(wire.stderr().count("begins"), 1)

    def test_a_call_that_finds_no_room_keeps_its_state(self):
        with Wire("--pending", "1") as wire:
            client = New(wire)
            state = client.asked()
            wire.call(1, "wait", {"name": "it"}, {"progressToken": "t"})
            while "method" not in wire.next():  # the answered call takes a moment to leave its place
                wire.call(1, "wait", {"name": "it"}, {"progressToken": "t"})
            self.assertIn("limits.pending_requests", text(client.retry(state, chosen("once"), request_id=2)))
            wire.notify("notifications/cancelled", {"requestId": 1})
            # The work takes a moment to stop.
            while (answer := client.retry(state, chosen("once"), request_id=3))["result"]["isError"]:
                pass
            self.assertEqual(text(answer), "it, work of it: chosen once")

    def test_each_request_says_whether_its_client_can_be_asked(self):
        with Wire() as wire:
            client = New(wire)
            state = client.asked()
            for capabilities in NO_FORMS:
                with self.subTest(capabilities=capabilities):
                    client.call(meta={CAPABILITIES: capabilities})
                    self.assertEqual(text(wire.next()), "none")
            wire.initialize(capabilities=FORMS)  # what an older client declares beside it is not meant
            client.call(meta={CAPABILITIES: {}})
            self.assertEqual(text(wire.next()), "none")
            self.assertEqual(text(client.retry(state, chosen("once"))), "it, work of it: chosen once")

    def test_who_cannot_be_asked_gets_no_question_from_a_faulty_tool_either(self):
        with Wire() as wire:
            wire.call(1, "ask", {"name": "it", "anyway": True})
            self.assertIn("a client that cannot be asked", text(wire.next()))

    def test_five_calls_end_with_questions_and_go_on_in_any_order(self):
        with Wire() as wire:
            client = New(wire)
            names = [f"n{i}" for i in range(5)]
            states = {name: client.asked(arguments={"name": name}) for name in names}
            self.assertEqual(len(set(states.values())), 5)
            for i, name in reversed(list(enumerate(names))):
                value = list(LABELS)[i % 3]
                answer = client.retry(states[name], chosen(value), arguments={"name": name})
                self.assertEqual(text(answer), f"{name}, work of {name}: chosen {value}")


class InTasks(unittest.TestCase):
    """The extension of 2026-07-28: a call that may be a task becomes one when it asks."""

    def start(self, wire, **arguments):
        New(wire, ASKED_IN_TASKS).call(1, "ask_long", {"name": "it", **arguments})
        result = wire.next()["result"]
        self.assertEqual(result["resultType"], "task")
        return result["taskId"]

    def ask(self, wire, method, task, **params):
        return wire.ask("t", method, {"taskId": task, "_meta": {**MODERN, **ASKED_IN_TASKS}, **params})

    def until(self, wire, task, *statuses):
        while (state := self.ask(wire, "tasks/get", task)["result"])["status"] not in statuses:
            self.assertIn(state["status"], ("working", "input_required"))
        return state

    def test_the_state_of_the_task_carries_the_question_and_an_update_the_answer(self):
        for response, outcome in ((chosen("once"), "chosen once"), *NO_CHOICES):
            with self.subTest(response=response), Wire(record=True) as wire:
                task = self.start(wire)
                state = self.until(wire, task, "input_required")
                (key, request), = state["inputRequests"].items()
                self.assertEqual((request["method"], request["params"]["mode"]), ("elicitation/create", "form"))
                self.assertNotIn("_meta", request["params"])
                self.assertEqual(self.until(wire, task, "input_required")["inputRequests"], state["inputRequests"])
                ignored = {"question": chosen("no"), key + "x": chosen("no")}
                self.assertNotIn("error", self.ask(wire, "tasks/update", task, inputResponses=ignored))
                answer = self.ask(wire, "tasks/update", task, inputResponses={key: response})
                self.assertEqual(answer["result"]["resultType"], "complete")
                ended = self.until(wire, task, "completed")
                self.assertNotIn("inputRequests", ended)
                self.assertEqual(ended["result"]["content"][0]["text"], outcome)
                self.assertNotIn("error", self.ask(wire, "tasks/update", task, inputResponses={key: chosen("no")}))

    def test_a_question_that_nobody_answers_goes(self):
        with Wire() as wire:
            ended = self.until(wire, self.start(wire, timeout_ms=1), "completed")
            self.assertEqual(ended["result"]["content"][0]["text"], "none")

    def test_a_cancelled_task_asks_no_more(self):
        with Wire() as wire:
            task = self.start(wire)
            self.until(wire, task, "input_required")
            self.ask(wire, "tasks/cancel", task)
            self.assertNotIn("inputRequests", self.until(wire, task, "cancelled"))
            wire.end_input()
            self.assertEqual(wire.rest(), [])
            self.assertIn("it stopped", wire.stderr())

    def test_answers_go_to_the_task_that_asked(self):
        with Wire() as wire:
            first, second = self.start(wire), self.start(wire)
            key, = self.until(wire, first, "input_required")["inputRequests"]
            self.until(wire, second, "input_required")
            self.ask(wire, "tasks/update", second, inputResponses={key: chosen("once")})
            for task in (first, second):
                self.assertEqual(self.ask(wire, "tasks/get", task)["result"]["status"], "input_required")

    def test_a_tool_that_cannot_be_a_task_ends_its_call_with_the_question(self):
        with Wire(record=True) as wire:
            client = New(wire, ASKED_IN_TASKS)
            self.assertEqual(text(client.retry(client.asked(), chosen("once"))), "it, work of it: chosen once")

    def test_without_forms_the_task_is_refused_and_does_not_wait(self):
        with Wire() as wire:
            New(wire, {CAPABILITIES: {"extensions": {META + "tasks": {}}}}).call(1, "ask_long")
            self.assertEqual(text(wire.next()), "none")


if __name__ == "__main__":
    unittest.main()
