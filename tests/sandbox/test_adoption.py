"""What the next server takes up of one that was killed, or that left its sandboxes on purpose: everything as it was."""
import datetime
import glob
import json
import os
import signal
import time
import unittest

import leaks
from sandbox_case import SLOW, HutchCase, call, skip_when_impossible, wait_for

NO_POOL = {"HUTCH_POOL__MAX": 0}  # only what the test makes is there
MINE, OTHER = {"CLAUDE_CODE_SESSION_ID": "session-of-mine"}, {"CLAUDE_CODE_SESSION_ID": "another-session"}


def instant(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))


class AdoptionCase(HutchCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        skip_when_impossible()

    def tearDown(self):
        # What a server took up and did not use lives on after it.
        with self.server("--results", "structured", env=NO_POOL) as server:
            self.ok(server, "sandbox_destroy", sandbox_id="*", confirm=True)
        leaks.wait_clean(self.before, self.home)

    def serve(self, *args, **settings):
        server = self.server("--results", "structured", *args, env={**NO_POOL, **settings})
        self.addCleanup(lambda: server.process.poll() is None and server.close())
        return server

    def ok(self, server, tool, **arguments):
        done = call(server, tool, **arguments)
        self.assertFalse(done.is_error, done.text)
        return done.structured

    def sh(self, server, command, **arguments):
        done = self.ok(server, "sandbox_exec", command=command, **arguments)
        self.assertEqual((done["end"], done.get("exit_code")), ("exited", 0), done)
        return done["stdout"]

    def process(self, server, action, number, **arguments):
        return self.ok(server, "sandbox_process", sandbox_id="box", action=action, process_id=number, **arguments)

    def kill(self, server):
        server.kill(signal.SIGKILL)
        server.wait()
        server.close()

    def listed(self, server):
        return {box["sandbox_id"]: box for box in self.ok(server, "sandbox_list")["sandboxes"]}

    def end(self, server):
        self.assertEqual(server.close()[0], 0, server.stderr())


class AfterAKill(AdoptionCase):
    def test_id_name_labels_files_environment_and_folder_are_as_they_were(self):
        first = self.serve()
        made = self.ok(first, "sandbox_create", name="box", labels={"team": "red"}, env={"COLOUR": "blue"}, workdir="deep/er",
                       ttl_s=900, idle_timeout_s=300)
        self.sh(first, "echo content > mine; mkdir -p /opt/x; echo there > /opt/x/y", sandbox_id="box")
        before = self.ok(first, "sandbox_info", sandbox_id="box")
        self.kill(first)
        after = self.serve()
        now = self.ok(after, "sandbox_info", sandbox_id="box")
        for same in ("sandbox_id", "name", "labels", "workdir", "profile", "runtime", "limits", "isolation", "created_at",
                     "expires_at", "idle_timeout_s", "user", "writable_paths"):
            self.assertEqual(now[same], before[same], same)
        self.assertEqual(list(self.listed(after)), [made["sandbox_id"]])
        self.assertEqual(self.listed(after)[made["sandbox_id"]]["labels"], {"team": "red"})
        for name in ("box", made["sandbox_id"]):
            self.assertEqual(self.sh(after, "echo $COLOUR $(pwd) $(cat mine /opt/x/y)", sandbox_id=name),
                             "blue /workspace/deep/er content there\n")
        self.assertIn("box", call(after, "sandbox_create", name="box").text)
        self.ok(after, "sandbox_destroy", sandbox_id="box")
        self.assertEqual(self.listed(after), {})
        self.end(after)

    def limits_of(self, box):
        """What the kernel's files say, by name."""
        path, = glob.glob(f"{self.home}/servers/*/sandboxes/{box}/record")
        with open(path) as file:
            folders = json.loads(file.read().splitlines()[-1])["cgroups"].values()
        names = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max", "memory.swap.max", "cpu.cfs_quota_us",
                 "cpu.max", "pids.max")
        found = {}
        for folder in folders:
            for name in names:
                if os.path.exists(f"{folder}/{name}"):
                    with open(f"{folder}/{name}") as file:
                        found[name] = file.read().strip()
        return found

    def test_limits_are_those_in_the_kernel_and_still_hold(self):
        first = self.serve()
        box = self.ok(first, "sandbox_create", name="box", memory="48m", cpus=0.5, pids=40)["sandbox_id"]
        before = self.limits_of(box)
        self.assertIn(str(48 << 20), before.values())
        self.kill(first)
        after = self.serve()
        self.assertEqual(self.ok(after, "sandbox_info", sandbox_id="box")["limits"]["memory"], "48m")
        self.assertEqual(self.limits_of(box), before)
        done = self.ok(after, "sandbox_exec", sandbox_id="box", argv=["python3", "-c", "x = bytearray(200 << 20)"])
        self.assertEqual(done["end"], "oom_killed", done)
        self.end(after)

    def test_background_processes_run_on_and_none_of_their_output_is_lost(self):
        first = self.serve()
        self.ok(first, "sandbox_create", name="box")
        count = self.ok(first, "sandbox_exec", sandbox_id="box", background=True,
                        command="i=0; while [ ! -e stop ]; do i=$((i+1)); echo line $i; sleep 0.01; done; echo last; exit 7")["process_id"]
        cat = self.ok(first, "sandbox_exec", sandbox_id="box", background=True,
                      command="while read x; do echo got $x; done; exit 5")["process_id"]
        self.process(first, "write", cat, input="before\n")
        wait_for("output", lambda: "line 5\n" in self.process(first, "read", count, cursor=0)["output"])
        self.kill(first)
        after = self.serve()
        states = {p["process_id"]: p["state"] for p in self.ok(after, "sandbox_info", sandbox_id="box")["processes"]}
        self.assertEqual(states, {count: "running", cat: "running"})
        self.sh(after, "touch stop", sandbox_id="box")
        done = self.process(after, "wait", count, wait_s=20 * SLOW)["processes"][0]
        self.assertEqual((done["state"], done["exit_code"]), ("ended", 7), done)
        lines = self.process(after, "read", count, cursor=0, output_limit=1_000_000)["output"].splitlines()
        self.assertEqual(lines, [f"line {i}" for i in range(1, len(lines))] + ["last"])
        self.process(after, "write", cat, input="after\n", eof=True)
        done = self.process(after, "wait", cat, wait_s=20 * SLOW)["processes"][0]
        self.assertEqual((done["state"], done["exit_code"]), ("ended", 5), done)
        self.assertEqual(self.process(after, "read", cat, cursor=0)["output"], "got before\ngot after\n")
        self.end(after)

    def test_one_that_ended_while_no_server_was_there_is_told_with_its_exit_code(self):
        first = self.serve()
        self.ok(first, "sandbox_create", name="box")
        number = self.ok(first, "sandbox_exec", sandbox_id="box", background=True,
                         command="while [ ! -e /dev/shm/go ]; do sleep 0.01; done; echo alone; exit 9")["process_id"]
        self.ok(first, "sandbox_exec", sandbox_id="box", background=True, command="sleep 1; touch /dev/shm/go")
        self.kill(first)
        time.sleep(1.5 * SLOW)  # nobody is there who could tell of it
        after = self.serve()
        done = self.process(after, "wait", number, wait_s=10 * SLOW)["processes"][0]
        self.assertEqual((done["state"], done["exit_code"]), ("ended", 9), done)
        self.assertEqual(self.process(after, "read", number, cursor=0)["output"], "alone\n")
        self.end(after)

    def test_a_command_of_a_call_that_was_cut_off_can_be_read_as_a_process_or_has_ended(self):
        first = self.serve()
        self.ok(first, "sandbox_create", name="box")
        first.submit_tool("sandbox_exec", {"sandbox_id": "box", "command": "echo begun; touch begun; exec sleep 1000"})
        wait_for("the command", lambda: "begun" in self.sh(first, "ls", sandbox_id="box"))
        self.kill(first)
        after = self.serve()
        for process in self.ok(after, "sandbox_info", sandbox_id="box")["processes"]:
            self.assertEqual(self.process(after, "read", process["process_id"], cursor=0)["output"], "begun\n")
        self.end(after)

    def test_numbers_of_commands_go_on(self):
        first = self.serve()
        self.ok(first, "sandbox_create", name="box")
        old = [self.ok(first, "sandbox_exec", sandbox_id="box", background=True, command=f"echo {i}")["process_id"] for i in range(3)]
        self.kill(first)
        after = self.serve()
        new = self.ok(after, "sandbox_exec", sandbox_id="box", background=True, command="echo new")["process_id"]
        self.assertGreater(new, max(old))
        self.process(after, "wait", new, wait_s=10 * SLOW)
        for i, number in enumerate(old):
            self.assertEqual(self.sh(after, f"cat /var/log/hutch/{number}.log", sandbox_id="box"), f"{i}\n")
        self.assertEqual(self.sh(after, f"cat /var/log/hutch/{new}.log", sandbox_id="box"), "new\n")
        self.end(after)

    def test_being_taken_up_is_no_use(self):
        first = self.serve()
        self.ok(first, "sandbox_create", name="box", idle_timeout_s=3 * SLOW)
        used = self.listed(first)
        self.kill(first)
        time.sleep(SLOW)  # a third of its idle time
        start = time.monotonic()
        after = self.serve()
        now = self.listed(after)
        self.assertEqual({k: v.get("last_used_at") for k, v in now.items()}, {k: v.get("last_used_at") for k, v in used.items()})
        wait_for("its end", lambda: not self.listed(after))
        self.assertLess(time.monotonic() - start, 2.8 * SLOW)
        self.end(after)

    def test_the_lifetime_ends_when_it_would_have(self):
        first = self.serve()
        made = self.ok(first, "sandbox_create", name="box", ttl_s=3 * SLOW)
        self.kill(first)
        after = self.serve()
        box = self.listed(after)[made["sandbox_id"]]
        self.assertEqual(box["expires_at"], made["expires_at"])
        wait_for("its end", lambda: not self.listed(after))
        late = datetime.datetime.now(datetime.timezone.utc) - instant(made["expires_at"])
        self.assertLess(abs(late.total_seconds()), 2 * SLOW)
        self.assertIn("lifetime", call(after, "sandbox_exec", sandbox_id="box", command="true").text)
        self.end(after)

    def test_one_whose_lifetime_was_over_meanwhile_is_gone_and_the_next_call_says_why(self):
        first = self.serve()
        made = self.ok(first, "sandbox_create", name="box", ttl_s=1)
        self.kill(first)
        wait_for("its processes' end", lambda: not leaks.processes().keys() - self.before.keys())
        after = self.serve()
        self.assertEqual(self.listed(after), {})
        for name in ("box", made["sandbox_id"]):
            gone = call(after, "sandbox_exec", sandbox_id=name, command="true")
            self.assertTrue(gone.is_error)
            self.assertIn("lifetime", gone.text)
        self.end(after)

    def test_without_a_server_it_ends_itself_in_time(self):
        first = self.serve(HUTCH_SANDBOX__ORPHAN_TTL_S=1)
        self.ok(first, "sandbox_create", name="box")
        self.ok(first, "sandbox_exec", sandbox_id="box", background=True, command="trap '' TERM; while :; do sleep 1; done")
        self.kill(first)
        wait_for("the end of all processes", lambda: not leaks.processes().keys() - self.before.keys(), 10)
        after = self.serve()
        self.assertEqual(self.listed(after), {})
        self.end(after)

    def test_one_that_is_used_after_it_was_taken_up_survives_a_second_kill(self):
        server = self.serve()
        box = self.ok(server, "sandbox_create", name="box")["sandbox_id"]
        for round_ in range(4):
            self.sh(server, f"echo {round_} >> rounds", sandbox_id="box")
            self.kill(server)
            server = self.serve()
            self.assertEqual(list(self.listed(server)), [box])
        self.assertEqual(self.sh(server, "cat rounds", sandbox_id="box"), "0\n1\n2\n3\n")
        self.end(server)


