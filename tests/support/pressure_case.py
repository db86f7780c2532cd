"""Memory pressure for real: a process takes memory until hutch's level is the wanted one, and what hutch then does to
sandboxes is read from the kernel's files. The host of the test says where the memory is: in a group of the test's own
(cgroup v1), or in a machine of the test's own (v2)."""
import json
import subprocess
import sys

from mcp_client import Client
from sandbox_case import HUTCH, HutchCase, call, skip_when_impossible, slow, wait_for

MIB = 1 << 20
# Far from each other, so that what the server and its sandboxes use themselves never decides; waiting for memory (PSI),
# which is the host's, counts for nothing.
LEVELS = {"warning": (30, 36), "high": (22, 27), "critical": (14, 18), "emergency": (7, 10)}
# Percent of memory that is left, by level.
LEFT = {"normal": 50, "warning": 26, "high": 18, "critical": 11, "emergency": 4}

FILLER = """
import mmap, sys
print("ready", flush=True)
held = []
for line in sys.stdin:
    while len(held) < int(line):
        block = mmap.mmap(-1, 1 << 20)
        block[::4096] = b"x" * (len(block) // 4096)
        held.append(block)
    del held[int(line):]
    print(len(held), flush=True)
"""


class Filler:
    """A process that holds as many MiB as it is told."""

    def __init__(self, prefix):
        self.process = subprocess.Popen([*prefix, sys.executable, "-c", FILLER], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, bufsize=1)
        self.held = 0
        self.process.stdout.readline()

    def hold(self, mib):
        self.held = max(0, mib)
        self.process.stdin.write(f"{self.held}\n")
        assert self.process.stdout.readline().strip() == str(self.held), "the filler has ended"

    def close(self):
        if self.process.returncode is None:
            self.process.kill()
            self.process.communicate()


