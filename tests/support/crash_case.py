"""Base of the tests in which servers are killed: at which step, and what may be left of them when the next one has
been used and has ended."""
import contextlib
import os
import random
import shutil
import tempfile
from pathlib import Path

import leaks
from mcp_client import Closed
from sandbox_case import HUTCH, HutchCase, call, skip_when_impossible

LONG = bool(os.environ.get("HUTCHTEST_LONG"))
KILL_AT = str(Path(HUTCH).parents[1] / "tests/support/kill_at")
REACHED = 88  # kill_at's exit status: the program was killed where it was to be
SEED = int(os.environ.get("HUTCHTEST_SEED", random.randrange(1 << 32)))


def contents(home):
    """What lies in a data folder; of a root file system only that it is there."""
    found = set()
    for base, folders, files in os.walk(home):
        found.update(os.path.relpath(os.path.join(base, name), home) for name in folders + files)
        folders[:] = [name for name in folders if not name.startswith("host-")]
    return found


def spread(count, steps, rng):
    """(step, before or after) for `count` of `steps` steps, one from each of as many equal parts; for each step both in
    the long form."""
    if LONG:
        return [(n, when) for n in range(1, steps + 1) for when in ("--before", "--after")]
    count = count // 3 if os.environ.get("HUTCHTEST_SHORT") else count
    return [(1 + int((i + rng.random()) * steps / count), rng.choice(("--before", "--after"))) for i in range(count)]


def ledger_lines(home):
    """The sandboxes that all servers together count: lines of 64 bytes, of which byte 45 says that they count."""
    path = os.path.join(home, "ledger.1")
    if not os.path.exists(path):
        return []
    with open(path, "rb") as file:
        lines = iter(lambda: file.read(64), b"")
        return [line[:24].rstrip(b"\0").decode() for line in lines if line[45]]


class CrashCase(HutchCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        skip_when_impossible()
        if not os.path.exists(KILL_AT):
            raise AssertionError(f"no program {KILL_AT}: build it first")
        print(f"     seed of {cls.__name__}: HUTCHTEST_SEED={SEED}", flush=True)
        cls.rng = random.Random(SEED)
        cls.report = cls.home + ".steps"
        cls.addClassCleanup(lambda: os.path.exists(cls.report) and os.unlink(cls.report))
        cls.use_and_end()
        leaks.wait_clean(cls.before, cls.home)  # a process of the server's may remove the rest after its end
        cls.shared = contents(cls.home)  # by all servers, and kept when the last one has ended

    @classmethod
    def fresh_home(cls):
        """Another data folder, from now on."""
        shutil.rmtree(cls.home)
        cls.home = tempfile.mkdtemp(prefix="hutch-test-")
        cls.addClassCleanup(shutil.rmtree, cls.home, ignore_errors=True)

    @classmethod
    def use_and_end(cls):
        """The next server: one tool call, and a clean end. What it has taken up and not used it would leave to the next
        one: it is told to end that too."""
        with cls.server("--results", "structured") as server:
            done = call(server, "sandbox_exec", command="echo alive")
            assert not done.is_error and done.structured["stdout"] == "alive\n", done.text
            done = call(server, "sandbox_destroy", sandbox_id="*", confirm=True)
            assert not done.is_error, done.text

    def under(self, when, step=0, pattern=""):
        return [KILL_AT, when, "--report", self.report, str(step), pattern, "--"]

    def steps(self):
        with open(self.report) as file:
            return file.read().splitlines()

    def play(self, client, script):
        """Plays a script of calls until its end or the server's; whether the server was killed."""
        with contextlib.suppress(Closed, BrokenPipeError):
            script(client)
        with contextlib.suppress(BrokenPipeError):
            client.process.stdin.close()
        status = client.wait(30)
        client.close()
        self.assertIn(status, (0, REACHED), client.stderr())
        return status == REACHED

    def count_steps(self, script, pattern=""):
        self.play(self.server("--results", "structured", under=self.under("--list", 0, pattern)), script)
        self.assertGreater(len(self.steps()), 20)
        return len(self.steps())

    @contextlib.contextmanager
    def naming(self, text):
        """Says in a failure at which point it was."""
        try:
            yield
        except (AssertionError, leaks.Leak) as e:
            at = "; ".join(self.steps()) if os.path.exists(self.report) else ""
            raise AssertionError(f"{text} ({at}), HUTCHTEST_SEED={SEED}:\n{e}") from e

    def assert_nothing_left(self):
        leaks.wait_clean(self.before, self.home)
        self.assertEqual(contents(self.home), self.shared)
        self.assertEqual(ledger_lines(self.home), [])

    def finish(self):
        """What has to hold after every crash."""
        self.use_and_end()
        self.assert_nothing_left()
