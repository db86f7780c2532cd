"""What the kernel counts per user of the host (inotify, pending signals, message queues...): a sandbox that takes all of
one kind takes it from nobody else."""
import json
import os
import shutil
import subprocess
import tempfile
import unittest

from process_case import ProcessCase
from sandbox_case import HUTCH, SLOW, Client

# Takes one kind up to the refusal, or to `most`, says how many it got, and keeps them until it is killed.
FILL = r'''
import ctypes, errno, fcntl, json, os, tempfile, time
libc = ctypes.CDLL(None, use_errno=True)
kept, kept_fds = [], []
folder = tempfile.TemporaryDirectory(dir="/dev/shm")
def checked(result):
    if result < 0: raise OSError(ctypes.get_errno(), "")
    return result
def inotify_instances():
    checked(libc.inotify_init1(0))
def inotify_watches():  # on few files by many instances: the files would take more memory than the watches
    number = len(kept)
    if number % 2000 == 0: kept_fds.append(checked(libc.inotify_init1(0)))
    path = os.path.join(folder.name, "%d" % (number % 2000)).encode()
    if number < 2000: os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    kept.append(checked(libc.inotify_add_watch(kept_fds[-1], path, 2)))
def pending_signals():  # a timer keeps the signal ready that it will send
    checked(libc.timer_create(1, None, ctypes.byref(ctypes.c_void_p())))
def message_queues():
    name = b"/hutch-%d" % os.getpid()
    kept.append(checked(libc.mq_open(name, os.O_CREAT | os.O_RDWR, 0o600, None)))
    libc.mq_unlink(name)
def locked_memory():
    segment = checked(libc.shmget(0, 65536, 0o1600))
    libc.shmat(segment, None, 0)
    locked = libc.shmctl(segment, 11, None)
    why = ctypes.get_errno()
    libc.shmctl(segment, 0, None)  # goes with this process
    if locked < 0: raise OSError(why, "")
def pipe_buffers():  # past the soft limit a new pipe has two pages
    kept.append(os.pipe())
    if fcntl.fcntl(kept[-1][0], 1032) < 65536: raise OSError(errno.EPERM, "")
def fill(kind, most=300000):
    got, why = 0, None
    try:
        while got < most:
            globals()[kind]()
            got += 1
    except OSError as e: why = e.errno
    print(json.dumps([got, why]), flush=True)
'''
FEW = 3  # of each kind, must be there for everybody


def script(code):
    return "exec python3 - <<'END_OF_CODE'\n" + FILL + code + "\nEND_OF_CODE"


class CountsCase(ProcessCase):
    as_user = ()  # a command before the server and what else runs outside

    def take_all(self, box, kind):
        """Starts a process that holds all of `kind` that the sandbox can get; how many, and the errno at the end."""
        number = self.start(box, script(f"fill('{kind}')\ntime.sleep(1000)"))
        return json.loads(self.read_until(box, number, r"\]\n", timeout=60))

    def few_outside(self, kind):
        done = subprocess.run([*self.as_user, "/usr/bin/python3", "-c", FILL + f"fill('{kind}', {FEW})"], cwd="/",
                              capture_output=True, text=True, timeout=60 * SLOW)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def assert_taken_from_nobody(self, kind, few=FEW):
        other, greedy = self.box(), self.box()
        got, why = self.take_all(greedy, kind)
        self.assertIsNotNone(why, f"no end of {kind} after {got}: this test shows nothing")
        self.assertGreaterEqual(got, few, "the sandbox itself can use some")
        for box in (other, self.box()):  # one that was there, and one that comes later
            got = json.loads(self.sh(script(f"fill('{kind}', {few})"), sandbox_id=box))
            self.assertEqual(got, [few, None], "another sandbox")
        self.assertEqual(self.few_outside(kind), [FEW, None], "the host")
        self.ok("sandbox_destroy", sandbox_id=greedy)


