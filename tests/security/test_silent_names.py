"""Names about which nobody answers: who asks for one is told in time, and nobody else notices."""
import time
import unittest

from egress_case import PUBLIC4, EgressCase
from sandbox_case import SLOW, call, wait_for

CONNECT_TIMEOUT_S = 2


class SilentNames(EgressCase):
    allow = ("files.example.org", "*.silent.example.org")
    server_settings = {"HUTCH_EGRESS__CONNECT_TIMEOUT_S": CONNECT_TIMEOUT_S, "HUTCH_POOL__MAX": 0}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.net.dns["files.example.org"] = PUBLIC4
        cls.net.dns.silent = {f"n{n}.silent.example.org" for n in range(10)}

    def test_who_asks_for_one_is_told_within_connect_timeout_s(self):
        start = time.monotonic()
        done = self.exec("for p in '' '--proxy socks5h://127.0.0.1:13128'; do for u in http https; do "
                         "curl -sS $p $u://n0.silent.example.org/ & done; done; wait")
        self.assertLess(time.monotonic() - start, 2 * CONNECT_TIMEOUT_S * SLOW)
        self.assertIn("the name n0.silent.example.org was not resolved within 2000 ms", done["stdout"])
        self.assertEqual({(r["host"], r["reason"]) for r in done["refused"]}, {("n0.silent.example.org", "unreachable")})
        self.assertIn("was not resolved within", "\n".join(done["notes"]))

    def test_the_reason_is_in_the_line_that_programs_show(self):
        done = self.exec("curl -sS -v https://n1.silent.example.org/ 2>&1")
        self.assertIn("504 Gateway Timeout (the name n1.silent.example.org was not resolved within", done["stdout"])

    def wait_until_asked(self, *names):
        wait_for("the name server is asked", lambda: {*names} <= {name for name, _ in self.net.dns.questions[self._questions:]})

    def test_what_else_is_asked_for_is_not_held_up(self):
        box, other = self.create(allow=[*self.allow]), self.create(allow=[*self.allow])
        names = [f"n{n}.silent.example.org" for n in (2, 3, 4)]
        asks = " ".join(f"http://{name}/{i}" for name in names for i in range(3))
        self.ok("sandbox_exec", sandbox_id=box, background=True, command=f"curl -s --parallel {asks}")
        self.wait_until_asked(*names)
        for one in box, other:
            start = time.monotonic()
            self.assertIn("GET", self.sh("curl -sS http://files.example.org/", sandbox_id=one))
            self.assertLess(time.monotonic() - start, CONNECT_TIMEOUT_S * SLOW)

    def test_a_server_with_one_pending_ends_at_once(self):
        server = self.server("--results", "structured", env={"HUTCH_POOL__MAX": 0, "HUTCH_EGRESS__CONNECT_TIMEOUT_S": 300})
        box = call(server, "sandbox_create", allow=[*self.allow]).structured["sandbox_id"]
        call(server, "sandbox_exec", sandbox_id=box, background=True, command="curl -s http://n9.silent.example.org/")
        self.wait_until_asked("n9.silent.example.org")
        start = time.monotonic()
        self.assertEqual(server.close()[0], 0)
        self.assertLess(time.monotonic() - start, 2 * SLOW)


if __name__ == "__main__":
    unittest.main()
