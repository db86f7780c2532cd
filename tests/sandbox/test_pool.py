"""The warm pool: claims get what they ask for, nothing is handed out twice, and no call fails for its sake."""
import contextlib
import glob
import json
import os
import re
import signal
import stat
import time

import leaks
from sandbox_case import SLOW, HutchCase, SandboxCase, call, skip_when_impossible, unpack, wait_for


def pool_status(case):
    done = case.hutch("pool", "status", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def kind(case, name="default"):
    """What the only server says of one kind of warm sandboxes; {} before it has a pool."""
    return next((k for server in pool_status(case) for k in server["kinds"] if k["kind"] == name), {})


def wait_ready(case, count=1, name="default"):
    return wait_for(f"{count} warm sandboxes", lambda: (k := kind(case, name)).get("ready", 0) >= count and k)


def records(home, state):
    """The latest record of each sandbox of this data folder that is in this state."""
    found = []
    for path in glob.glob(f"{home}/servers/*/sandboxes/*/record"):
        try:
            with open(path) as file:
                lines = file.read().splitlines()
        except OSError:
            continue
        if lines and json.loads(lines[-1])["state"] == state:
            found.append(json.loads(lines[-1]))
    return found


class Claims(SandboxCase):
    def setUp(self):
        self.call("sandbox_list")  # any call begins the pool
        wait_ready(self)

    def create(self, **arguments):
        made = self.ok("sandbox_create", **arguments)
        self.addCleanup(self.call, "sandbox_destroy", sandbox_id=made["sandbox_id"])
        return made

    def test_a_second_sandbox_is_warm_and_the_one_after_the_pool_is_empty_is_not_an_error(self):
        made = [self.create() for _ in range(8)]
        self.assertTrue(made[0]["warm"], made[0])
        self.assertEqual(len({m["sandbox_id"] for m in made}), 8)
        for m in made:
            self.assertEqual(self.sh("echo hello", sandbox_id=m["sandbox_id"]), "hello\n")

    def test_what_differs_from_one_caller_to_the_next_is_attached_to_a_warm_one(self):
        made = self.create(name="mine", memory="48m", cpus=0.5, pids=40, env={"COLOUR": "blue"}, workdir="deep/er",
                           ttl_s=500, idle_timeout_s=90, labels={"team": "red"})
        self.assertTrue(made["warm"], made)
        self.assertEqual((made["limits"]["memory"], made["limits"]["cpus"], made["limits"]["pids"]), ("48m", 0.5, 40))
        enforced = {i["name"]: i for i in made["isolation"]}
        self.assertEqual(enforced["memory"]["detail"], str(48 << 20))
        self.assertEqual(enforced["pids"]["detail"], "40")
        self.assertEqual(self.sh("echo $COLOUR $(pwd)", sandbox_id="mine"), "blue /workspace/deep/er\n")
        done = self.ok("sandbox_exec", sandbox_id="mine", argv=["python3", "-c", "x = bytearray(200 << 20)"])
        self.assertEqual(done["end"], "oom_killed", done)
        self.assertEqual([s["sandbox_id"] for s in self.ok("sandbox_list", label={"team": "red"})["sandboxes"]],
                         [made["sandbox_id"]])
        self.assertIn("expires_at", made)

    def test_limits_can_be_raised_above_those_it_was_built_with(self):
        made = self.create(memory="3g", pids=900)
        self.assertTrue(made["warm"], made)
        enforced = {i["name"]: i["detail"] for i in made["isolation"] if i["enforced"]}
        self.assertEqual((enforced["memory"], enforced["swap"], enforced["pids"]), (str(3 << 30), "0", "900"))

    def test_a_short_lifetime_ends_a_claimed_one_and_not_those_that_wait(self):
        made = self.create(ttl_s=1)
        self.assertTrue(made["warm"], made)
        wait_for("its end", lambda: self.call("sandbox_info", sandbox_id=made["sandbox_id"]).structured["state"] == "ended")
        self.assertIn("lifetime of 1 s", self.call("sandbox_info", sandbox_id=made["sandbox_id"]).text)
        self.assertTrue(self.create()["warm"])

    def test_a_sandbox_that_ran_anything_is_never_handed_out_again(self):
        seen = set()
        for _ in range(5):
            wait_ready(self)
            made = self.create()
            self.assertTrue(made["warm"])
            self.assertNotIn(made["sandbox_id"], seen)
            seen.add(made["sandbox_id"])
            self.assertEqual(self.sh("ls -A /workspace /tmp /root; cat /var/log/hutch/* 2>/dev/null; true",
                                     sandbox_id=made["sandbox_id"]).replace("/workspace:", "").replace("/tmp:", "")
                             .replace("/root:", "").strip(), "")
            self.sh("touch /workspace/mark /tmp/mark ~/mark", sandbox_id=made["sandbox_id"])
            self.ok("sandbox_destroy", sandbox_id=made["sandbox_id"])

    def test_warm_ones_are_not_listed_and_cannot_be_named(self):
        warm = records(self.home, "warm")
        self.assertTrue(warm)
        listed = {s["sandbox_id"] for s in self.ok("sandbox_list")["sandboxes"]}
        for record in warm:
            self.assertNotIn(record["id"], listed)
            self.assertIn("there is no sandbox", self.refused("sandbox_exec", sandbox_id=record["id"], argv=["true"]))
            # It is somebody else's word, so nothing is destroyed either.
            self.call("sandbox_destroy", sandbox_id=record["id"])
            os.kill(record["pid"], 0)

    def test_an_agent_that_is_killed_while_warm_is_replaced_and_never_handed_out(self):
        dead = records(self.home, "warm")
        for record in dead:
            os.kill(record["pid"], signal.SIGKILL)
        wait_for("other ones", lambda: (w := records(self.home, "warm")) and not {r["id"] for r in w} & {r["id"] for r in dead})
        made = self.create()
        self.assertNotIn(made["sandbox_id"], {r["id"] for r in dead})
        self.assertEqual(self.sh("echo on", sandbox_id=made["sandbox_id"]), "on\n")

    def test_an_agent_that_hangs_while_warm_does_not_fail_the_next_call(self):
        # The pool asks each a second after it was built: a stopped one is found then, and replaced.
        old = {r["id"] for r in records(self.home, "warm")}
        self.assertEqual(self.hutch("pool", "flush").returncode, 0)

        def stop():
            done = []
            for record in records(self.home, "warm"):
                # One that was being built when the flush came is discarded as soon as it is whole.
                with contextlib.suppress(ProcessLookupError):
                    if record["id"] not in old:
                        os.kill(record["pid"], signal.SIGSTOP)
                        done.append(record)
            return done
        stopped = wait_for("a new one", stop)
        wait_for("others in their place", lambda: not {r["id"] for r in records(self.home, "warm")} & {r["id"] for r in stopped})
        self.assertEqual(self.sh("echo on", sandbox_id=self.create()["sandbox_id"]), "on\n")

    def test_an_idle_one_costs_less_than_a_mebibyte_and_no_processor_time(self):
        before = wait_for("its memory", lambda: kind(self).get("idle_memory_bytes"))
        self.assertLess(before, 1 << 20)
        groups = [g for r in records(self.home, "warm") if (g := r["cgroups"].get("cpuacct") or r["cgroups"].get(""))]

        def used_ns(group):
            if os.path.exists(group + "/cpuacct.usage"):
                return int(open(group + "/cpuacct.usage").read())
            return int(re.search(r"usage_usec (\d+)", open(group + "/cpu.stat").read())[1]) * 1000
        used = [used_ns(g) for g in groups]
        time.sleep(1)  # the thing measured is that nothing happens in it
        for group, ns in zip(groups, used):
            # One health check may fall into it.
            self.assertLess(used_ns(group) - ns, 5_000_000 * SLOW)

    def test_status_flush_and_profiles_tell_what_is_ready_and_why(self):
        self.create()
        status = wait_ready(self)
        self.assertGreaterEqual(status["hits"] + status["misses"], 1)
        self.assertGreater(status["build_ms"], 0)
        self.assertRegex(status["reason"], r"claims? within|pool\.m")
        self.assertEqual(status["profiles"], ["default"])
        profile = self.ok("sandbox_list_profiles")["profiles"][0]["warm"]
        self.assertGreaterEqual(profile["ready"], 1)
        self.assertTrue(profile["reason"])
        before = {r["id"] for r in records(self.home, "warm")}
        done = self.hutch("pool", "flush")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("discarded", done.stdout)
        wait_for("new ones", lambda: (w := {r["id"] for r in records(self.home, "warm")}) and not w & before)
        self.assertIn("ready", self.hutch("pool", "status").stdout)


class Bounds(HutchCase):
    def setUp(self):
        skip_when_impossible()

    def serve(self, **settings):
        server = self.server("--results", "structured", env=settings)
        self.addCleanup(server.close)
        return server

    def test_a_maximum_below_the_minimum_stops_the_start(self):
        done = self.hutch("mcp", env=self.env(HUTCH_POOL__MIN=3, HUTCH_POOL__MAX=2))
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("pool.max", done.stderr)
        self.assertIn("pool.min", done.stderr)

    def test_without_a_pool_every_sandbox_is_built_when_it_is_asked_for(self):
        server = self.serve(HUTCH_POOL__MAX=0)
        for _ in range(2):
            self.assertFalse(call(server, "sandbox_create").structured["warm"])
        self.assertEqual(records(self.home, "warm"), [])

    def test_nothing_is_built_before_the_first_call(self):
        server = self.serve()
        server.ping()
        server.list_tools()
        self.assertEqual(glob.glob(f"{self.home}/servers/*"), [])

    def test_warm_ones_give_way_where_sandboxes_are_counted(self):
        server = self.serve(HUTCH_LIMITS__MAX_SANDBOXES=3, HUTCH_POOL__MIN=3, HUTCH_POOL__MAX=3)
        call(server, "sandbox_list")
        wait_ready(self, 3)
        made = [call(server, "sandbox_create") for _ in range(3)]
        self.assertEqual([m.is_error for m in made], [False] * 3, made)
        fourth = call(server, "sandbox_create")
        self.assertTrue(fourth.is_error)
        self.assertIn("limits.max_sandboxes", fourth.text)

    def test_a_pool_larger_than_the_host_can_hold_stays_within_its_bounds(self):
        server = self.serve(HUTCH_LIMITS__MAX_SANDBOXES=6, HUTCH_POOL__MIN=500, HUTCH_POOL__MAX=1000)
        call(server, "sandbox_list")
        status = wait_for("the bound", lambda: (k := kind(self)).get("ready", 0) >= 6 and k.get("building") == 0 and k)
        self.assertEqual(status["ready"], 6)
        wait_for("the reason", lambda: "limits.max_sandboxes" in kind(self)["reason"])
        self.assertFalse(call(server, "sandbox_create").is_error)

    def test_profiles_share_warm_ones_unless_their_root_file_system_or_hardening_differs(self):
        path = os.path.join(self.home, "pool.yaml")
        with open(path, "w") as file:
            file.write("profiles:\n  small: {memory: 64m, env: {SIZE: small}}\n  other: {shm: 32m}\n")
        server = self.server("--results", "structured", "--config", path)
        self.addCleanup(server.close)
        call(server, "sandbox_list")
        wait_ready(self)
        small = call(server, "sandbox_create", profile="small").structured
        self.assertTrue(small["warm"], small)
        self.assertEqual((small["profile"], small["limits"]["memory"]), ("small", "64m"))
        self.assertFalse(call(server, "sandbox_create", profile="other").structured["warm"])
        wait_ready(self, 1, "other")
        other = call(server, "sandbox_create", profile="other").structured
        self.assertTrue(other["warm"], other)
        self.assertEqual(other["limits"]["shm"], "32m")
        self.assertEqual(sorted(kind(self)["profiles"]), ["default", "small"])

    def test_a_runtime_that_dies_in_the_middle_of_a_build_costs_no_call_that_has_a_warm_one(self):
        runtime, flag = os.path.join(self.home, "crun"), os.path.join(self.home, "die")
        with open(runtime, "w") as file:
            # Starts the container and then dies as if it had not: what it made has to be found and removed.
            file.write(f'#!/bin/sh\n/usr/bin/env crun "$@" || exit $?\nif [ -e {flag} ]; then kill -9 $$; fi\n')
        os.chmod(runtime, os.stat(runtime).st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
        server = self.serve(HUTCH_OCI__RUNTIME=runtime)
        call(server, "sandbox_list")
        wait_ready(self)
        open(flag, "w").close()
        self.assertTrue(call(server, "sandbox_create").structured["warm"])
        status = wait_for("two failures", lambda: (k := kind(self)).get("failures", 0) >= 2 and k)
        self.assertIn("signal 9", status["last_error"])
        self.assertEqual(status["ready"], 0)
        cold = call(server, "sandbox_create")
        self.assertTrue(cold.is_error)
        self.assertIn("signal 9", cold.text)
        os.unlink(flag)
        self.assertFalse(call(server, "sandbox_create").is_error)
        wait_ready(self)

    def test_creates_at_the_same_instant_all_succeed_and_never_share_a_sandbox(self):
        count = 24 if os.environ.get("HUTCHTEST_SHORT") else 200
        server = self.serve(HUTCH_LIMITS__MAX_SANDBOXES=300, HUTCH_SANDBOX__MEMORY="64m", HUTCH_SANDBOX__DISK="64m")
        call(server, "sandbox_list")
        wait_ready(self)
        calls = [server.submit_tool("sandbox_create") for _ in range(count)]
        made = [unpack(c.result(timeout=120 * SLOW)) for c in calls]
        self.assertEqual([m.text for m in made if m.is_error], [])
        ids = {m.structured["sandbox_id"] for m in made}
        self.assertEqual(len(ids), count)
        self.assertFalse(call(server, "sandbox_destroy", sandbox_id="*", confirm=True).is_error)

    def test_a_server_that_is_killed_while_it_builds_leaves_nothing_for_the_next_one(self):
        for pause_s in (0, 0.003, 0.01, 0.02):
            server = self.server("--results", "structured")
            call(server, "sandbox_create")
            wait_for("a build", lambda: kind(self).get("building") or kind(self).get("ready"))
            call(server, "sandbox_create")
            time.sleep(pause_s)  # another moment of the refill each time
            server.kill(signal.SIGKILL)
            server.wait()
        after = self.serve()
        call(after, "sandbox_list")
        self.assertEqual(len(os.listdir(f"{self.home}/servers")), 1)

    def test_a_server_that_ends_while_it_builds_leaves_nothing(self):
        for pause_s in (0, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03):
            server = self.server("--results", "structured")
            call(server, "sandbox_create")
            time.sleep(pause_s)  # another moment of the refill each time
            self.assertEqual(server.close()[0], 0)
            wait_for("its folder to be gone", lambda: not os.listdir(f"{self.home}/servers"))
            leaks.wait_clean(self.before, self.home)

    def test_a_build_that_outlasts_its_server_is_removed_after_it(self):
        runtime = os.path.join(self.home, "slow-crun")
        with open(runtime, "w") as file:
            file.write('#!/bin/sh\nsleep 0.4\nexec /usr/bin/env crun "$@"\n')
        os.chmod(runtime, 0o755)
        for ready in (False, True):  # the first build of all, and a refill
            server = self.server("--results", "structured", env={"HUTCH_OCI__RUNTIME": runtime})
            call(server, "sandbox_create" if ready else "sandbox_list")
            wait_for("a build", lambda: kind(self).get("building"))
            self.assertEqual(server.close()[0], 0)
            leaks.wait_clean(self.before, self.home)

    def test_one_server_of_several_is_chosen_by_its_id(self):
        servers = [self.serve(), self.serve()]
        for server in servers:
            call(server, "sandbox_list")
        both = wait_for("both", lambda: len(s := pool_status(self)) == 2 and s)
        ids = [server["server"] for server in both]
        done = self.hutch("pool", "status", "--server", ids[0], "--json")
        self.assertEqual([s["server"] for s in json.loads(done.stdout)], ids[:1])
        wrong = self.hutch("pool", "flush", "--server", "none")
        self.assertNotEqual(wrong.returncode, 0)
        self.assertIn("hutch stats", wrong.stderr)