@unittest.skipIf(os.geteuid() != 0, "a server without privileges has one user for all")
class AUserOfItsOwn(CountsCase):
    def test_inotify_instances_are_taken_from_nobody(self):
        self.assert_taken_from_nobody("inotify_instances")

    def test_inotify_watches_are_taken_from_nobody(self):
        self.assert_taken_from_nobody("inotify_watches")

    def test_pending_signals_are_taken_from_nobody(self):
        self.assert_taken_from_nobody("pending_signals")

    def test_message_queues_are_taken_from_nobody(self):
        self.assert_taken_from_nobody("message_queues")

    def test_locked_memory_is_taken_from_nobody(self):
        self.assert_taken_from_nobody("locked_memory")

    def test_pipe_buffers_are_taken_from_nobody(self):
        self.assert_taken_from_nobody("pipe_buffers")

    def test_no_user_namespace_may_be_made_inside_and_of_the_others_few(self):
        seen = dict(line.rsplit("/", 1)[1].split(":") for line in
                    self.sh("grep -H . /proc/sys/user/max_*_namespaces", sandbox_id=self.box()).split())
        self.assertEqual(int(seen.pop("max_user_namespaces")), 0)
        self.assertGreaterEqual(len(seen), 6)
        self.assertLessEqual(max(map(int, seen.values())), 16, seen)

    def test_info_says_how_counts_are_kept_apart(self):
        info = self.ok("sandbox_info", sandbox_id=self.box())
        said = {i["name"]: i for i in info["isolation"]}["counts"]
        self.assertTrue(said["enforced"], said)
        self.assertIn("inotify", said["detail"])


@unittest.skipIf(os.geteuid() != 0 or not shutil.which("runc"), "needs root and runc")
class AUserOfItsOwnByRunc(CountsCase):
    server_settings = {"HUTCH_OCI__RUNTIME": "runc"}

    def test_inotify_instances_are_taken_from_nobody(self):
        self.assertEqual(self.ok("sandbox_info", sandbox_id=self.box())["runtime"], "runc")
        self.assert_taken_from_nobody("inotify_instances")

    def test_open_files_and_core_dumps_are_limited(self):
        self.assertEqual(self.sh("ulimit -c; test $(ulimit -Hn) -le 65536", sandbox_id=self.box()), "0\n")


@unittest.skipIf(os.geteuid() != 0 or not shutil.which("setpriv"), "changes the user")
class OneUserForAll(CountsCase):
    """A server without privileges: its sandboxes have small shares."""
    as_user = ("setpriv", "--reuid", "65533", "--regid", "65533", "--clear-groups")

    @classmethod
    def data_folder(cls):
        home = tempfile.mkdtemp(prefix="hutch-test-")
        cls.addClassCleanup(shutil.rmtree, home, ignore_errors=True)
        os.chown(home, 65533, 65533)
        return home

    @classmethod
    def server(cls, *args, env=None, **options):
        if subprocess.run([*cls.as_user, HUTCH, "doctor"], env=cls.env(), capture_output=True, stdin=subprocess.DEVNULL,
                          timeout=60 * SLOW).returncode:
            raise unittest.SkipTest("another user can make no sandboxes here")
        return Client([*cls.as_user, HUTCH, "mcp", *args], env=cls.env(**(env or {})), **options)

    def test_inotify_instances_leave_shares_for_others(self):
        self.assert_taken_from_nobody("inotify_instances")

    def test_inotify_watches_leave_shares_for_others(self):
        self.assert_taken_from_nobody("inotify_watches")

    def test_pending_signals_leave_shares_for_others(self):
        self.assert_taken_from_nobody("pending_signals")

    def test_message_queues_leave_shares_for_others(self):
        self.assert_taken_from_nobody("message_queues", 1)

    def test_locked_memory_leaves_shares_for_others(self):
        self.assert_taken_from_nobody("locked_memory", 1)


if __name__ == "__main__":
    unittest.main()
