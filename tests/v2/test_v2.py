"""hutch on a host with cgroup v2 only: what it makes there, what the kernel has then, and what it leaves.

HUTCHTEST_V2_HOST names the kind of host that guest.sh has made: root, container (root in a cgroup namespace, whose top
group holds processes), user (a systemd user with all controllers), partial (one without cpu), scope (a delegated group that
holds processes), none (nothing delegated).
"""
import glob
import os
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../support"))
from sandbox_case import HutchCase, SandboxCase, call, doctor, wait_for  # noqa: E402

HOST = os.environ.get("HUTCHTEST_V2_HOST", "root")
LIMITED = HOST != "none"
ROOT_HERE = os.geteuid() == 0
MIB = 1 << 20
GROUPS = {"user": "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service",
          "partial": "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service",
          "scope": "/sys/fs/cgroup/system.slice/delegated.scope"}.get(HOST, "/sys/fs/cgroup")
only_limited = unittest.skipUnless(LIMITED, "nothing is delegated here")
only_root = unittest.skipUnless(ROOT_HERE, "needs root")


def group_of(box):
    return wait_for(f"the group of {box}", lambda: glob.glob(f"{GROUPS}/hutch.slice/*/{box}"))[0]


def value(group, name):
    with open(f"{group}/{name}") as file:
        return file.read().strip()


class Doctor(HutchCase):
    def test_it_says_which_limits_hold(self):
        status, text = doctor()
        self.assertEqual(status, 0, text)
        self.assertIn("hutch works here", text)
        held = {name for name in ("memory", "swap", "cpus", "pids") if f"ok   isolation: {name} " in text}
        expected = {"memory", "swap", "cpus", "pids"} if LIMITED else set()
        self.assertEqual(held, expected - {"cpus"} if HOST == "partial" else expected, text)
        if HOST == "partial":
            self.assertRegex(text, r"MISS limits +.* does not offer: cpu\n.*Delegate=memory pids cpu")
        elif LIMITED:
            self.assertIn("cgroup v2: memory, cpus and pids can be limited", text)
        else:
            self.assertRegex(text, r"MISS limits +.*is not writable\n.*Delegate=yes")

    def test_one_command_of_each_runtime(self):
        for runtime in ("crun", "runc") if ROOT_HERE else ("crun",):
            done = self.hutch("run", "--", "echo", "hello", env=self.env(HUTCH_OCI__RUNTIME=runtime))
            self.assertEqual((done.returncode, done.stdout), (0, "hello\n"), f"{runtime}: {done.stderr}")


class Limits(SandboxCase):
    def create(self, **arguments):
        box = self.ok("sandbox_create", **arguments)["sandbox_id"]
        self.addCleanup(self.call, "sandbox_destroy", sandbox_id=box)
        return box

    @only_limited
    def test_the_kernel_has_what_was_asked_for(self):
        asked = {"memory": "300m", "pids": 77} | ({} if HOST == "partial" else {"cpus": 0.5})
        group = group_of(self.create(**asked))
        self.assertEqual(value(group, "memory.max"), str(300 * MIB))
        self.assertEqual(value(group, "memory.swap.max"), "0")
        self.assertEqual(value(group, "pids.max"), "77")
        if HOST != "partial":
            self.assertEqual(value(group, "cpu.max"), "50000 100000")

    @only_limited
    def test_the_agent_and_all_commands_are_in_the_group(self):
        box = self.create()
        self.sh("sleep 1000 >/dev/null 2>&1 &", sandbox_id=box)
        group = group_of(box)

        def names():
            return {open(f"/proc/{pid}/comm").read().strip() for pid in value(group, "cgroup.procs").split()}
        wait_for("both", lambda: {"hutch-agent", "sleep"} <= names())

    @only_limited
    def test_memory_over_the_limit_is_told_as_such_and_only_the_command_ends(self):
        box = self.create(memory="48m")
        result = self.call("sandbox_exec", sandbox_id=box, argv=["python3", "-c", "x = bytearray(200 << 20)"])
        self.assertEqual(result.structured["end"], "oom_killed", result.text)
        self.assertEqual(self.sh("echo goes on", sandbox_id=box), "goes on\n")

    @only_limited
    def test_usage_is_told(self):
        box = self.create()
        self.sh("i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done", sandbox_id=box)
        info = self.ok("sandbox_info", sandbox_id=box)
        self.assertGreater(info["memory_bytes"], 100_000, info)
        self.assertGreater(info["cpu_s"], 0, info)
        self.assertGreater(info["pids"], 0, info)

    @unittest.skipUnless(HOST in ("partial", "none"), "all controllers are here")
    def test_a_limit_that_nothing_can_enforce_is_refused(self):
        self.assertRegex(self.refused("sandbox_create", cpus=0.5), "cpu")
        if HOST == "none":
            self.assertRegex(self.refused("sandbox_create", memory="300m"), "memory")

    @only_limited
    def test_no_group_is_left(self):
        box = self.ok("sandbox_create")["sandbox_id"]
        group = group_of(box)
        self.sh("(setsid sleep 1000 >/dev/null 2>&1 &)", sandbox_id=box)
        self.ok("sandbox_destroy", sandbox_id=box)
        wait_for("its end", lambda: not os.path.exists(group))

    def test_files_can_be_written_where_they_are_wanted(self):
        box = self.create()
        self.sh("for f in /workspace/x /tmp/x ~/x /etc/x /usr/x; do echo x >$f || exit 1; done", sandbox_id=box)


