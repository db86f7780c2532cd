"""gVisor (runsc) in place of the host's kernel: the same sandbox, as far as its age lets it."""
import glob
import json
import os
import shutil
import signal
import subprocess
import unittest

import leaks
from sandbox_case import HUTCH, SLOW, HutchCase, SandboxCase, call, skip_when_impossible, wait_for

RUNSC = {"HUTCH_OCI__RUNTIME": "runsc", "HUTCH_POOL__MAX": 0}


def skip_without_runsc():
    if not shutil.which("runsc"):
        raise unittest.SkipTest("runsc (gVisor) is not installed: apt-get install runsc")
    if os.geteuid() != 0:
        raise unittest.SkipTest("runsc needs root")


class Runsc(SandboxCase):
    server_settings = RUNSC

    @classmethod
    def setUpClass(cls):
        skip_without_runsc()
        super().setUpClass()

    def test_commands_run_under_gvisors_kernel(self):
        self.assertEqual(self.sh("cut -d' ' -f3 /proc/version"), "4.4.0\n")  # what it says whatever the host has
        done = self.ok("sandbox_exec", command="echo out; echo err >&2; exit 7", stdin="")
        self.assertEqual((done["exit_code"], done["stdout"], done["stderr"]), (7, "out\n", "err\n"))
        self.assertEqual(self.sh("cat", stdin="typed"), "typed")

    def test_files_are_written_read_edited_and_listed(self):
        self.ok("sandbox_write_file", path="deep/a.txt", content="one\ntwo\n")
        self.sh("test $(cat deep/a.txt | wc -l) = 2; mkdir deep/made; ln -s a.txt deep/link")
        self.ok("sandbox_edit_file", path="deep/link", edits=[{"old_str": "two", "new_str": "three"}])
        self.assertEqual(self.sh("cat deep/a.txt"), "one\nthree\n")
        self.assertIn("three", self.ok("sandbox_read_file", path="deep/a.txt")["content"])
        entries = {e["path"]: e["type"] for e in self.ok("sandbox_list_files", path="deep")["entries"]}
        self.assertEqual(set(entries), {"a.txt", "link", "made"})

    def test_what_lies_in_tmp_is_on_the_writable_layer_too(self):
        self.sh("echo kept >/tmp/x; mkdir -m 700 /var/tmp/y")
        self.assertIn("kept", self.ok("sandbox_read_file", path="/tmp/x")["content"])
        before = self.ok("sandbox_info")["disk_bytes"]
        self.sh("head -c 20000000 /dev/zero >/tmp/big")
        wait_for("its size", lambda: self.ok("sandbox_info")["disk_bytes"] >= before + 20_000_000)
        self.sh("rm /tmp/big")

    def test_sessions_keep_their_state(self):
        self.assertEqual(self.ok("sandbox_eval", code="x = 20", language="python", session="s")["exit_code"], 0)
        self.assertEqual(self.ok("sandbox_eval", code="x + 1", language="python", session="s")["value"], "21")

    def test_background_processes_and_terminals(self):
        number = self.ok("sandbox_exec", command="read x; echo got $x; exit 5", background=True)["process_id"]
        self.ok("sandbox_process", action="write", process_id=number, input="it\n")
        done = self.ok("sandbox_process", action="wait", process_id=number, wait_s=20 * SLOW)["processes"][0]
        self.assertEqual((done["state"], done["exit_code"]), ("ended", 5))
        self.assertEqual(self.ok("sandbox_process", action="read", process_id=number, cursor=0)["output"], "got it\n")
        self.assertIn("/dev/pts/", self.ok("sandbox_exec", command="tty", tty=True)["stdout"])

    def test_a_whole_tree_ends_at_its_deadline(self):
        done = self.ok("sandbox_exec", command="setsid sh -c 'trap \"\" TERM; while :; do sleep 1; done' & exec sleep 1000",
                       timeout_s=1)
        self.assertEqual(done["end"], "timed_out")
        # What has ended may be in the list until its new parent has heard of it.
        wait_for("nothing of it runs", lambda: self.sh("grep -l sleep /proc/[0-9]*/comm | xargs -r cat; echo on") == "on\n")

    def test_the_agent_cannot_be_ended_stopped_or_traced(self):
        done = self.ok("sandbox_exec", command="kill -9 1; kill -STOP 1; head -c1 /proc/1/mem; echo on")
        self.assertEqual(done["stdout"], "on\n")
        box = self.ok("sandbox_create")["sandbox_id"]
        self.ok("sandbox_exec", sandbox_id=box, command="kill -9 -1")  # its supervisor, too
        self.assertEqual(self.sh("echo on", sandbox_id=box), "on\n")
        self.ok("sandbox_destroy", sandbox_id=box)
        self.assertEqual(self.python("import ctypes; print(ctypes.CDLL(None).ptrace(16, 1, 0, 0))"), "-1\n")
        self.assertEqual(self.sh("echo on"), "on\n")

    def test_the_isolation_says_what_holds_and_what_does_not(self):
        isolation = {i["name"]: i for i in self.ok("sandbox_info")["isolation"]}
        self.assertIn("gVisor", isolation["system_calls"]["detail"])
        self.assertIn("whole sandbox ends", isolation["kernel"]["detail"])
        self.assertFalse(isolation["agent"]["enforced"])
        for name in ("memory", "swap", "cpus", "pids", "disk", "network", "users"):
            self.assertTrue(isolation[name]["enforced"], isolation[name])

    def test_there_is_no_network(self):
        self.assertEqual(self.python("import socket; print([n for _, n in socket.if_nameindex()])"), "['lo']\n")

    def test_limits_of_memory_disk_and_shm_hold(self):
        box = self.ok("sandbox_create", memory="200m", disk="64m")["sandbox_id"]
        for path in ("/workspace/x", "/tmp/x", "/dev/shm/x"):
            done = self.ok("sandbox_exec", sandbox_id=box, command=f"head -c 100000000 /dev/zero >{path}; rm {path}; exit 3")
            self.assertIn("No space left", done["stderr"], path)
        text = self.refused("sandbox_exec", sandbox_id=box, argv=["python3", "-c", "x = bytearray(300 << 20)"])
        self.assertIn("memory limit of 200m", text)
        self.assertIn("memory limit of 200m", self.ok("sandbox_info", sandbox_id=box)["cause"])

    def test_the_limit_of_processes_is_the_cause_of_the_end_that_it_brings(self):
        box = self.ok("sandbox_create", pids=150)["sandbox_id"]
        self.refused("sandbox_exec", sandbox_id=box, command="for i in $(seq 300); do sleep 5 & done; wait")
        self.assertIn("limit of 150 processes", self.ok("sandbox_info", sandbox_id=box)["cause"])

    def test_open_files_are_limited_inside(self):
        limit = self.ok("sandbox_info")["limits"]["open_files"]
        self.assertEqual(self.sh("ulimit -n; ulimit -Hn; ulimit -c"), f"{limit}\n{limit}\n0\n")

    def test_owners_are_those_of_the_sandbox(self):
        self.assertEqual(self.python("import os; open('f', 'w'); os.chown('f', 1000, 7); s = os.stat('f'); "
                                     "print(s.st_uid, s.st_gid, os.stat('/usr').st_uid)"), "1000 7 0\n")

    def test_a_paused_one_goes_on(self):
        box = self.ok("sandbox_create")["sandbox_id"]
        self.ok("sandbox_update", sandbox_id=box, paused=True)
        self.assertIn("paused", self.refused("sandbox_exec", sandbox_id=box, command="true"))
        self.ok("sandbox_update", sandbox_id=box, paused=False)
        self.assertEqual(self.sh("echo on", sandbox_id=box), "on\n")
        self.ok("sandbox_destroy", sandbox_id=box)

    def test_a_destroyed_one_leaves_nothing(self):
        box = self.ok("sandbox_create")["sandbox_id"]
        self.ok("sandbox_exec", sandbox_id=box, command="sleep 1000", background=True)
        record, = glob.glob(f"{self.home}/servers/*/sandboxes/{box}/record")
        with open(record) as file:
            groups = json.loads(file.read().splitlines()[-1])["cgroups"].values()
        self.ok("sandbox_destroy", sandbox_id=box)
        self.assertEqual([g for g in groups if os.path.exists(g)], [])
        self.assertFalse(os.path.exists(os.path.dirname(record)))

    def test_doctor_lists_it(self):
        self.assertRegex(self.hutch("doctor").stdout, r"ok\s+runtime runsc\s+/")


