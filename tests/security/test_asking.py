"""The user of a host that can ask decides about a host that a command's network refuses; the command runs once."""
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

    def __init__(self, case, modern=False):
        self.modern, self.serial = modern, 0
        self.process = subprocess.Popen([*case.net.host.enter, HUTCH, "mcp"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        env=case.env(HUTCH_POOL__MAX="0"))
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
            host.call("sandbox_exec", **arguments)
            result = host.next()["result"]
            self.assertEqual(result["resultType"], "input_required", result)
            (key, request), = result["inputRequests"].items()
            self.assertIn(f"{WANTED}:80", request["params"]["message"])
            host.call("sandbox_exec", more={"requestState": result["requestState"], "inputResponses": {key: chosen(choice)}}, **arguments)
            self.assertIn(codes, host.text())
            # The state is good once.
            host.call("sandbox_exec", more={"requestState": result["requestState"], "inputResponses": {key: chosen("once")}}, **arguments)
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


if __name__ == "__main__":
    unittest.main()