@only_root
class RuncLimits(HutchCase):
    """runc makes a group of its own: it must be below ours."""

    def test_limits_hold_for_it_too(self):
        server = self.server("--results", "structured", env={"HUTCH_OCI__RUNTIME": "runc"})
        self.addCleanup(server.close)
        made = call(server, "sandbox_create", memory="48m", pids=40)
        self.assertFalse(made.is_error, made.text)
        box = made.structured["sandbox_id"]
        group = group_of(box)
        self.assertEqual((value(group, "memory.max"), value(group, "pids.max")), (str(48 * MIB), "40"))
        self.assertTrue(os.path.exists(group + "/runtime"))
        done = call(server, "sandbox_exec", sandbox_id=box, argv=["python3", "-c", "x = bytearray(200 << 20)"])
        self.assertEqual(done.structured["end"], "oom_killed", done.text)
        done = call(server, "sandbox_exec", sandbox_id=box, command="for i in $(seq 50); do sleep 1000 >/dev/null 2>&1 & done")
        self.assertRegex(done.text, r"limit of 40|pids", "what is full, and what to do")
        self.assertFalse(call(server, "sandbox_destroy", sandbox_id=box).is_error)
        wait_for("its end", lambda: not os.path.exists(group))


class Ends(HutchCase):
    @only_limited
    def test_a_server_that_ends_leaves_no_group(self):
        server = self.server("--results", "structured")
        box = call(server, "sandbox_create").structured["sandbox_id"]
        group = group_of(box)
        self.assertEqual(server.close()[0], 0)
        wait_for("its end", lambda: not os.path.exists(os.path.dirname(group)))

    @only_limited
    def test_a_server_that_ends_while_a_group_is_busy_has_it_removed_later(self):
        server = self.server("--results", "structured")
        group = group_of(call(server, "sandbox_create").structured["sandbox_id"])
        # No process of the sandbox, so its end does not end it.
        with subprocess.Popen(["sleep", "1000"], start_new_session=True) as foreign:
            try:
                with open(f"{group}/cgroup.procs", "w") as file:
                    file.write(str(foreign.pid))
                server.close()
                wait_for("its end", lambda: foreign.poll() is not None and not os.path.exists(os.path.dirname(group)))
            finally:
                foreign.kill()
        wait_for("the end of the folder", lambda: not glob.glob(f"{self.home}/servers/*"))

    @only_limited
    def test_what_a_killed_server_leaves_is_removed_by_the_next_one(self):
        server = self.server("--results", "structured")
        group = group_of(call(server, "sandbox_create").structured["sandbox_id"])
        server.kill(9)
        server.wait()
        after = self.server("--results", "structured")
        call(after, "sandbox_list")
        wait_for("the end of the group", lambda: not os.path.exists(os.path.dirname(group)))
        after.close()


class Homes(HutchCase):
    """Data folders on other file systems than the others' ext4."""

    def test_files_can_be_written_where_the_file_system_cannot_shift_owners(self):
        # tmpfs can from Linux 6.3 on.
        with tempfile.TemporaryDirectory(dir="/dev/shm") as home:
            os.chmod(home, 0o755)
            done = self.hutch("run", "--", "sh", "-c", "for f in /workspace/x /tmp/x ~/x /etc/x; do echo x >$f || exit 1; done; "
                              "stat -c %u:%g / /etc/passwd /workspace | sort -u", env=self.env(HUTCH_HOME=home))
            self.assertEqual((done.returncode, done.stdout), (0, "0:0\n"), done.stderr)
