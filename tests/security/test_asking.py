"""The user of a host that can ask decides about a host that the network refuses to a command or to code; that runs once."""
import json
import subprocess
import threading
import unittest

import network
from egress_case import EgressCase
from sandbox_case import HUTCH

META = "io.modelcontextprotocol/"
WANTED = "files.example.org"


class Host:
    """Lines to and from a server, by a host that can ask."""

    def __init__(self, case, modern=False, **settings):
        self.modern, self.serial = modern, 0
        self.process = subprocess.Popen([*case.net.host.enter, HUTCH, "mcp"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        env=case.env(HUTCH_POOL__MAX="0", **settings))
        case.addCleanup(self.close)
        if not modern:
            self.request("initialize", {"protocolVersion": "2025-11-25", "capabilities": {"elicitation": {}}, "clientInfo": {"name": "t", "version": "1"}})
            self.next()
            self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def close(self):
        self.process.stdin.close()
        self.process.stdout.read()
        self.process.stdout.close()
        self.process.wait()

    def send(self, message):
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def request(self, method, params):
        self.serial += 1
        if self.modern:
            params = {**params, "_meta": {META + "protocolVersion": "2026-07-28", META + "clientCapabilities": {"elicitation": {}},
                                          META + "clientInfo": {"name": "t", "version": "1"}}}
        self.send({"jsonrpc": "2.0", "id": self.serial, "method": method, "params": params})

    def call(self, tool, more=None, **arguments):
        self.request("tools/call", {"name": tool, "arguments": arguments, **(more or {})})

    def asked(self, tool, **arguments):
        """A call that ends with a question (2026-07-28): what the next one has to bring, for a choice."""
        self.call(tool, **arguments)
        result = self.next()["result"]
        assert result.get("resultType") == "input_required", result
        (key, request), = result["inputRequests"].items()
        return request["params"]["message"], lambda choice: {"requestState": result["requestState"],
                                                             "inputResponses": {key: chosen(choice)}}

    def next(self):
        timer = threading.Timer(60, self.process.kill)
        timer.start()
        line = self.process.stdout.readline()
        timer.cancel()
        assert line, "the server said nothing for 60 s, or has ended"
        return json.loads(line)

    def text(self):
        result = self.next()["result"]
        return result["content"][0]["text"]


def chosen(value):
    return {"action": "accept", "content": {"choice": value}}


class Asking(EgressCase):
    @classmethod
    def setUpClass(cls):
        network.skip_when_impossible()
        super().setUpClass()
        cls.net.dns[WANTED] = "203.0.113.30"

    # Counts itself, asks twice for the same host, and shows what it got.
    COMMAND = f"echo ran >> runs; for i in 1 2; do curl -sS -m 50 -o /dev/null -w '%{{http_code}} ' http://{WANTED}/; done; wc -l < runs"

    def question(self, message):
        self.assertEqual(message["method"], "elicitation/create", message)
        self.assertIn(f"{WANTED}:80", message["params"]["message"])
        self.assertIn("echo ran", message["params"]["message"])
        return message

    def test_allowed_once_is_for_this_command_and_for_the_sandbox_stays(self):
        host = Host(self)
        for choice, then in (("once", "403"), ("sandbox", "200")):
            host.call("sandbox_exec", command="rm -f runs; " + self.COMMAND)
            question = self.question(host.next())
            host.send({"jsonrpc": "2.0", "id": question["id"], "result": chosen(choice)})
            self.assertIn("200 200 1", host.text())
            host.call("sandbox_exec", command=f"curl -sS -o /dev/null -w '%{{http_code}}' http://{WANTED}/")
            if then == "403":
                question = self.question_again(host)
                host.send({"jsonrpc": "2.0", "id": question["id"], "result": chosen("no")})
            self.assertIn(then, host.text())

    def question_again(self, host):
        message = host.next()
        self.assertEqual(message["method"], "elicitation/create", message)
        return message

    def test_a_no_and_a_host_that_dismisses_it_are_refusals_that_are_listed(self):
        host = Host(self)
        for answer in (chosen("no"), {"action": "decline"}, {"action": "cancel"}):
            host.call("sandbox_exec", command="rm -f runs; " + self.COMMAND)
            question = self.question(host.next())
            host.send({"jsonrpc": "2.0", "id": question["id"], "result": answer})
            text = host.text()
            self.assertIn("403 403 1", text)  # the second one is not asked about again
            self.assertIn(WANTED, text)

    def test_in_2026_07_28_the_call_ends_with_the_question_and_the_next_goes_on_with_the_same_command(self):
        host = Host(self, modern=True)
        for choice, codes in (("once", "200 200 1"), ("no", "403 403 1")):
            arguments = {"command": "rm -f runs; " + self.COMMAND}
            message, answer = host.asked("sandbox_exec", **arguments)
            self.assertIn(f"{WANTED}:80", message)
            host.call("sandbox_exec", more=answer(choice), **arguments)
            self.assertIn(codes, host.text())
            # The state is good once.
            host.call("sandbox_exec", more=answer("once"), **arguments)
            self.assertIn("error", host.next())

    def test_a_command_that_ends_meanwhile_takes_its_question_back(self):
        host = Host(self)
        host.call("sandbox_exec", command=f"curl -sS -m 1 http://{WANTED}/; echo over")
        question = self.question_again(host)
        message = host.next()
        self.assertEqual((message["method"], message["params"]["requestId"]), ("notifications/cancelled", question["id"]))
        self.assertIn("over", host.text())

    def test_five_questions_an_hour_and_then_no(self):
        host = Host(self)
        for number in range(7):
            host.call("sandbox_exec", command=f"curl -sS -o /dev/null -w '%{{http_code}}' http://n{number}.example.org/")
            if number < 5:
                question = self.question_again(host)
                host.send({"jsonrpc": "2.0", "id": question["id"], "result": chosen("no")})
            self.assertIn("403", host.text())

    def test_a_host_whose_configuration_leaves_callers_no_say_is_not_asked(self):
        host = Host(self, HUTCH_EGRESS__CALLERS_MAY_ALLOW="none")
        host.call("sandbox_exec", command=self.COMMAND)
        self.assertIn("403 403 1", host.text())

    # As COMMAND, in an interpreter that counts.
    CODE = f"""import urllib.error, urllib.request
def get():
    try: return urllib.request.urlopen("http://{WANTED}/", timeout=50).status
    except urllib.error.HTTPError as error: return error.code
runs = globals().get("runs", 0) + 1
(get(), get(), runs)"""

    def question_about_code(self, message):
        self.assertEqual(message["method"], "elicitation/create", message)
        self.assertIn(f"{WANTED}:80", message["params"]["message"])
        self.assertIn("import urllib", message["params"]["message"])
        return message

    def test_code_of_a_session_is_asked_about_for_itself_or_for_the_sandbox(self):
        host = Host(self)
        for runs, (choice, codes) in enumerate((("once", "200, 200"), ("no", "403, 403"), ("sandbox", "200, 200"), (None, "200, 200")), 1):
            host.call("sandbox_eval", code=self.CODE, session="kept")
            if choice:
                question = self.question_about_code(host.next())
                host.send({"jsonrpc": "2.0", "id": question["id"], "result": chosen(choice)})
            self.assertIn(f"=> ({codes}, {runs})", host.text())

    def test_in_2026_07_28_the_next_call_goes_on_with_the_same_code_whatever_runs_it(self):
        host = Host(self, modern=True)
        bash = self.COMMAND.replace("runs", "bash_runs")
        for arguments, once, no in (({"code": self.CODE, "session": "kept"}, "=> (200, 200, 1)", "=> (403, 403, 2)"),
                                    ({"code": self.CODE, "language": "python"}, "=> (200, 200, 1)", "=> (403, 403, 1)"),
                                    ({"code": bash, "language": "bash", "session": "shell"}, "200 200 1", "403 403 2"),
                                    ({"code": self.COMMAND, "language": "sh"}, "200 200 1", "403 403 2")):
            for choice, wanted in (("once", once), ("no", no)):
                with self.subTest(arguments, choice=choice):
                    # More than one sandbox may ask in an hour.
                    box = self.box_of(host, arguments)
                    message, answer = host.asked("sandbox_eval", sandbox_id=box, **arguments)
                    self.assertIn(f"{WANTED}:80", message)
                    host.call("sandbox_eval", more=answer(choice), sandbox_id=box, **arguments)
                    self.assertIn(wanted, host.text())
                    # The state is good once.
                    host.call("sandbox_eval", more=answer("once"), sandbox_id=box, **arguments)
                    self.assertIn("error", host.next())

    def box_of(self, host, arguments):
        """A sandbox for each kind of arguments, by its name."""
        name = f"{arguments.get('language', 'python')}-{arguments.get('session', 'fresh')}"
        host.call("sandbox_create", name=name)
        host.next()  # an error the second time
        return name

    def test_an_answer_is_for_the_code_that_was_asked_about(self):
        host = Host(self, modern=True)
        _, answer = host.asked("sandbox_eval", code=self.CODE, session="kept")
        for other in ({"code": self.CODE + " ", "session": "kept"}, {"code": self.CODE, "session": "other"}):
            host.call("sandbox_eval", more=answer("sandbox"), **other)
            self.assertIn("error", host.next())
        host.call("sandbox_exec", more=answer("sandbox"), command="true")
        self.assertIn("error", host.next())
        host.call("sandbox_eval", more=answer("once"), code=self.CODE, session="kept")
        self.assertIn("=> (200, 200, 1)", host.text())

    def test_code_that_is_cancelled_while_its_user_is_asked_keeps_its_session(self):
        host = Host(self)
        # Once alone: until it is interrupted, what it tries next could be asked about for the next call.
        host.call("sandbox_eval", code=self.CODE.replace("(get(), get(), runs)", "get()"), session="kept")
        question = self.question_about_code(host.next())
        host.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": host.serial}})
        message = host.next()
        self.assertEqual((message["method"], message["params"]["requestId"]), ("notifications/cancelled", question["id"]))
        host.call("sandbox_eval", code="runs", session="kept")
        self.assertIn("=> 1", host.text())

    def test_code_that_ends_while_its_user_thinks_is_reported_and_not_run_again(self):
        host = Host(self, modern=True)
        arguments = {"code": self.CODE, "session": "kept"}
        host.call("sandbox_eval", code="import urllib.request; runs = 10", session="kept")
        host.next()
        # At its deadline, which interrupts it.
        _, answer = host.asked("sandbox_eval", timeout_s=3, **arguments)
        host.call("sandbox_eval", code="runs", session="kept")  # its turn comes when the other has ended
        self.assertIn("=> 11", host.text())
        host.call("sandbox_eval", more=answer("once"), timeout_s=3, **arguments)
        self.assertIn("timed out", host.text())
        # Killed.
        _, answer = host.asked("sandbox_eval", **arguments)
        host.call("sandbox_process", action="list")
        number = host.text().split("\n")[1].split()[0]
        host.call("sandbox_process", action="signal", process_id=int(number), signal="KILL")
        host.next()
        host.call("sandbox_eval", more=answer("once"), **arguments)
        self.assertIn("Session 'kept' has ended", host.text())

    def test_a_sandbox_that_is_destroyed_while_its_user_thinks_is_an_error(self):
        host = Host(self, modern=True)
        host.call("sandbox_create", name="short")
        host.next()
        arguments = {"code": self.CODE, "session": "kept", "sandbox_id": "short"}
        _, answer = host.asked("sandbox_eval", **arguments)
        host.call("sandbox_destroy", sandbox_id="short")
        host.next()
        host.call("sandbox_eval", more=answer("sandbox"), **arguments)
        result = host.next()["result"]
        self.assertTrue(result["isError"], result)
        self.assertIn("ended", result["content"][0]["text"])

    def test_of_two_that_run_at_once_each_may_ask(self):
        host = Host(self)
        host.call("sandbox_exec", command="mkfifo gate")
        host.next()
        command = "read line < gate; curl -sS -o /dev/null -w '%{http_code}' http://first.example.org/"
        host.call("sandbox_exec", command=command)
        first = host.serial
        host.call("sandbox_eval", code=self.CODE, session="kept")
        question = self.question_about_code(host.next())
        host.send({"jsonrpc": "2.0", "id": question["id"], "result": chosen("no")})
        self.assertIn("=> (403, 403, 1)", host.text())
        host.call("sandbox_exec", command="echo go > gate", background=True)
        seen = [host.next(), host.next()]
        question, = [message for message in seen if "method" in message]
        self.assertIn("read line", question["params"]["message"])
        host.send({"jsonrpc": "2.0", "id": question["id"], "result": chosen("no")})
        answer = host.next()
        self.assertEqual(answer["id"], first)
        self.assertIn("403", answer["result"]["content"][0]["text"])


if __name__ == "__main__":
    unittest.main()
