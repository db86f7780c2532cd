"""Limits hold, are read back, and tell the model what it ran into."""
import os
import re
import time
import unittest

from sandbox_case import SLOW, SandboxCase, slow, wait_for

MIB = 1 << 20


class Limits(SandboxCase):
    def test_memory_over_the_limit_ends_as_oom_killed_and_names_the_limit(self):
        box = self.ok("sandbox_create", memory="64m")["sandbox_id"]
        result = self.call("sandbox_exec", sandbox_id=box,
                           command="python3 -c 'x = bytearray(300 << 20); print(len(x))'")
        self.assertFalse(result.is_error, result.text)
        self.assertEqual(result.structured["end"], "oom_killed")
        self.assertRegex(result.text, r"(?i)64\s?mi?b?|67108864")
        self.assertEqual(self.sh("echo goes on", sandbox_id=box), "goes on\n")

    def test_swap_is_no_way_around_the_memory_limit(self):
        box = self.ok("sandbox_create", memory="64m")["sandbox_id"]
        done = self.ok("sandbox_exec", sandbox_id=box,
                       command="python3 -c 'x = [bytearray(1 << 20) for _ in range(200)]'")
        self.assertNotEqual(done.get("exit_code"), 0)

    def test_shm_and_run_count_as_memory_and_are_bounded(self):
        box = self.ok("sandbox_create", memory="512m")["sandbox_id"]
        for place in ("/dev/shm", "/run"):
            done = self.ok("sandbox_exec", sandbox_id=box, command=f"head -c 2G /dev/zero > {place}/x; rm -f {place}/x")
            self.assertIn(done["end"], ("exited", "oom_killed"), place)
            self.assertNotEqual(done.get("stderr", "") + done["end"], "exited", f"{place} took 2 GB")

    def test_pids_limit_stops_a_fork_bomb_and_the_sandbox_goes_on(self):
        box = self.ok("sandbox_create", pids=40)["sandbox_id"]
        made = int(self.python("""
import os, signal, time
children = []
try:
    while len(children) < 100:
        pid = os.fork()
        if pid == 0: time.sleep(1000); os._exit(0)
        children.append(pid)
except BlockingIOError: pass
print(len(children))
for pid in children: os.kill(pid, signal.SIGKILL)
for pid in children: os.wait()""", sandbox_id=box))
        self.assertTrue(20 < made < 40, made)
        self.assertEqual(self.sh("echo on", sandbox_id=box), "on\n")

    def test_a_sandbox_full_of_processes_says_so_and_can_be_destroyed(self):
        box = self.ok("sandbox_create", pids=30)["sandbox_id"]
        self.python("import subprocess\ntry:\n  while True: subprocess.Popen(['sleep', '1000'])\nexcept BlockingIOError: pass",
                    sandbox_id=box)
        # Its supervisor needs a process too: fill up to the last one.
        while not (result := self.call("sandbox_exec", sandbox_id=box, argv=["sh", "-c", "sleep 1000 >/dev/null 2>&1 &"])).is_error \
                and result.structured["exit_code"] == 0:
            pass
        if not result.is_error:
            result = self.call("sandbox_exec", sandbox_id=box, argv=["sh", "-c", "true; true | true"])
        self.assertRegex(result.text, r"(?i)\bpids\b|processes", "what is full, and what to do")
        self.ok("sandbox_destroy", sandbox_id=box)

    def test_limits_are_in_force_as_info_tells(self):
        made = self.ok("sandbox_create", memory="300m", cpus=0.5, pids=77)
        info = self.ok("sandbox_info", sandbox_id=made["sandbox_id"])
        shown = str(info["limits"])
        self.assertRegex(shown, f"300m|{300 * MIB}")
        self.assertIn("0.5", shown)
        self.assertIn("77", shown)

    def test_the_kernel_has_the_limits_that_info_tells(self):
        box = self.ok("sandbox_create", memory="300m", cpus=0.5, pids=77)["sandbox_id"]
        found = {}
        for base, _, files in os.walk("/sys/fs/cgroup"):
            if box in base:
                for name in ("memory.max", "memory.limit_in_bytes", "pids.max", "cpu.max", "cpu.cfs_quota_us"):
                    if name in files:
                        found.setdefault(name, set()).add(open(os.path.join(base, name)).read().split()[0])
        values = set().union(*found.values()) if found else set()
        self.assertIn(str(300 * MIB), values, found)
        self.assertIn("77", values, found)
        self.assertTrue({"50000"} & values, found)  # half of the usual 100 ms period

    def test_half_a_cpu_is_half_a_cpu(self):
        box = self.ok("sandbox_create", cpus=0.5)["sandbox_id"]
        used = float(self.python("import time\nbefore, end = time.process_time(), time.monotonic() + 2\n"
                                 "while time.monotonic() < end: pass\nprint(time.process_time() - before)", sandbox_id=box))
        self.assertLess(used, 1.4)

    def test_open_files_are_bounded(self):
        self.assertLessEqual(int(self.sh("ulimit -n")), 65536)
        self.assertLessEqual(int(self.sh("ulimit -Hn")), 65536)

    def test_core_dumps_are_off(self):
        self.assertEqual(self.sh("ulimit -c").strip(), "0")


