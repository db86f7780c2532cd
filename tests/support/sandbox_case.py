"""Base of all tests that need a real sandbox.

Each class gets a data folder and a server of its own and must leave nothing behind. $HUTCH names the binary
(default build/src/hutch), HUTCHTEST_SLOW=1 says that it is a sanitizer build: deadlines are four times as long.
"""
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
from collections import namedtuple
from pathlib import Path

sys.path.insert(0, os.path.dirname(__file__))
import leaks  # noqa: E402
from mcp_client import Client  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
HUTCH = str(Path(os.environ.get("HUTCH", ROOT / "build/src/hutch")).resolve())
SLOW = 4 if os.environ.get("HUTCHTEST_SLOW") else 1
PASSED_ON = ("PATH", "ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS", "LANG", "TERM")

slow = unittest.skipIf(os.environ.get("HUTCHTEST_SHORT"), "left out of the short form")

Result = namedtuple("Result", "text is_error structured")
_doctor = None


def doctor():
    """(exit status, text) of `hutch doctor`, asked once."""
    global _doctor
    if _doctor is None:
        done = subprocess.run([HUTCH, "doctor"], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
        _doctor = done.returncode, done.stdout + done.stderr
    return _doctor


def skip_when_impossible():
    """Skips only when hutch itself says that this host cannot run sandboxes; test_cli checks that it says so
    truly. $HUTCHTEST_REQUIRE_SANDBOX=1 turns the skip into a failure, for machines that are known to be able."""
    status, text = doctor()
    if status != 0:
        # 1 is doctor's word that it cannot be done; anything else is doctor's own failure and no reason to skip.
        if status != 1 or os.environ.get("HUTCHTEST_REQUIRE_SANDBOX"):
            raise AssertionError(f"hutch doctor, status {status}, on this host:\n{text}")
        raise unittest.SkipTest(f"hutch doctor: {text.strip()}")


def wait_for(what, condition, timeout=10):
    """Polls a condition on the host that sends no event (a process gone, a file removed)."""
    end = time.monotonic() + timeout * SLOW
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not so after {timeout * SLOW} s")
        time.sleep(0.005)
    return value


class HutchCase(unittest.TestCase):
    """A data folder per class, no server yet."""
    maxDiff = None
    program = HUTCH
    run_as = ()  # the command that makes the program somebody else's

    @classmethod
    def setUpClass(cls):
        if not os.path.exists(HUTCH):
            raise AssertionError(f"no binary {HUTCH}: build first or set $HUTCH")
        cls.home = cls.data_folder()
        cls.before = leaks.snapshot(cls.home)

    @classmethod
    def tearDownClass(cls):
        leaks.wait_clean(cls.before, cls.home)

    @classmethod
    def data_folder(cls):
        folder = tempfile.mkdtemp(prefix="hutch-test-")
        cls.addClassCleanup(shutil.rmtree, folder, ignore_errors=True)
        return folder

    @classmethod
    def env(cls, **extra):
        env = {k: os.environ[k] for k in PASSED_ON if k in os.environ}
        return {**env, "HOME": cls.home, "HUTCH_HOME": cls.home, **{k: str(v) for k, v in extra.items()}}

    @classmethod
    def hutch(cls, *args, timeout=60, env=None, **options):
        """Runs one command of the command line to its end."""
        if "input" not in options:
            options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run([*cls.run_as, cls.program, *map(str, args)], capture_output=True, text=options.pop("text", True),
                              timeout=timeout * SLOW, env=cls.env() if env is None else env, **options)

    @classmethod
    def server(cls, *args, env=None, under=(), **options):
        """A server of the test's own, run by the command `under` where one is given; the test closes it."""
        return Client([*under, *cls.run_as, cls.program, "mcp", *args], env=cls.env(**(env or {})), **options)


class SandboxCase(HutchCase):
    """A server per class as cls.client; `self.call` speaks with it."""
    results = "structured"  # what programs use; "text" is what models see
    revision = "2025-11-25"
    server_args = ()
    server_settings = {}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        skip_when_impossible()
        cls.client = cls.server("--results", cls.results, *cls.server_args, env=cls.server_settings,
                                revision=cls.revision)

    @classmethod
    def tearDownClass(cls):
        status = cls.client.close()[0]
        assert status == 0, f"server ended with status {status}\n{cls.client.stderr()}"
        super().tearDownClass()

    def call(self, tool, *, _timeout=120, **arguments):
        return call(self.client, tool, _timeout=_timeout, **arguments)

    def ok(self, tool, **arguments):
        """A call that must not be an error; its structured result, or its text in text mode."""
        result = self.call(tool, **arguments)
        self.assertFalse(result.is_error, result.text)
        return result.structured if self.results == "structured" else result.text

    def refused(self, tool, **arguments):
        """A call that must be an error; its text."""
        result = self.call(tool, **arguments)
        self.assertTrue(result.is_error, f"{tool} {arguments} was not refused:\n{result.text}")
        return result.text

    def sh(self, command, **arguments):
        """Output of a shell command in a sandbox that must exit 0."""
        done = self.ok("sandbox_exec", command=command, **arguments)
        self.assertEqual((done["end"], done.get("exit_code")), ("exited", 0), done)
        return done["stdout"]

    def python(self, code, **arguments):
        return self.sh("python3 - <<'END_OF_CODE'\n" + code + "\nEND_OF_CODE", **arguments)


def call(client, tool, *, _timeout=120, **arguments):
    return unpack(client.call_tool(tool, arguments, timeout=_timeout * SLOW))


def unpack(result):
    text = "\n".join(c["text"] for c in result["content"] if c["type"] == "text")
    return Result(text, bool(result.get("isError")), result.get("structuredContent"))