class PressureCase(HutchCase):
    prefix = ()  # what starts the server and the filler where their memory counts

    # -- what the host of the test says ---------------------------------------------------------------------------

    @classmethod
    def memory(cls):
        """(bytes that there are, bytes that are left), as hutch counts them."""
        raise NotImplementedError

    def limits(self, box):
        """The kernel's files that throttling changes, and those next to them, by name."""
        raise NotImplementedError

    def asked(self, mib, cpus):
        """What they say for a sandbox that asked for so much."""
        raise NotImplementedError

    def is_throttled(self, before, now):
        raise NotImplementedError

    def unthrottle(self, box, limits):
        """Writes the limits as somebody else might."""
        raise NotImplementedError

    def is_frozen(self, box):
        raise NotImplementedError

    # -- the run --------------------------------------------------------------------------------------------------

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        skip_when_impossible()
        cls.filler = Filler(cls.prefix)
        cls.addClassCleanup(cls.filler.close)
        settings = {"HUTCH_PRESSURE__MIN_STAY_S": 0, "HUTCH_PRESSURE__INTERVAL_MS": 50, "HUTCH_PRESSURE__FLOOR": "16m",
                    "HUTCH_POOL__MAX": 1}
        for name, (enter, leave) in LEVELS.items():
            for field, value in (("ENTER", enter), ("LEAVE", leave), ("PSI", 101)):
                settings[f"HUTCH_PRESSURE__{name.upper()}__{field}"] = value
        cls.settings = settings
        cls.start_server()

    @classmethod
    def start_server(cls):
        cls.client = Client([*cls.prefix, HUTCH, "mcp", "--results", "structured"], env=cls.env(**cls.settings))

    @classmethod
    def tearDownClass(cls):
        cls.filler.close()
        status = cls.client.close()[0]
        assert status == 0, f"server ended with status {status}\n{cls.client.stderr()}"
        super().tearDownClass()

    def setUp(self):
        self.level_is("normal")  # whatever the test before has left

    def call(self, tool, **arguments):
        return call(self.client, tool, **arguments)

    def create(self, **arguments):
        # Memory that was just given back shows at the next look.
        made = wait_for("a sandbox", lambda: not (r := self.call("sandbox_create", **arguments)).is_error and r)
        box = made.structured["sandbox_id"]
        self.addCleanup(self.call, "sandbox_destroy", sandbox_id=box)
        return box

    def sh(self, box, command, **arguments):
        done = self.call("sandbox_exec", sandbox_id=box, command=command, **arguments)
        self.assertFalse(done.is_error, done.text)
        self.assertEqual(done.structured.get("exit_code"), 0, done.structured)
        return done.structured["stdout"]

    def level_is(self, level):
        """Makes so much memory be left as that level means. More than one step: what others use changes too."""
        for _ in range(3):
            there, left = self.memory()
            self.filler.hold(self.filler.held + (left - there * LEFT[level] // 100) // MIB)
            if level == "normal":
                break

    def pressure_on(self, box):
        info = self.call("sandbox_info", sandbox_id=box)
        self.assertFalse(info.is_error, info.text)
        return info.structured.get("pressure", "")

    def pool(self):
        done = self.hutch("pool", "status", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        return next((k for server in json.loads(done.stdout) for k in server["kinds"]), {"ready": 0})

    def assert_stats_tell(self, level, box):
        done = self.hutch("stats", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        server = json.loads(done.stdout)["servers"][0]
        self.assertEqual(server["pressure"]["level"], level)
        self.assertRegex(server["pressure"]["available"], r"^\d+ MB of .*\d+ MB are available")
        told = next(s["done_to_it"] for s in server["sandboxes"] if s["id"] == box)
        self.assertTrue(any("throttled to" in text for text in told), told)

    # -- what must be so on every host ----------------------------------------------------------------------------

    def test_at_warning_warm_sandboxes_are_given_up_and_kept_again_after_it(self):
        self.call("sandbox_list")  # any call begins the pool
        wait_for("a warm sandbox", lambda: self.pool()["ready"] == 1, 30)
        self.level_is("warning")
        wait_for("no warm sandbox", lambda: self.pool()["ready"] == 0)
        self.assertIn("memory pressure is warning", self.pool()["reason"])
        self.level_is("normal")
        wait_for("a warm sandbox again", lambda: self.pool()["ready"] == 1, 30)

    def test_at_high_sandboxes_are_throttled_and_get_exactly_their_limits_back(self):
        box = self.create(memory="200m", cpus=1)
        before = self.asked(200, 1)
        wait_for("its limits are in force", lambda: self.limits(box) == before and self.pressure_on(box) == "")
        self.level_is("high")
        wait_for("it is throttled", lambda: self.is_throttled(before, self.limits(box)))
        self.assertRegex(self.pressure_on(box), r"^memory pressure is high, \d+ MB of .*\d+ MB are available \(\d+ %\): throttled to .*memory \d+")
        self.assertEqual(self.sh(box, "echo it works"), "it works\n")
        later = self.create(memory="200m", cpus=1)
        wait_for("one that came since is, too", lambda: self.is_throttled(before, self.limits(later)))
        self.assert_stats_tell("high", box)
        self.unthrottle(box, before)
        wait_for("it is throttled again at the next look", lambda: self.is_throttled(before, self.limits(box)))
        self.level_is("normal")
        for one in (box, later):
            wait_for("its limits are what they were", lambda: self.limits(one) == before)
            wait_for("nothing is done to it", lambda: self.pressure_on(one) == "")

    def test_what_was_asked_for_meanwhile_is_what_returns(self):
        box = self.create(memory="200m", cpus=1)
        self.level_is("high")
        wait_for("it is throttled", lambda: self.is_throttled(self.asked(200, 1), self.limits(box)))
        changed = self.call("sandbox_update", sandbox_id=box, memory="150m", cpus=0.5)
        self.assertFalse(changed.is_error, changed.text)
        wait_for("it is throttled again", lambda: self.is_throttled(self.asked(150, 0.5), self.limits(box)))
        self.level_is("normal")
        wait_for("its new limits are in force", lambda: self.limits(box) == self.asked(150, 0.5))

    @slow
    def test_a_server_that_takes_up_throttled_and_frozen_sandboxes_gives_them_everything_back(self):
        box = self.create(memory="200m", cpus=1)
        self.level_is("critical")
        wait_for("it is frozen", lambda: self.is_frozen(box), 20)
        self.client.close("SIGKILL")
        self.assertTrue(self.is_frozen(box))
        self.level_is("normal")
        type(self).start_server()
        self.assertEqual(self.sh(box, "echo it works"), "it works\n")
        wait_for("its limits are in force", lambda: self.limits(box) == self.asked(200, 1))

    def test_at_critical_no_sandbox_is_made_and_idle_ones_are_frozen_until_their_next_call(self):
        idle, busy = self.create(memory="200m"), self.create(memory="200m")
        self.call("sandbox_exec", sandbox_id=busy, command="sleep 1000", background=True)
        self.level_is("critical")
        wait_for("the idle one is frozen", lambda: self.is_frozen(idle), 20)
        self.assertFalse(self.is_frozen(busy))
        wait_for("it is told", lambda: "frozen until its next call" in self.pressure_on(idle))
        refused = self.call("sandbox_create")
        self.assertTrue(refused.is_error, refused.text)
        self.assertRegex(refused.text, r"memory pressure is (critical|emergency): \d+ MB of .*\d+ MB are available \(\d+ %\)")
        self.assertRegex(refused.text, r"[Tt]ry again in \d+ s; it is over when 18 % are available")
        self.assertEqual(self.sh(idle, "echo it works"), "it works\n")
        wait_for("it is frozen again", lambda: self.is_frozen(idle), 20)
        self.level_is("high")
        wait_for("it is thawed", lambda: not self.is_frozen(idle))
        self.create()

    def test_at_emergency_the_one_idle_longest_is_ended_and_its_next_call_says_why(self):
        small, big = self.create(memory="200m"), self.create(memory="200m")
        self.sh(big, "head -c 50M /dev/zero > /dev/shm/held")
        self.sh(small, "true")
        self.level_is("emergency")
        wait_for("it is ended", lambda: self.call("sandbox_info", sandbox_id=big).structured["state"] == "ended", 30)
        told = self.call("sandbox_exec", sandbox_id=big, command="true")
        self.assertTrue(told.is_error)
        self.assertRegex(told.text, r"it was ended because the host ran out of memory: \d+ MB of .*\d+ MB are available")
        # It holds so little that its end would not help.
        self.assertEqual(self.sh(small, "echo it lives"), "it lives\n")
