"""What the tests of the agent share."""

import os
import sys
import tempfile
import time
import unittest

import sandbox

SKIP = 77  # Meson's exit status for a skipped test


class SandboxTest(unittest.TestCase):
    """One sandbox a test; afterwards nothing of it may be left inside."""

    def setUp(self):
        self.use(sandbox.Sandbox())

    def use(self, box):
        self.sandbox = box
        self.client = box.client
        folder = tempfile.TemporaryDirectory(prefix="agent-files-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.addCleanup(self.sandbox.close)
        self.addCleanup(self.check_nothing_left)

    def check_nothing_left(self):
        if self.sandbox.process.poll() is not None:
            return
        # Supervisors end right after their last message; there is no event to wait for from outside.
        end = time.monotonic() + 5
        while (left := self.sandbox.processes()) and time.monotonic() < end:
            time.sleep(0.002)
        self.assertEqual(left, [])


class PidsLimit(SandboxTest):
    """A sandbox with at most PIDS processes, `unshare` and PID 1 among them."""

    GROUPS = "/sys/fs/cgroup/pids"

    def setUp(self):
        if not os.access(self.GROUPS, os.W_OK):
            self.skipTest("no pids cgroup of version 1")
        group = tempfile.mkdtemp(prefix="agent-test-", dir=self.GROUPS)
        self.addCleanup(os.rmdir, group)
        with open(group + "/pids.max", "w") as file:
            file.write(str(self.PIDS))
        self.sandbox = sandbox.Sandbox(before=f"echo $$ > {group}/cgroup.procs 2>/dev/null || exit 9;")
        self.client = self.sandbox.client
        self.addCleanup(self.sandbox.close)
        self.addCleanup(self.check_nothing_left)


def main():
    if not sandbox.possible():
        print("cannot make a pid namespace here", file=sys.stderr)
        sys.exit(SKIP)
    unittest.main()
