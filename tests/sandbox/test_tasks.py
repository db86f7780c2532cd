"""Long commands as tasks, with real sandboxes: nothing of a task's command is left when it is cancelled."""
import unittest

from mcp_client import META, MODERN
from sandbox_case import SLOW, HutchCase, skip_when_impossible, unpack, wait_for

EXTENSION = {"extensions": {META + "tasks": {}}}
# Ends when the test says so, with descendants that only a whole tree's end reaches.
HELD = "touch /tmp/began; (setsid sleep 3456 &) ; until [ -e /tmp/go ]; do sleep 0.05; done; echo held"


class Tasks(HutchCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        skip_when_impossible()

    def sh(self, client, command):
        return unpack(client.call_tool("sandbox_exec", {"command": command}))

    def until_begun(self, client):
        wait_for("the command runs", lambda: self.sh(client, "test -e /tmp/began").text.startswith("exit 0"))

    def descendants(self, client):
        return self.sh(client, "pgrep -fx 'sleep 3456' | wc -l").text.splitlines()[1]

    def test_a_command_that_takes_longer_than_some_seconds_becomes_a_task_that_brings_its_result(self):
        with self.server(revision=MODERN, capabilities=EXTENSION) as client:
            created = client.call_tool("sandbox_exec", {"command": HELD}, timeout=30 * SLOW, progress=True)
            self.assertEqual((created["resultType"], created["status"]), ("task", "working"))
            self.assertEqual(self.sh(client, "touch /tmp/go").text.splitlines()[0][:6], "exit 0")

            def ended():
                task = client.request("tasks/get", {"taskId": created["taskId"]})
                return task["status"] != "working" and task
            task = wait_for("the task ends", ended)
            self.assertEqual(task["status"], "completed")
            result = unpack(task["result"])
            self.assertTrue(result.text.startswith("exit 0 in "), result.text)
            self.assertIn("held", result.text)
            self.sh(client, "pkill -fx 'sleep 3456'")

    def test_cancelling_an_offered_task_ends_the_whole_tree(self):
        with self.server(revision=MODERN, capabilities=EXTENSION) as client:
            task = client.call_tool("sandbox_eval", {"code": HELD, "language": "bash"}, timeout=30 * SLOW)["taskId"]
            self.until_begun(client)
            self.assertEqual(client.request("tasks/cancel", {"taskId": task})["resultType"], "complete")
            self.assertEqual(client.request("tasks/get", {"taskId": task})["status"], "cancelled")
            wait_for("the tree is gone", lambda: self.descendants(client) == "0")

    def test_cancelling_a_requested_task_ends_the_whole_tree_and_keeps_the_output(self):
        with self.server(revision="2025-11-25") as client:
            tools = {tool["name"]: tool.get("execution") for tool in client.list_tools()}
            self.assertEqual({name for name, execution in tools.items() if execution},
                             {"sandbox_exec", "sandbox_eval"})
            params = {"name": "sandbox_exec", "arguments": {"command": "echo so far; " + HELD}, "task": {"ttl": 60000}}
            call = client.submit("tools/call", params, progress=True)
            task = call.result()["task"]["taskId"]
            self.assertEqual(call.progress.get(timeout=10 * SLOW)["_meta"], {META + "related-task": {"taskId": task}})
            self.until_begun(client)
            self.assertEqual([t["taskId"] for t in client.request("tasks/list")["tasks"]], [task])
            self.assertEqual(client.request("tasks/cancel", {"taskId": task})["status"], "cancelled")
            result = unpack(client.request("tasks/result", {"taskId": task}))
            self.assertTrue(result.text.startswith("cancelled after "), result.text)
            self.assertIn("so far", result.text)
            self.assertEqual(self.descendants(client), "0")

    def test_tasks_that_run_leave_nothing_behind_when_the_server_ends(self):
        for how in ("eof", "SIGTERM"):
            with self.subTest(how), self.server(revision="2025-11-25") as client:
                params = {"name": "sandbox_exec", "arguments": {"command": HELD}, "task": {}}
                client.request("tools/call", params)
                self.until_begun(client)
                self.assertEqual(client.close(how)[0], 0)


if __name__ == "__main__":
    unittest.main()
