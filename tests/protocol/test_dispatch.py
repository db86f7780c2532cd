"""Which answer each kind of message gets, in both eras."""
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(__file__))
from wire import META, MODERN, Wire, code, text

LEGACY = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")


class Modern(unittest.TestCase):
    def test_discover_needs_no_handshake(self):
        with Wire() as wire:
            result = wire.ask("server-discover-probe-1", "server/discover", {"_meta": MODERN})["result"]
            self.assertEqual(result["resultType"], "complete")
            self.assertEqual(result["supportedVersions"], ["2026-07-28"])
            self.assertEqual(result["capabilities"], {"tools": {}, "extensions": {META + "tasks": {}}})
            self.assertEqual(result["instructions"], "Say something.")
            self.assertIsInstance(result["ttlMs"], int)
            self.assertIn(result["cacheScope"], ("public", "private"))
            self.assertEqual(result["_meta"][META + "serverInfo"]["name"], "echo")

    def test_discover_does_not_fix_the_era(self):
        with Wire() as wire:
            wire.ask(0, "server/discover", {"_meta": MODERN})
            self.assertEqual(code(wire.ask(1, "tools/list")), -32602)
            self.assertEqual(wire.initialize()["protocolVersion"], "2025-11-25")
            self.assertIn("tools", wire.ask(2, "tools/list")["result"])
            self.assertIn("ttlMs", wire.ask(3, "tools/list", {"_meta": MODERN})["result"])

    def test_missing_or_ill_typed_envelope_fields_are_invalid_params(self):
        version, capabilities = META + "protocolVersion", META + "clientCapabilities"
        bad = [{version: "2026-07-28"}, {capabilities: {}}, {version: 5, capabilities: {}},
               {version: "2026-07-28", capabilities: []}, {version: None, capabilities: {}}]
        with Wire() as wire:
            for meta in bad:
                with self.subTest(meta=meta):
                    self.assertEqual(code(wire.ask(1, "tools/list", {"_meta": meta})), -32602)

    def test_unknown_version_names_the_supported_ones(self):
        with Wire() as wire:
            meta = {**MODERN, META + "protocolVersion": "1900-01-01"}
            error = wire.ask(1, "server/discover", {"_meta": meta})["error"]
            self.assertEqual(error["code"], -32022)
            self.assertEqual(error["data"], {"supported": ["2026-07-28"], "requested": "1900-01-01"})

    def test_removed_and_unknown_methods_do_not_exist(self):
        methods = ("initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe",
                   "resources/list", "prompts/list", "completion/complete", "subscriptions/listen", "no/such")
        with Wire() as wire:
            for method in methods:
                with self.subTest(method=method):
                    self.assertEqual(code(wire.ask(1, method, {"_meta": MODERN})), -32601)

    def test_every_result_says_who_answered(self):
        with Wire() as wire:
            wire.call(1, "echo", {"text": "hi"})
            result = wire.next()["result"]
            self.assertEqual(result["resultType"], "complete")
            self.assertIn(META + "serverInfo", result["_meta"])
            self.assertNotIn("ttlMs", result)


