"""Every file in examples/ is run or loaded here."""
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import unittest

from mcp_client import Client
from sandbox_case import HUTCH, ROOT, SLOW, HutchCase, skip_when_impossible, slow

EXAMPLES = ROOT / "examples"


class Examples(HutchCase):
    def test_every_example_is_known_here(self):
        known = {"quickstart.sh", "quickstart.mjs", "package.json", "package-lock.json", ".npmrc", "hutch.yaml", "agent.py",
                 "clients/claude-code.mcp.json", "clients/cursor.mcp.json", "clients/vscode.mcp.json",
                 "clients/codex.config.toml", "clients/gemini.settings.json"}
        found = {str(p.relative_to(EXAMPLES)) for p in EXAMPLES.rglob("*")
                 if p.is_file() and not {"node_modules", "__pycache__"} & set(p.parts)}
        self.assertEqual(found, known)

    def test_the_example_configuration_loads_and_names_every_field(self):
        done = self.hutch("config", "--config", EXAMPLES / "hutch.yaml")
        self.assertEqual(done.returncode, 0, done.stderr)
        text = (EXAMPLES / "hutch.yaml").read_text()
        header = (ROOT / "src/config/config.h").read_text()
        for field in re.findall(r'v\.optional\("(\w+)"', header):
            self.assertRegex(text, rf"\b{field}:", f"{field} is not in examples/hutch.yaml")

    def test_the_example_configuration_states_the_defaults(self):
        plain = self.hutch("config").stdout
        with_file = self.hutch("config", "--config", EXAMPLES / "hutch.yaml").stdout
        for field in ("memory", "pids", "idle_timeout_s", "output_limit", "message_max", "logs_max", "worker_threads"):
            value = re.compile(rf"^\s*(?:\S+\.)?{field}\s*[:=]?\s+(\S+)", re.M)
            self.assertTrue(value.search(plain), f"{field} is not in `hutch config`")
            self.assertEqual(value.search(plain)[1], value.search(with_file)[1], field)

    def check_start(self, command, args, more=None):
        self.assertEqual(command, "hutch")
        with Client([HUTCH, *args], env=self.env(**(more or {}))) as client:
            self.assertEqual(client.server_info["serverInfo"]["name"], "hutch")

    def test_client_configurations_start_the_server(self):
        for name, key in (("claude-code.mcp.json", "mcpServers"), ("cursor.mcp.json", "mcpServers"),
                          ("vscode.mcp.json", "servers"), ("gemini.settings.json", "mcpServers")):
            with self.subTest(name):
                entry = json.loads((EXAMPLES / "clients" / name).read_text())[key]["hutch"]
                self.check_start(entry["command"], entry["args"], entry.get("env"))
        codex = tomllib.loads((EXAMPLES / "clients/codex.config.toml").read_text())["mcp_servers"]["hutch"]
        self.check_start(codex["command"], codex["args"])


class Programs(HutchCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        skip_when_impossible()

    def test_the_agent_mends_its_program(self):
        done = subprocess.run([sys.executable, EXAMPLES / "agent.py", HUTCH], capture_output=True, text=True, env=self.env(),
                              timeout=60 * SLOW, stdin=subprocess.DEVNULL)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("ZeroDivisionError", done.stdout)
        self.assertTrue(done.stdout.endswith("done\n"), done.stdout)

    @slow
    def test_the_quick_start_does_the_main_job(self):
        if not shutil.which("npm") or not shutil.which("node"):
            self.skipTest("npm is not installed")
        if not (EXAMPLES / "node_modules/.done").exists():
            subprocess.run(["npm", "ci"], cwd=EXAMPLES, check=True, capture_output=True)
            (EXAMPLES / "node_modules/.done").touch()
        # HOME is the user's own: the quick start plants its secret there.
        home = os.path.join(self.home, "user")
        os.mkdir(home)
        # The script is for the plain build; other builds run the part of it that talks to them.
        plain = HUTCH == str(ROOT / "build/src/hutch")
        command = [EXAMPLES / "quickstart.sh"] if plain else ["node", EXAMPLES / "quickstart.mjs", HUTCH]
        done = subprocess.run(command, capture_output=True, text=True,
                              env=self.env(HOME=home), timeout=120 * SLOW, stdin=subprocess.DEVNULL)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        for words in ("[2, 3, 5, 7, 11, 13, 17, 19]", "[2, 3, 5, 7, 11]", "loopback only",
                      f"claude mcp add hutch -- {HUTCH} mcp", ".cursor/mcp.json", ".vscode/mcp.json"):
            self.assertIn(words, done.stdout)
        self.assertEqual(os.listdir(home), [], "the planted secret is gone")


if __name__ == "__main__":
    unittest.main()
