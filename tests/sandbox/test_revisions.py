"""Every tool in every protocol revision and both result modes, and what lists promise about themselves."""
import json
import unittest

from mcp_client import MODERN, REVISIONS
from sandbox_case import HutchCase, skip_when_impossible, unpack

CALLS = (
    ("sandbox_list_profiles", {}), ("sandbox_create", {"name": "rev"}), ("sandbox_list", {}),
    ("sandbox_write_file", {"path": "f", "content": "one\n"}),
    ("sandbox_edit_file", {"path": "f", "edits": [{"old_str": "one", "new_str": "two"}]}),
    ("sandbox_read_file", {"path": "f"}), ("sandbox_list_files", {}), ("sandbox_exec", {"command": "cat f"}),
    ("sandbox_eval", {"code": "1 + 1", "language": "python"}), ("sandbox_process", {"action": "list"}), ("sandbox_info", {"sandbox_id": "rev"}),
    ("sandbox_read_file", {"path": "missing"}), ("sandbox_exec", {"sandbox_id": "nope", "command": "true"}),
    ("sandbox_exec", {}), ("sandbox_exec", {"command": "exit 3"}), ("sandbox_exec", {"command": "sleep 9", "timeout_s": 0.2}),
    ("sandbox_update", {"sandbox_id": "rev", "ttl_s": 900, "labels": {"a": "b"}}),
    ("sandbox_port_url", {"sandbox_id": "rev", "port": 8000}), ("sandbox_list_ports", {"sandbox_id": "rev"}),
    ("sandbox_exec", {"sandbox_id": "rev", "command": "python3 -m http.server 8000", "background": True}),
    ("sandbox_expose_port", {"sandbox_id": "rev", "port": 8000}), ("sandbox_close_port", {"sandbox_id": "rev", "port": 8000}),
    ("sandbox_create_template", {"sandbox_id": "rev", "name": "rev"}), ("sandbox_list_templates", {}),
    ("sandbox_fork", {"sandbox_id": "rev", "name": "rev-fork"}), ("sandbox_destroy", {"sandbox_id": "rev-fork"}),
    ("sandbox_delete_template", {"name": "rev"}),
    ("sandbox_destroy", {"sandbox_id": "rev"}),
)
FAILING = {11, 12, 13}  # indexes of CALLS that must be isError


def wire_size(value):
    return len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode())


class EveryRevision(HutchCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        skip_when_impossible()

    def go_through(self, revision, results):
        with self.server("--results", results, revision=revision) as client:
            tools = client.list_tools()
            self.assertEqual([], sorted({t["name"] for t in tools} - {c[0] for c in CALLS}), "CALLS has every tool")
            for index, (tool, arguments) in enumerate(CALLS):
                raw = client.call_tool(tool, arguments)
                result = unpack(raw)
                self.assertEqual(result.is_error, index in FAILING, (tool, arguments, result.text))
                self.assertTrue(result.text, f"{tool} without text")
                # structuredContent came with 2025-06-18; before that, the text is all there is.
                structured = results == "structured" and revision >= "2025-06-18"
                self.assertEqual(result.structured is not None, structured, (tool, arguments))
                if structured and result.is_error:
                    self.assertLessEqual({"code", "message"}, result.structured["error"].keys(), tool)
                self.assertEqual(raw.get("resultType"), "complete" if revision == MODERN else None)


def add(revision, results):
    def test(self):
        self.go_through(revision, results)
    setattr(EveryRevision, f"test_all_tools_work_in_revision_{revision}_with_results_{results}", test)


for r in REVISIONS:
    for mode in ("text", "structured"):
        add(r, mode)


class Descriptions(HutchCase):
    """What hosts and models read about the tools."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        with cls.server() as client:
            cls.info, cls.tools = client.server_info, client.list_tools()

    def test_names_are_sorted_short_and_plain(self):
        names = [t["name"] for t in self.tools]
        self.assertEqual(names, sorted(names))
        for name in names:
            self.assertRegex(name, "^sandbox_[a-z_]{1,32}$")

    def test_every_tool_has_title_description_and_all_four_annotations(self):
        for tool in self.tools:
            with self.subTest(tool["name"]):
                self.assertTrue(tool["title"])
                self.assertTrue(40 < len(tool["description"]) <= 1000, len(tool["description"]))
                self.assertLessEqual({"readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"},
                                     tool["annotations"].keys())

    def test_reading_tools_say_that_they_only_read(self):
        reading = {t["name"] for t in self.tools if t["annotations"]["readOnlyHint"]}
        self.assertEqual(reading, {"sandbox_list", "sandbox_list_templates", "sandbox_list_ports", "sandbox_info", "sandbox_read_file", "sandbox_list_files",
                                   "sandbox_list_profiles"})

    def test_schemas_are_plain_and_refuse_unknown_arguments(self):
        def walk(value, where):
            if isinstance(value, dict):
                bad = {"oneOf", "anyOf", "allOf", "$ref", "not"} & value.keys()
                self.assertFalse(bad, where)
                self.assertNotIsInstance(value.get("type"), list, where)
                for key, child in value.items():
                    walk(child, f"{where}.{key}")
        for tool in self.tools:
            schema = tool["inputSchema"]
            self.assertEqual((schema["type"], schema["additionalProperties"]), ("object", False), tool["name"])
            walk({k: v for k, v in schema.items() if k != "properties"}, tool["name"])
            for name, argument in schema.get("properties", {}).items():
                walk(argument, f"{tool['name']}.{name}")
                self.assertTrue(argument.get("description"), f"{tool['name']}.{name}")

    def test_the_two_tools_that_must_be_loaded_always_say_so(self):
        loaded = {t["name"] for t in self.tools if t.get("_meta", {}).get("anthropic/alwaysLoad")}
        self.assertEqual(loaded, {"sandbox_exec", "sandbox_create"})

    def test_the_list_and_the_instructions_stay_small(self):
        self.assertLess(wire_size(self.tools), 30_000)
        self.assertTrue(0 < len(self.info["instructions"]) < 1500)

    def test_the_lean_toolset_is_the_nine_and_smaller(self):
        with self.server("--toolsets", "lean") as client:
            lean = client.list_tools()
        wanted = {"sandbox_" + n for n in ("create", "destroy", "exec", "eval", "process", "read_file", "write_file",
                                           "edit_file", "list_files")}
        self.assertEqual({t["name"] for t in lean}, wanted & {t["name"] for t in self.tools})
        self.assertLess(wire_size(lean), 12_000)


if __name__ == "__main__":
    unittest.main()
