"""How long a sandbox lives, who can change that, and what it is like while it is paused."""
import datetime
import glob
import os
import time
import unittest

from sandbox_case import SLOW, SandboxCase, wait_for


def cpu_us(box, case):
    return case.ok("sandbox_info", sandbox_id=box)["cpu_s"]


class Lifetimes(SandboxCase):
    def test_more_time_counts_from_now_and_zero_takes_the_end_away(self):
        box = self.ok("sandbox_create", ttl_s=100)["sandbox_id"]
        now = datetime.datetime.now(datetime.timezone.utc)
        info = self.ok("sandbox_update", sandbox_id=box, ttl_s=5000)
        left = datetime.datetime.fromisoformat(info["expires_at"].replace("Z", "+00:00")) - now
        self.assertAlmostEqual(left.total_seconds(), 5000, delta=5)
        self.assertNotIn("expires_at", self.ok("sandbox_update", sandbox_id=box, ttl_s=0))

    def test_one_that_was_given_more_time_outlives_its_first_end_also_at_its_agent(self):
        box = self.ok("sandbox_create", ttl_s=1)["sandbox_id"]
        self.ok("sandbox_update", sandbox_id=box, ttl_s=600)
        time.sleep(1.5)  # past the first end: there is no event for what does not happen
        self.assertEqual(self.sh("echo on", sandbox_id=box), "on\n")

    def test_when_less_than_a_tenth_is_left_results_say_so_and_how_to_get_more(self):
        box = self.ok("sandbox_create", ttl_s=1000)["sandbox_id"]
        self.assertEqual(self.ok("sandbox_exec", sandbox_id=box, command="true")["notes"], [])
        self.ok("sandbox_update", sandbox_id=box, ttl_s=8)
        wait_for("the warning", lambda: any("sandbox_update" in note and "ttl_s" in note for note in self.ok(
            "sandbox_exec", sandbox_id=box, command="true")["notes"]))

    def test_an_idle_time_can_be_shortened_and_ends_one_that_was_never_used(self):
        box = self.ok("sandbox_create")["sandbox_id"]
        self.ok("sandbox_update", sandbox_id=box, idle_timeout_s=1)
        wait_for("its end", lambda: self.ok("sandbox_info", sandbox_id=box)["state"] == "ended")
        self.assertIn("not used for 1 s", self.refused("sandbox_exec", sandbox_id=box, command="true"))

    def test_limits_and_labels_change_and_are_read_back(self):
        box = self.ok("sandbox_create", memory="64m", labels={"a": "1", "b": "2"})["sandbox_id"]
        info = self.ok("sandbox_update", sandbox_id=box, memory="128m", cpus=0.5, pids=40, labels={"a": "", "c": "3"})
        self.assertEqual((info["limits"]["memory"], info["limits"]["cpus"], info["limits"]["pids"]), ("128m", 0.5, 40))
        held = {i["name"]: i["detail"] for i in info["isolation"] if i["enforced"]}
        self.assertEqual((held["memory"], held["pids"]), (str(128 << 20), "40"))
        self.assertEqual(info["labels"], {"b": "2", "c": "3"})
        self.assertEqual(self.ok("sandbox_update", sandbox_id=box, memory="48m")["limits"]["memory"], "48m")

    def test_what_nobody_named_is_the_default_one(self):
        used = self.ok("sandbox_exec", command="true")["sandbox_id"]
        self.assertEqual(self.ok("sandbox_update", ttl_s=900)["sandbox_id"], used)
        self.ok("sandbox_update", ttl_s=0)

    def test_causes_of_death_are_told_apart(self):
        box = self.ok("sandbox_create")["sandbox_id"]
        agents = [int(p) for g in glob.glob(f"/sys/fs/cgroup/**/{box}/cgroup.procs", recursive=True) for p in open(g)]
        os.kill(min(agents), 9)
        wait_for("its end", lambda: self.ok("sandbox_info", sandbox_id=box)["state"] == "ended")
        self.assertIn("killed from outside", self.refused("sandbox_exec", sandbox_id=box, command="true"))


class Pauses(SandboxCase):
    server_settings = {"HUTCH_PROFILES__NAPPING__PAUSE_AFTER_S": "1"}

    def test_a_paused_one_does_nothing_says_so_and_goes_on_where_it_was(self):
        box = self.ok("sandbox_create")["sandbox_id"]
        number = self.ok("sandbox_exec", sandbox_id=box, background=True,
                         command="i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done")["process_id"]
        self.assertEqual(self.ok("sandbox_update", sandbox_id=box, paused=True)["state"], "paused")
        self.assertEqual([s["state"] for s in self.ok("sandbox_list")["sandboxes"] if s["sandbox_id"] == box], ["paused"])
        used = cpu_us(box, self)
        self.assertIn("`paused: false`", self.refused("sandbox_exec", sandbox_id=box, command="true"))
        time.sleep(0.3)  # there is no event for what does not happen
        self.assertEqual(cpu_us(box, self), used)
        self.assertEqual(self.ok("sandbox_update", sandbox_id=box, paused=False)["state"], "running")
        read = self.ok("sandbox_process", sandbox_id=box, action="read", process_id=number, wait_s=5)
        self.assertEqual(read["processes"][0]["state"], "running")
        self.assertEqual(self.sh("echo on", sandbox_id=box), "on\n")

    def test_a_paused_one_can_be_destroyed_and_ends_when_its_time_is_over(self):
        for how in ("destroy", "ttl"):
            box = self.ok("sandbox_create", ttl_s=2 * SLOW if how == "ttl" else 0)["sandbox_id"]
            self.ok("sandbox_exec", sandbox_id=box, background=True, command="sleep 1000")
            self.ok("sandbox_update", sandbox_id=box, paused=True)
            if how == "destroy":
                self.assertEqual(self.ok("sandbox_destroy", sandbox_id=box)["destroyed"], [box])
            wait_for("its end", lambda: self.ok("sandbox_info", sandbox_id=box)["state"] == "ended")  # noqa: B023

    def test_an_idle_one_is_paused_by_itself_and_the_next_call_wakes_it(self):
        box = self.ok("sandbox_create", profile="napping")["sandbox_id"]
        self.ok("sandbox_eval", sandbox_id=box, language="bash", session="s", code="x=41")
        wait_for("its pause", lambda: self.ok("sandbox_info", sandbox_id=box)["state"] == "paused")
        self.assertEqual(self.ok("sandbox_eval", sandbox_id=box, language="bash", session="s", code="echo $((x+1))")["stdout"], "42\n")

    def test_one_that_runs_a_command_is_not_paused_by_itself(self):
        box = self.ok("sandbox_create", profile="napping")["sandbox_id"]
        self.ok("sandbox_exec", sandbox_id=box, background=True, command="sleep 1000")
        time.sleep(2.5)  # there is no event for what does not happen
        self.assertEqual(self.ok("sandbox_info", sandbox_id=box)["state"], "running")


if __name__ == "__main__":
    unittest.main()