class Legacy(unittest.TestCase):
    def test_known_revisions_are_echoed_and_others_get_the_latest_legacy_one(self):
        for version in (*LEGACY, "2026-07-28", "1999-01-01"):
            with self.subTest(version=version), Wire() as wire:
                agreed = wire.initialize(version)["protocolVersion"]
                self.assertEqual(agreed, version if version in LEGACY else "2025-11-25")

    def test_results_have_no_modern_fields(self):
        with Wire() as wire:
            wire.initialize()
            result = wire.ask(1, "tools/list")["result"]
            self.assertEqual(list(result), ["tools"])
            result = wire.ask(2, "tools/call", {"name": "echo", "arguments": {"text": "hi"}})["result"]
            self.assertEqual(result, {"content": [{"type": "text", "text": "hi"}], "isError": False})

    def test_older_revisions_get_only_fields_that_they_know(self):
        unknown = {"2024-11-05": {"title", "annotations", "outputSchema", "_meta"},
                   "2025-03-26": {"title", "outputSchema", "_meta"}, "2025-06-18": set()}
        for version, fields in unknown.items():
            with self.subTest(version=version), Wire("--structured") as wire:
                self.assertEqual("title" in wire.initialize(version)["serverInfo"], version >= "2025-06-18")
                tool = wire.ask(1, "tools/list")["result"]["tools"][0]
                self.assertFalse(fields & set(tool), tool)
                result = wire.ask(2, "tools/call", {"name": "echo", "arguments": {"text": "x"}})["result"]
                self.assertEqual("structuredContent" in result, version >= "2025-06-18")

    def test_before_initialize_only_ping_is_answered(self):
        with Wire() as wire:
            self.assertEqual(wire.ask(0, "ping")["result"], {})
            for method in ("server/discover", "tools/list", "tools/call", "no/such"):
                with self.subTest(method=method):
                    self.assertEqual(code(wire.ask(1, method)), -32602)

    def test_initialize_without_a_version_is_invalid(self):
        with Wire() as wire:
            for params in (None, {}, {"protocolVersion": 5}):
                with self.subTest(params=params):
                    self.assertEqual(code(wire.ask(1, "initialize", params)), -32602)

    def test_methods_of_undeclared_capabilities_do_not_exist(self):
        with Wire() as wire:
            wire.initialize()
            for method in ("logging/setLevel", "resources/list", "prompts/get", "server/discover", "no/such"):
                with self.subTest(method=method):
                    self.assertEqual(code(wire.ask(1, method)), -32601)