class AsAUser(SandboxCase):
    server_settings = {**RUNSC, "HUTCH_PROFILES__DEFAULT__USER": "user"}

    @classmethod
    def setUpClass(cls):
        skip_without_runsc()
        super().setUpClass()

    def test_commands_are_the_users_and_cannot_reach_the_agents_channel(self):
        self.ok("sandbox_write_file", path="new", content="")
        self.assertEqual(self.python("import os; print(os.getuid(), os.stat('new').st_uid, os.stat('.').st_uid)"), "1000 1000 1000\n")
        done = self.ok("sandbox_exec", command="cat </dev/null >/proc/1/fd/1; kill -9 $PPID; echo on")
        self.assertEqual(done["stdout"], "on\n")
        self.assertIn("denied", done["stderr"])


class Chosen(SandboxCase):
    """`runtime` of sandbox_create."""
    server_settings = {"HUTCH_POOL__MAX": 2, "HUTCH_POOL__MIN": 1, "HUTCH_PROFILES__GUARDED__RUNTIME": "runsc"}

    @classmethod
    def setUpClass(cls):
        skip_without_runsc()
        super().setUpClass()

    def test_one_that_is_asked_for_is_taken_and_no_warm_one_of_another(self):
        wait_for("a warm one", lambda: self.ok("sandbox_list") and
                 any(p["warm"]["ready"] for p in self.ok("sandbox_list_profiles")["profiles"]))
        box = self.ok("sandbox_create", runtime="runsc")
        self.assertEqual((box["runtime"], box["warm"]), ("runsc", False))
        self.assertEqual(self.sh("cut -d' ' -f3 /proc/version", sandbox_id=box["sandbox_id"]), "4.4.0\n")
        self.ok("sandbox_destroy", sandbox_id=box["sandbox_id"])
        box = self.ok("sandbox_create", runtime="auto")
        self.assertIn(box["runtime"], ("crun", "runc"))
        self.ok("sandbox_destroy", sandbox_id=box["sandbox_id"])

    def test_callers_name_no_program_of_their_own_and_nothing_weaker_than_the_profile(self):
        for name in ("/bin/sh", "../runsc", "kata"):
            self.assertIn("there is no runtime", self.refused("sandbox_create", runtime=name))
        self.assertIn("the profile's runtime is 'runsc'", self.refused("sandbox_create", profile="guarded", runtime="crun"))
        box = self.ok("sandbox_create", profile="guarded")
        self.assertEqual(box["runtime"], "runsc")
        self.ok("sandbox_destroy", sandbox_id=box["sandbox_id"])


