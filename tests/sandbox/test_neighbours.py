"""One sandbox takes all that it can get of something; another one goes on as if it were alone."""
import subprocess
import time
import unittest

from process_case import ProcessCase, host_processes
from sandbox_case import SLOW, wait_for

TIMES, LONGEST_S = 20, 2


def python(code):
    return "python3 - <<'END_OF_CODE'\nimport os, sys, time\n" + code + "\nEND_OF_CODE"


def again(command):
    """Bites as soon as it was killed for the first time, and begins anew."""
    return f"while :; do {command}\n[ $? = 137 ] && echo biting; sleep 0.05; done"


def until_refused(code, errors="OSError"):
    """Takes more and more by `code`, and keeps it when nothing more is given."""
    return python(f"kept = []\ntry:\n    while True:\n        {code}\n"
                  f"except ({errors}): print('biting', flush=True)\ntime.sleep(1000)")


class BadNeighbour(ProcessCase):
    def setUp(self):
        self.good = self.box()
        self.bad = self.ok("sandbox_create", memory="256m")["sandbox_id"]
        self.addCleanup(self.call, "sandbox_destroy", sandbox_id=self.bad)

    def assert_goes_on_beside(self, hog, bites=r"biting"):
        number = self.start(self.bad, hog)
        self.read_until(self.bad, number, bites, timeout=60)
        took = []
        for _ in range(TIMES):
            start = time.monotonic()
            done = self.ok("sandbox_exec", sandbox_id=self.good, argv=["true"])
            took.append(time.monotonic() - start)
            self.assertEqual((done["end"], done["exit_code"]), ("exited", 0))
        self.assertLess(max(took), LONGEST_S * SLOW, took)
        self.assert_answers_or_says_why()
        self.assert_leaves_nothing()
        self.assertEqual(self.sh("echo on", sandbox_id=self.good), "on\n")

    def assert_answers_or_says_why(self):
        result = self.call("sandbox_exec", sandbox_id=self.bad, command="echo alive", timeout_s=20)
        if result.is_error or result.structured["end"] != "exited" or result.structured["exit_code"] != 0:
            self.assertRegex(result.text, "(?i)memory|process|pids|fork|space|timed out")
        else:
            self.assertEqual(result.structured["stdout"], "alive\n")

    def assert_leaves_nothing(self):
        self.ok("sandbox_destroy", sandbox_id=self.bad)
        wait_for("its processes have ended", lambda: not host_processes(self.bad))
        wait_for("its groups and files are gone", lambda: not subprocess.run(
            ["find", "/sys/fs/cgroup", self.home, "-name", self.bad], capture_output=True, text=True).stdout, 30)

    def test_that_is_a_fork_bomb(self):
        self.assert_goes_on_beside("exec 2>&1; bomb() { bomb | bomb & }; while :; do bomb; sleep 0.05; done",
                                   "temporarily unavailable")

    def test_that_is_a_bomb_of_threads(self):
        self.assert_goes_on_beside(until_refused(
            "import threading; threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()",
            "OSError, RuntimeError"))

    def test_that_is_full_of_zombies(self):
        self.assert_goes_on_beside(until_refused("os.fork() or os._exit(0)"))

    def test_that_takes_memory_by_malloc(self):
        self.assert_goes_on_beside(again("python3 -c 'x = [bytearray(1 << 20) for _ in range(4096)]'"))

    def test_that_takes_memory_by_files_in_memory(self):
        self.assert_goes_on_beside("for i in 1 2; do head -c 1G /dev/zero > /dev/shm/x; head -c 1G /dev/zero > /run/x; done\n"
                                   "echo biting; sleep 1000")

    def test_that_takes_memory_by_files_without_a_name(self):
        self.assert_goes_on_beside(again(
            "python3 -c 'import os\nf = os.memfd_create(\"x\")\nwhile True: os.write(f, bytes(1 << 20))'"))

    def test_that_takes_memory_by_page_tables(self):  # one page of table for each 2 MiB that are looked at
        self.assert_goes_on_beside(again("""python3 -c '
import mmap
kept = []
while True:
    kept.append(mmap.mmap(-1, 1 << 36, flags=mmap.MAP_PRIVATE | 0x4000, prot=mmap.PROT_READ))  # NORESERVE
    kept[-1].madvise(15)  # NOHUGEPAGE
    for at in range(0, 1 << 36, 1 << 21): kept[-1][at]
'"""))

    def test_that_takes_memory_by_pipes(self):
        self.assert_goes_on_beside(until_refused("r, w = os.pipe(); os.set_blocking(w, False); kept.append(os.write(w, bytes(65536)))"))

    def test_that_takes_file_descriptors_by_many_processes(self):
        self.assert_goes_on_beside(python("""
for _ in range(50):
    if os.fork() == 0:
        try:
            while True: os.open("/dev/null", os.O_RDONLY)
        except OSError: print("biting", flush=True)
        time.sleep(1000)
time.sleep(1000)"""))

    def test_that_fills_the_disk(self):
        self.assert_goes_on_beside("while :; do head -c 400M /dev/zero > /tmp/x; echo biting; rm /tmp/x; done")

    def test_that_makes_many_small_files(self):
        self.assert_goes_on_beside(python("""
os.makedirs("/tmp/many")
for round in range(1000):
    for i in range(20000): open(f"/tmp/many/{i}", "w").close()
    print("biting", flush=True)
    for i in range(20000): os.unlink(f"/tmp/many/{i}")"""))

    def test_that_takes_the_processors(self):
        self.assert_goes_on_beside("for i in 1 2 3 4 5 6 7 8; do (while :; do :; done) & done; echo biting; wait")

    def test_that_floods_with_output(self):
        self.assert_goes_on_beside("yes biting")


if __name__ == "__main__":
    unittest.main()