class DefaultSandbox(AdoptionCase):
    def use(self, server, command):
        return self.ok(server, "sandbox_exec", command=command)

    def test_is_taken_up_by_a_server_of_the_same_session_and_new_for_another(self):
        first = self.serve(**MINE)
        box = self.use(first, "echo mine > mine")["sandbox_id"]
        self.kill(first)
        other = self.serve(**OTHER)
        its = self.use(other, "ls")
        self.assertNotEqual(its["sandbox_id"], box)
        self.assertEqual(its["stdout"], "")
        self.assertIn("new", " ".join(its["notes"]))
        self.kill(other)
        again = self.serve(**MINE)
        done = self.use(again, "cat mine")
        self.assertEqual((done["sandbox_id"], done["stdout"]), (box, "mine\n"), done)
        self.assertNotIn("new", " ".join(done["notes"]))
        self.end(again)


class SeveralServers(AdoptionCase):
    def test_two_that_live_never_take_each_others(self):
        one, two = self.serve(), self.serve()
        for server, name in ((one, "a"), (two, "b")):
            self.ok(server, "sandbox_create", name=name)
        for server, name in ((one, "a"), (two, "b")):
            self.assertEqual([box["name"] for box in self.listed(server).values()], [name])
        three = self.serve()
        self.assertEqual(self.listed(three), {})
        self.end(three)
        self.assertEqual(self.sh(one, "echo on", sandbox_id="a") + self.sh(two, "echo on", sandbox_id="b"), "on\non\n")
        self.end(one)
        self.end(two)

    def test_what_was_taken_up_and_never_used_is_left_to_the_next_server(self):
        first = self.serve()
        box = self.ok(first, "sandbox_create", name="box")["sandbox_id"]
        self.sh(first, "echo mine > mine", sandbox_id="box")
        self.kill(first)
        for _ in range(2):
            disposable = self.serve()
            self.assertEqual(list(self.listed(disposable)), [box])
            self.end(disposable)
        after = self.serve()
        self.assertEqual(self.sh(after, "cat mine", sandbox_id="box"), "mine\n")
        self.end(after)
        leaks.wait_clean(self.before, self.home)


