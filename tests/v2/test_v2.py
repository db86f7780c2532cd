"""hutch on a host with cgroup v2 only: what it makes there, what the kernel has then, and what it leaves."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../support"))
from sandbox_case import HutchCase, SandboxCase, doctor  # noqa: E402


class Doctor(HutchCase):
    def test_doctor_finds_version_two_and_limits_that_work(self):
        status, text = doctor()
        print(text, flush=True)
        self.assertEqual(status, 0, text)
        self.assertIn("cgroup v2: memory, cpus and pids can be limited", text)
        self.assertNotIn("MISS limits", text)

    def test_one_command(self):
        done = self.hutch("run", "--", "true")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
