"""What is promised of the host, to whom, and what is said when there is no more."""
import unittest

import leaks
from sandbox_case import SLOW, HutchCase, SandboxCase, call, skip_when_impossible, unpack

NO_POOL = {"HUTCH_POOL__MAX": 0}


class Caps(SandboxCase):
    server_settings = {"HUTCH_LIMITS__SANDBOX_MEMORY": "512m", "HUTCH_LIMITS__SANDBOX_PIDS": "600",
                       "HUTCH_LIMITS__SANDBOX_DISK": "4g", "HUTCH_LIMITS__SANDBOX_CPUS": "1",
                       "HUTCH_SANDBOX__MEMORY": "256m", "HUTCH_SANDBOX__CPUS": "1"}

    def test_more_than_one_sandbox_may_have_is_refused_with_the_cap_and_its_name(self):
        for asked, most, setting in (({"memory": "513m"}, "512m", "limits.sandbox_memory"), ({"pids": 601}, "600", "limits.sandbox_pids"),
                                     ({"disk": "5g"}, "4g", "limits.sandbox_disk"), ({"cpus": 1.5}, "1", "limits.sandbox_cpus")):
            with self.subTest(asked):
                text = self.refused("sandbox_create", **asked)
                self.assertIn(f"{most} ({setting})", text)
                self.assertIn(f"Try: ask for at most {most}", text)

    def test_an_update_has_the_same_caps_and_a_refused_one_changes_nothing(self):
        box = self.ok("sandbox_create")["sandbox_id"]
        self.assertIn("limits.sandbox_memory", self.refused("sandbox_update", sandbox_id=box, memory="2g", ttl_s=77))
        info = self.ok("sandbox_info", sandbox_id=box)
        self.assertEqual(info["limits"]["memory"], "256m")
        self.assertNotIn("expires_at", info)


class HostTotals(HutchCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        skip_when_impossible()

    def serve(self, **settings):
        server = self.server("--results", "structured", env={**NO_POOL, **settings})
        self.addCleanup(lambda: server.process.poll() is None and server.close())
        return server

    def tearDown(self):
        leaks.wait_clean(self.before, self.home)

    def test_of_a_hundred_at_once_forty_are_made_and_sixty_are_told_why_not(self):
        many, room = (100, 40) if SLOW == 1 else (25, 10)
        server = self.serve(HUTCH_LIMITS__MAX_SANDBOXES=room, HUTCH_SANDBOX__MEMORY="32m", HUTCH_SANDBOX__DISK="16m",
                            HUTCH_POOL__MAX=4)
        call(server, "sandbox_list")
        calls = [server.submit_tool("sandbox_create") for _ in range(many)]
        made = [unpack(c.result(timeout=120 * SLOW)) for c in calls]
        refused = [m.text for m in made if m.is_error]
        self.assertEqual((many - len(refused), len(refused)), (room, many - room))
        for text in refused:
            self.assertRegex(text, rf"no more than {room} may be \(limits.max_sandboxes\)")
            self.assertIn("sandbox_destroy", text)
        server.close()

    def test_memory_is_promised_once_by_all_servers_together(self):
        total = int(next(line for line in open("/proc/meminfo") if line.startswith("MemTotal")).split()[1]) << 10
        ratio = 6 * (64 << 20) / total  # room for six of 64 MiB
        settings = {"HUTCH_LIMITS__MEMORY_OVERCOMMIT": max(ratio, 0.1), "HUTCH_SANDBOX__DISK": "16m"}
        each = f"{max(64 << 20, int(0.1 * total) // 6) >> 20}m"
        one, two = self.serve(**settings), self.serve(**settings)
        for server in (one, two, one, two, one):
            made = call(server, "sandbox_create", memory=each)
            self.assertFalse(made.is_error, made.text)
        last = made.structured["sandbox_id"]
        self.assertIn("limits.memory_overcommit", call(two, "sandbox_create", memory=f"{int(each[:-1]) * 2}m").text)
        self.assertIn("limits.memory_overcommit", call(one, "sandbox_update", sandbox_id=last, memory=f"{int(each[:-1]) * 3}m").text)
        self.assertFalse(call(one, "sandbox_destroy", sandbox_id=last).is_error)
        self.assertFalse(call(two, "sandbox_create", memory=f"{int(each[:-1]) * 2 - 2}m").is_error, "what was given back is free")
        one.close()
        two.close()

    def test_what_a_killed_server_had_counts_until_it_is_removed(self):
        settings = {"HUTCH_LIMITS__MAX_SANDBOXES": 2}
        one = self.serve(**settings)
        for _ in range(2):
            self.assertFalse(call(one, "sandbox_create").is_error)
        one.kill(9)
        one.close()
        two = self.serve(**settings)
        self.assertIn("limits.max_sandboxes", call(two, "sandbox_create").text)
        self.assertFalse(call(two, "sandbox_destroy", sandbox_id="*", confirm=True).is_error)
        self.assertFalse(call(two, "sandbox_create").is_error)
        two.close()

    def test_disk_is_promised_up_to_what_is_free(self):
        server = self.serve(HUTCH_LIMITS__DISK_OVERCOMMIT=0.1)
        text = call(server, "sandbox_create", disk="8t").text
        self.assertRegex(text, r"disk of .* cannot be promised.*limits.disk_overcommit")
        server.close()


if __name__ == "__main__":
    unittest.main()