class OnExit(AdoptionCase):
    def test_keep_leaves_them_to_the_next_server_and_end_removes_them(self):
        first = self.serve(HUTCH_ON_EXIT="keep")
        box = self.ok(first, "sandbox_create", name="box")["sandbox_id"]
        self.sh(first, "echo kept > mine", sandbox_id="box")
        number = self.ok(first, "sandbox_exec", sandbox_id="box", background=True, command="exec sleep 1000")["process_id"]
        status, took = first.close()
        self.assertEqual(status, 0)
        self.assertLess(took, 0.3 * SLOW)
        after = self.serve()
        self.assertEqual(list(self.listed(after)), [box])
        self.assertEqual(self.sh(after, "cat mine", sandbox_id="box"), "kept\n")
        self.assertEqual(self.process(after, "read", number)["processes"][0]["state"], "running")
        self.end(after)
        leaks.wait_clean(self.before, self.home)

    def test_keep_leaves_no_warm_ones(self):
        first = self.serve(HUTCH_ON_EXIT="keep", HUTCH_POOL__MAX=4)
        self.ok(first, "sandbox_create", name="box")
        wait_for("a warm one", lambda: len(glob.glob(f"{self.home}/servers/*/sandboxes/*")) > 1)
        self.end(first)
        wait_for("only its own", lambda: len(glob.glob(f"{self.home}/servers/*/sandboxes/*")) == 1)
        after = self.serve()
        self.assertEqual([b["name"] for b in self.listed(after).values()], ["box"])
        self.end(after)
