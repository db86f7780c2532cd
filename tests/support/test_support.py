"""The tools of the tests themselves: a leak check that finds nothing must be one that could have found something."""
import os
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(__file__))
import leaks  # noqa: E402
from mcp_client import MODERN, Client, Closed, Timeout  # noqa: E402

ECHO = """
import json, sys
for line in sys.stdin:
    m = json.loads(line)
    if m.get("method") == "late": continue
    if m.get("method") == "die": sys.exit(3)
    if "id" in m:
        print(json.dumps({"jsonrpc": "2.0", "method": "notifications/progress",
                          "params": {"progressToken": f"p{m['id']}", "progress": 1}}), flush=True)
        print(json.dumps({"jsonrpc": "2.0", "id": m["id"], "result": m.get("params") or {}}), flush=True)
"""


class LeakCheck(unittest.TestCase):
    def find(self, home=None):
        with self.assertRaises(leaks.Leak) as caught:
            leaks.wait_clean(self.before, home, 0.1)
        return str(caught.exception)

    def setUp(self):
        self.home = tempfile.mkdtemp()
        self.before = leaks.snapshot(self.home)

    def tearDown(self):
        subprocess.run(["rm", "-rf", self.home], check=True)

    def test_finds_a_process_that_hides_behind_a_double_fork(self):
        # Under the reaper any process counts, without it only one with a telling name.
        sleeper = os.path.join(self.home, "hutch-sleeper")
        os.symlink("/bin/sleep", sleeper)
        out = subprocess.run(["sh", "-c", f"(setsid {sleeper} 100 >/dev/null 2>&1 & echo $!)"], capture_output=True, text=True)
        self.assertIn("hutch-sleeper", self.find())
        os.kill(int(out.stdout), 9)
        leaks.wait_clean(self.before, self.home)

    def test_finds_the_folder_of_a_server(self):
        os.makedirs(os.path.join(self.home, "servers", "one"))
        self.assertIn("servers/one", self.find(self.home))

    @unittest.skipUnless(os.geteuid() == 0, "mounting needs root")
    def test_finds_a_mount(self):
        subprocess.run(["mount", "-t", "tmpfs", "x", self.home], check=True)
        try:
            self.assertIn(self.home, self.find())
        finally:
            subprocess.run(["umount", self.home], check=True)

    @unittest.skipUnless(os.access("/sys/fs/cgroup/pids", os.W_OK) and os.geteuid() == 0, "no cgroup v1 to write")
    def test_finds_a_cgroup(self):
        path = f"/sys/fs/cgroup/pids/hutch-leak-test-{os.getpid()}"
        os.mkdir(path)
        try:
            self.assertIn(path, self.find())
        finally:
            os.rmdir(path)

    def test_the_command_form_fails_when_a_process_is_left(self):
        script = os.path.join(os.path.dirname(__file__), "leaks.py")
        env = {**os.environ, "HUTCHTEST_LEAK_DEADLINE_S": "0.1"}
        clean = subprocess.run([sys.executable, script, "--", "sh", "-c", "exit 3"], capture_output=True, env=env)
        self.assertEqual(clean.returncode, 3)
        leaky = subprocess.run([sys.executable, script, "--", "sh", "-c", "setsid sleep 100 & exit 0"], capture_output=True,
                               text=True, env=env)
        self.assertEqual(leaky.returncode, 99)
        self.assertIn("sleep", leaky.stderr)


class ClientOfTheTests(unittest.TestCase):
    def test_speaks_both_eras_and_keeps_progress_with_its_call(self):
        for revision in ("2025-11-25", MODERN):
            with Client([sys.executable, "-c", ECHO], revision=revision) as client:
                call = client.submit("x", {"a": 1}, progress=True)
                self.assertEqual(call.result(10)["a"], 1)
                self.assertEqual(call.progress.get(timeout=5)["progress"], 1)
                self.assertEqual("io.modelcontextprotocol/protocolVersion" in call.result()["_meta"], revision == MODERN)

    def test_a_silent_or_dead_server_is_an_exception_not_a_hang(self):
        client = Client([sys.executable, "-c", ECHO])
        with self.assertRaises(Timeout):
            client.request("late", timeout=0.1)
        with self.assertRaises(Closed):
            client.request("die", timeout=10)
        self.assertEqual(client.close()[0], 3)

    def test_a_server_that_takes_requests_and_can_answer_none_any_more_is_an_exception_too(self):
        # As one that was just killed: its standard output is closed a moment before its standard input.
        deaf = "import os, sys; os.close(1); sys.stdin.read(); os._exit(0)"
        client = Client([sys.executable, "-c", deaf], handshake=False)
        client._reader.join(10)
        with self.assertRaises(Closed):
            client.request("x", timeout=10)
        self.assertEqual(client.close()[0], 0)


if __name__ == "__main__":
    unittest.main()
