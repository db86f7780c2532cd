"""Resources: lists, reads beside other requests, and the errors that each revision wants."""
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(__file__))
from wire import MODERN, Wire, code

LEGACY = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")


class Resources(unittest.TestCase):
    def read(self, wire, request_id, uri, meta=MODERN):
        wire.request(request_id, "resources/read", {"uri": uri, "_meta": meta})

    def test_what_is_declared_is_served_and_what_is_not_is_unknown(self):
        with Wire() as wire:
            self.assertNotIn("resources", wire.initialize()["capabilities"])
            for method in ("resources/list", "resources/templates/list", "resources/read", "completion/complete"):
                self.assertEqual(code(wire.ask(1, method, {"uri": "echo://fixed"})), -32601, method)
        for revision in LEGACY:
            with Wire("--resources") as wire:
                declared = wire.initialize(revision)["capabilities"]
                self.assertEqual(declared["resources"], {})
                self.assertEqual("completions" in declared, revision != "2024-11-05", revision)
                self.assertEqual(wire.ask(1, "resources/read", {"uri": "echo://fixed"})["result"],
                                 {"contents": [{"uri": "echo://fixed", "mimeType": "text/plain", "text": "hi"}]})

    def test_lists_come_in_one_page_with_what_the_revision_knows(self):
        for revision in LEGACY:
            with Wire("--resources") as wire:
                wire.initialize(revision)
                listed = wire.ask(1, "resources/list", {})["result"]
                self.assertEqual([r["uri"] for r in listed["resources"]], ["echo://fixed", "echo://broken"])
                self.assertEqual("title" in listed["resources"][0], revision >= "2025-06-18")
                templates = wire.ask(2, "resources/templates/list")["result"]
                self.assertEqual([t["uriTemplate"] for t in templates["resourceTemplates"]], ["gate://{name}"])
                self.assertEqual(code(wire.ask(3, "resources/list", {"cursor": "2"})), -32602)

    def test_modern_results_say_how_long_they_are_good_for(self):
        with Wire("--resources") as wire:
            for request_id, method, key in ((1, "resources/list", "resources"), (2, "resources/templates/list", "resourceTemplates")):
                result = wire.ask(request_id, method, {"_meta": MODERN})["result"]
                self.assertIn(key, result)
                self.assertEqual((result["resultType"], result["cacheScope"]), ("complete", "public"))
                self.assertGreater(result["ttlMs"], 0)
            self.read(wire, 3, "echo://fixed")
            result = wire.next()["result"]
            self.assertEqual((result["resultType"], result["cacheScope"], result["ttlMs"]), ("complete", "private", 0))
            self.assertEqual(wire.ask(4, "resources/subscribe", {"uri": "echo://fixed", "_meta": MODERN})["error"]["code"], -32601)

    def test_an_unknown_address_gets_the_error_of_its_revision(self):
        for revision in LEGACY:
            with Wire("--resources") as wire:
                wire.initialize(revision)
                error = wire.ask(1, "resources/read", {"uri": "echo://none"})["error"]
                self.assertEqual((error["code"], error["data"]), (-32002, {"uri": "echo://none"}))
        with Wire("--resources") as wire:
            self.read(wire, 1, "echo://none")
            error = wire.next()["error"]
            self.assertEqual((error["code"], error["data"]), (-32602, {"uri": "echo://none"}))

    def test_wrong_parameters_and_failures_are_errors(self):
        with Wire("--resources") as wire:
            wire.initialize()
            for request_id, params in enumerate(({}, {"uri": 5}, {"uri": None})):
                self.assertEqual(code(wire.ask(request_id, "resources/read", params)), -32602, params)
            answer = wire.ask(9, "resources/read", {"uri": "echo://broken"})
            self.assertEqual(code(answer), -32603)
            self.assertIn("a library threw", answer["error"]["message"])

    def test_a_read_that_waits_delays_nothing_and_can_be_cancelled(self):
        with Wire("--resources") as wire:
            self.read(wire, 1, "gate://one", {**MODERN, "progressToken": "t"})
            self.assertEqual(wire.next()["params"]["message"], "waiting for one")
            self.assertEqual(wire.ask(2, "ping")["result"], {})
            self.read(wire, 3, "echo://fixed")
            self.assertEqual(wire.next()["id"], 3)
            self.read(wire, 4, "gate://two")
            wire.notify("notifications/cancelled", {"requestId": 1})
            wire.call(5, "release", {"name": "two"})
            self.assertEqual({wire.next()["id"], wire.next()["id"]}, {4, 5})
            wire.end_input()  # which stops and answers what still runs: the first read does not
            self.assertEqual(wire.rest(), [])

    def test_too_many_reads_get_an_error_that_names_the_setting(self):
        with Wire("--resources", "--pending", "1") as wire:
            self.read(wire, 1, "gate://one", {**MODERN, "progressToken": "t"})
            wire.next()
            self.read(wire, 2, "echo://fixed")
            self.assertIn("limits.pending_requests", wire.next()["error"]["message"])

    def test_a_variable_of_a_template_is_completed(self):
        def ask(wire, request_id, ref, name, value):
            return wire.ask(request_id, "completion/complete", {"ref": ref, "argument": {"name": name, "value": value}})

        with Wire("--resources") as wire:
            wire.initialize()
            gate = {"type": "ref/resource", "uri": "gate://{name}"}
            self.assertEqual(ask(wire, 1, gate, "name", "f")["result"],
                             {"completion": {"values": ["first"], "total": 1, "hasMore": False}})
            self.assertEqual(ask(wire, 2, gate, "name", "x")["result"]["completion"]["values"], [])
            self.assertEqual(code(ask(wire, 3, gate, "other", "")), -32602)
            self.assertEqual(code(ask(wire, 4, {"type": "ref/prompt", "name": "p"}, "name", "")), -32602)
            self.assertEqual(code(wire.ask(5, "completion/complete", {"ref": gate})), -32602)


if __name__ == "__main__":
    unittest.main()