class Time(SandboxCase):
    def test_a_timeout_keeps_the_output_and_kills_the_whole_tree(self):
        box = self.ok("sandbox_create")["sandbox_id"]
        start = time.monotonic()
        done = self.ok("sandbox_exec", sandbox_id=box, timeout_s=1, command="""
            echo before
            (setsid sleep 1001 &) ; nohup sleep 1002 >/dev/null 2>&1 &
            sh -c 'trap "" TERM INT HUP; sleep 1003; sleep 1003' &
            python3 -c 'import os
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execvp("sleep", ["sleep", "1004"])' &
            sleep 1005 & kill -STOP $!
            sleep 1006""")
        self.assertLess(time.monotonic() - start, 4 * SLOW)
        self.assertEqual((done["end"], done["stdout"]), ("timed_out", "before\n"))
        left = self.ok("sandbox_exec", sandbox_id=box, command="pgrep -a sleep")
        self.assertEqual(left["stdout"], "")

    def test_a_timeout_leaves_the_rest_of_the_sandbox_alone(self):
        box = self.ok("sandbox_create")["sandbox_id"]
        self.sh("(setsid sleep 1007 >/dev/null 2>&1 &); echo x > kept", sandbox_id=box)
        self.assertEqual(self.ok("sandbox_exec", sandbox_id=box, timeout_s=0.5, command="sleep 100")["end"], "timed_out")
        self.assertEqual(self.sh("cat kept; pgrep -c sleep", sandbox_id=box), "x\n1\n")

    def test_a_command_that_closes_its_output_is_still_waited_for(self):
        done = self.ok("sandbox_exec", command="exec >&- 2>&-; sleep 0.3; exit 5")
        self.assertEqual(done["exit_code"], 5)

    def test_what_a_command_leaves_in_the_background_does_not_hold_the_call(self):
        start = time.monotonic()
        done = self.ok("sandbox_exec", command="sleep 1008 & echo started")
        self.assertLess(time.monotonic() - start, 10 * SLOW)
        self.assertEqual((done["end"], done["stdout"]), ("exited", "started\n"))

    def test_a_thousand_orphans_are_reaped(self):
        box = self.ok("sandbox_create", pids=200)["sandbox_id"]
        self.python("import os\nfor i in range(1000):\n  if os.fork() == 0:\n    if os.fork() == 0: os._exit(0)\n"
                    "    os._exit(0)\n  os.wait()", sandbox_id=box)
        wait_for("no zombie is left", lambda: self.sh(
            "grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l", sandbox_id=box) == "0\n")


class Floods(SandboxCase):
    @staticmethod
    def rss(pid):
        return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{pid}/status").read())[1]) * 1024

    @slow
    def test_a_flood_of_output_leaves_the_server_small_and_answering(self):
        box = self.ok("sandbox_create")["sandbox_id"]
        flood = self.client.submit_tool("sandbox_exec", {"sandbox_id": box, "timeout_s": 5,
                                                         "command": "yes | head -c 20G; yes >&2"})
        worst, peak = 0.0, 0
        while not flood.done:
            start = time.monotonic()
            self.client.ping()
            self.ok("sandbox_exec", command="true")
            worst = max(worst, time.monotonic() - start)
            peak = max(peak, self.rss(self.client.pid))
        self.assertFalse(flood.result().get("isError"))
        self.assertLess(worst, 1.5 * SLOW)
        self.assertLess(peak, (200 if SLOW == 1 else 1500) * MIB)


if __name__ == "__main__":
    unittest.main()
