"""What the filter refuses. The sandbox of this test has every capability, so a refusal is the filter's."""

import os
import platform
import unittest

import support
import sandbox

PROBE = os.path.abspath(os.environ["HUTCHTEST_PROBE"])


def results(client):
    lines = client.run([PROBE]).out.decode().splitlines()
    return dict(line.split("=", 1) for line in lines)


class Seccomp(support.SandboxTest):
    def test_every_probe(self):
        got = results(self.client)
        self.assertGreater(len(got), 60)
        missing = {"clone3", "newer_than_known", "i386_getpid", "i386_unshare", "x32_getpid", "x32_ptrace"}
        expected = {name: "0" if name.startswith("ok_") else "ENOSYS" if name in missing else "EPERM"
                    for name in got}
        # A kernel without IA32 emulation has no such entry at all.
        expected.update({name: got[name] for name in got if name.startswith("i386") and got[name] == "signal 11"})
        self.assertEqual(got, expected)
        if platform.machine() == "x86_64":
            self.assertTrue(missing <= got.keys())

    def test_threads_and_interpreters_work(self):
        script = "import threading,subprocess,socket; t=threading.Thread(target=print,args=('t',)); t.start();" \
                 "t.join(); subprocess.run(['true'],check=True); socket.socketpair()"
        self.assertEqual(self.client.run(["python3", "-c", script], env=["PATH=" + os.environ["PATH"]]).out, b"t\n")


class Without(unittest.TestCase):
    def test_probes_tell_a_filter_from_none(self):
        """The counter-check: without the filter most of the same calls answer something else."""
        box = sandbox.Sandbox(arguments=["--no-seccomp"])
        self.addCleanup(box.close)
        got = results(box.client)
        refused = [name for name, result in got.items() if result == "EPERM"]
        self.assertLess(len(refused), 12, refused)


if __name__ == "__main__":
    support.main()