class AfterAKill(HutchCase):
    @classmethod
    def setUpClass(cls):
        skip_without_runsc()
        super().setUpClass()
        skip_when_impossible()

    def test_the_next_server_takes_it_up_and_leaves_nothing_behind(self):
        first = self.server("--results", "structured", env=RUNSC)
        call(first, "sandbox_create", name="box")
        call(first, "sandbox_exec", sandbox_id="box", command="echo mine >f")
        number = call(first, "sandbox_exec", sandbox_id="box", command="read x; echo $x", background=True).structured["process_id"]
        first.kill(signal.SIGKILL)
        first.wait()
        first.close()
        with self.server("--results", "structured", env=RUNSC) as second:
            self.assertEqual(call(second, "sandbox_info", sandbox_id="box").structured["runtime"], "runsc")
            self.assertEqual(call(second, "sandbox_exec", sandbox_id="box", command="cat f").structured["stdout"], "mine\n")
            call(second, "sandbox_process", sandbox_id="box", action="write", process_id=number, input="after\n")
            call(second, "sandbox_process", sandbox_id="box", action="wait", process_id=number, wait_s=20 * SLOW)
            read = call(second, "sandbox_process", sandbox_id="box", action="read", process_id=number, cursor=0).structured
            self.assertEqual(read["output"], "after\n")
            call(second, "sandbox_destroy", sandbox_id="box")
        leaks.wait_clean(self.before, self.home)

    def test_one_that_died_over_its_start_leaves_nothing_to_the_next(self):
        first = self.server("--results", "structured", env=RUNSC)
        first.submit_tool("sandbox_create", {"name": "box"})
        wait_for("its record", lambda: glob.glob(f"{self.home}/servers/*/sandboxes/*/record"))
        first.kill(signal.SIGKILL)
        first.wait()
        first.close()
        with self.server("--results", "structured", env=RUNSC) as second:
            self.assertEqual(call(second, "sandbox_list").structured["sandboxes"], [])
        leaks.wait_clean(self.before, self.home)


class NotRoot(HutchCase):
    def test_an_ordinary_users_server_says_that_gvisor_needs_root(self):
        skip_without_runsc()
        if not shutil.which("setpriv"):
            self.skipTest("changes the user")
        os.chmod(self.home, 0o755)
        os.chown(self.home, 65533, 65533)
        done = subprocess.run(["setpriv", "--reuid", "65533", "--regid", "65533", "--clear-groups", HUTCH, "run", "--", "true"],
                              env=self.env(**RUNSC), capture_output=True, text=True, timeout=60 * SLOW, cwd="/")
        if "cannot execute" in done.stderr or "Permission denied" in done.stderr:
            self.skipTest("the program cannot be started as somebody else")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("runsc needs a server that runs as root", done.stderr)


if __name__ == "__main__":
    unittest.main()