class Envelope(unittest.TestCase):
    def test_ids_come_back_as_they_were(self):
        with Wire() as wire:
            for request_id in (0, -7, 2**63, "0", "", "é \"\\\u2028"):
                with self.subTest(request_id=request_id):
                    answer = wire.ask(request_id, "ping")
                    self.assertEqual((type(answer["id"]), answer["id"]), (type(request_id), request_id))

    def test_bad_ids_are_answered_with_null(self):
        with Wire() as wire:
            for request_id in (None, 1.5, 3.0, True, {}, [1]):
                with self.subTest(request_id=request_id):
                    answer = wire.ask(request_id, "ping")
                    self.assertEqual((code(answer), answer["id"]), (-32600, None))

    def test_what_is_no_request_is_invalid(self):
        lines = [b'{"jsonrpc":"2.0","id":1,"method":5}', b'{"jsonrpc":"2.0","id":1}', b'{"id":1,"method":"ping"}',
                 b'{"jsonrpc":"1.0","id":1,"method":"ping"}', b'{}', b'5', b'"x"', b'null',
                 b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', b'[]']
        with Wire() as wire:
            for line in lines:
                with self.subTest(line=line):
                    wire.raw(line + b"\n")
                    self.assertEqual(code(wire.next()), -32600)
            self.assertEqual(wire.ask(2, "ping")["result"], {})

    def test_unparsable_lines_are_parse_errors_with_id_null(self):
        lines = [b"{", b"nonsense", b'{"a":1} trailing', b'\xef\xbb\xbf{"jsonrpc":"2.0","id":1,"method":"ping"}',
                 b'{"jsonrpc":"2.0","id":1,"method":"\xff"}', b'{"jsonrpc":"2.0","id":1e999,"method":"ping"}', b"\x00",
                 b"Content-Length: 20"]
        with Wire() as wire:
            for line in lines:
                with self.subTest(line=line):
                    wire.raw(line + b"\n")
                    answer = wire.next()
                    self.assertEqual((code(answer), answer["id"]), (-32700, None))
            self.assertEqual(wire.ask(2, "ping")["result"], {})

    def test_params_that_are_no_object_are_invalid(self):
        with Wire() as wire:
            for params in ([], "x", 5, {"_meta": 5}):
                with self.subTest(params=params):
                    self.assertEqual(code(wire.ask(1, "ping", params)), -32602)

    def test_notifications_and_responses_are_never_answered(self):
        with Wire() as wire:
            wire.notify("no/such")
            wire.notify("tools/call", {"name": "echo"})
            wire.notify("notifications/cancelled")
            wire.notify("notifications/cancelled", {"requestId": 99})
            wire.notify("notifications/cancelled", [1])
            wire.send({"jsonrpc": "2.0", "id": 5, "result": {}})
            wire.send({"jsonrpc": "2.0", "id": None, "error": {"code": 1, "message": "x"}})
            self.assertEqual(wire.ask(6, "ping"), {"jsonrpc": "2.0", "id": 6, "result": {}})


class Tools(unittest.TestCase):
    def test_the_list_is_sorted_and_one_page(self):
        with Wire() as wire:
            result = wire.ask(1, "tools/list", {"_meta": MODERN})["result"]
            names = [tool["name"] for tool in result["tools"]]
            self.assertEqual(names, sorted(names))
            self.assertNotIn("nextCursor", result)
            self.assertEqual(code(wire.ask(2, "tools/list", {"_meta": MODERN, "cursor": "x"})), -32602)

    def test_an_unknown_tool_is_a_protocol_error(self):
        with Wire() as wire:
            wire.call(1, "no_such")
            answer = wire.next()
            self.assertEqual((code(answer), answer["error"]["message"]), (-32602, "Unknown tool: no_such"))
            self.assertEqual(code(wire.ask(2, "tools/call", {"_meta": MODERN})), -32602)
            self.assertEqual(code(wire.ask(3, "tools/call", {"name": 5, "_meta": MODERN})), -32602)

    def test_wrong_arguments_are_a_tool_error_that_names_all_of_them(self):
        with Wire() as wire:
            wire.call(1, "echo", {"txt": "a", "repeat": 0})
            answer = wire.next()
            self.assertTrue(answer["result"]["isError"])
            for part in ("'text' is missing", "'repeat' must be at least 1", "'txt' is not known; did you mean 'text'?",
                         "while reading the arguments of echo", "Try: the arguments are text, repeat"):
                self.assertIn(part, text(answer))

    def test_absent_and_null_arguments_are_none_and_other_types_a_tool_error(self):
        with Wire() as wire:
            wire.call(1, "noisy")
            self.assertEqual(text(wire.next()), "done")
            wire.request(2, "tools/call", {"name": "noisy", "arguments": None, "_meta": MODERN})
            self.assertEqual(text(wire.next()), "done")
            for arguments in ("x", [1], 5, True):
                with self.subTest(arguments=arguments):
                    wire.call(3, "noisy", arguments)
                    self.assertTrue(wire.next()["result"]["isError"])

    def test_failures_say_what_during_what_and_what_to_try(self):
        with Wire() as wire:
            wire.call(1, "fail")
            answer = wire.next()
            self.assertTrue(answer["result"]["isError"])
            self.assertEqual(text(answer), "there is no such thing\n  while running fail\nTry: call echo")
            wire.call(2, "fail_badly")
            self.assertIn("a library threw", text(wire.next()))

    def test_structured_results_keep_the_declared_schema(self):
        with Wire("--structured") as wire:
            tools = {t["name"]: t for t in wire.ask(1, "tools/list", {"_meta": MODERN})["result"]["tools"]}
            schema = tools["echo"]["outputSchema"]
            self.assertNotIn("required", schema)
            self.assertEqual(set(schema["properties"]), {"text", "error"})
            wire.call(2, "echo", {"text": "hi"})
            result = wire.next()["result"]
            self.assertEqual((result["structuredContent"], result["content"][0]["text"]), ({"text": "hi"}, "hi"))
            wire.call(3, "fail")
            error = wire.next()["result"]["structuredContent"]["error"]
            self.assertEqual((error["code"], error["hint"]), ("not_found", "call echo"))
            self.assertIn("while running fail", error["message"])


if __name__ == "__main__":
    unittest.main()
