"""A server that is killed at any moment costs nobody else anything, and the next one leaves nothing of it behind."""
import contextlib
import fcntl
import glob
import json
import os
import re
import signal
import subprocess
import threading
import time

from crash_case import LONG, REACHED, CrashCase, contents, spread
from mcp_client import Closed
from sandbox_case import HUTCH, SLOW, call, wait_for

REMOVAL = "^(unlink|rmdir|rename|kill|signal|flock|write|ioctl) "
KILLED = (Closed, BrokenPipeError)


def work(client):
    """A bit of everything that leaves a trace outside of the server."""
    def ok(tool, **arguments):
        done = call(client, tool, **arguments)
        assert not done.is_error, done.text
        return done.structured

    made = ok("sandbox_create", name="box", ttl_s=600, labels={"team": "red"})
    enforced = {i["name"] for i in made["isolation"] if i["enforced"]}
    limits = {"memory": "96m"} if {"memory", "swap"} <= enforced else {}
    ok("sandbox_write_file", sandbox_id="box", path="mine", content="x")
    ok("sandbox_exec", sandbox_id="box", command="mkdir -p a/b && cat mine")
    ok("sandbox_exec", sandbox_id="box", command="sleep 1000", background=True)
    ok("sandbox_eval", sandbox_id="box", language="bash", session="s", code="x=1")
    if any(tool["name"] == "sandbox_update" for tool in client.list_tools()):
        ok("sandbox_update", sandbox_id="box", ttl_s=900, **limits)
    ok("sandbox_create", name="other", **limits)
    ok("sandbox_destroy", sandbox_id="other")
    ok("sandbox_exec", command="echo in the default one")
    ok("sandbox_destroy", sandbox_id="box")


def leave(client):
    """What a dead server leaves: two that work, one at rest, and the warm ones."""
    for name in ("one", "two", "three"):
        assert not call(client, "sandbox_create", name=name).is_error
    for name in ("one", "two"):
        call(client, "sandbox_exec", sandbox_id=name, command="mkdir -p a/b; sleep 1000", background=True)


class AtEachStep(CrashCase):
    def kill_each(self, points, script, after=lambda: None):
        reached = 0
        for step, when in points:
            with self.naming(f"killed {when[2:]} step {step}"):
                reached += self.play(self.server("--results", "structured", under=self.under(when, step)), script)
                after()
                self.finish()
        return reached

    def test_of_its_work_nothing_is_left(self):
        points = spread(25, self.count_steps(work), self.rng)
        # Refills of the pool come and go with the machine's speed: the last steps are not always there.
        self.assertGreater(self.kill_each(points, work), len(points) // 2)

    def test_of_the_first_start_on_a_data_folder_nothing_is_left(self):
        self.fresh_home()
        first = lambda client: call(client, "sandbox_exec", command="true")  # noqa: E731
        points = spread(6, self.count_steps(first), self.rng)
        points = self.rng.sample(points, min(40, len(points)))  # a fresh folder takes a thousand steps
        for point in points:
            self.fresh_home()
            self.kill_each([point], first)


class OnAFreshDataFolder(CrashCase):
    def test_two_servers_that_start_at_once_leave_what_one_leaves(self):
        for _ in range(10 if LONG else 2):
            self.fresh_home()
            two = [self.server("--results", "structured") for _ in range(2)]
            calls = [server.submit_tool("sandbox_exec", {"command": "echo on"}) for server in two]
            for done in calls:
                self.assertEqual(done.result(60 * SLOW)["structuredContent"]["stdout"], "on\n")
            for server in two:
                self.assertEqual(server.close()[0], 0)
            self.assert_nothing_left()

    def test_one_that_ends_in_the_middle_of_its_first_call_leaves_nothing_for_the_second(self):
        for pause_s in (0, 0.01, 0.03, 0.1, 0.3):
            self.fresh_home()
            server = self.server("--results", "structured")
            server.submit_tool("sandbox_exec", {"command": "echo on"})
            time.sleep(pause_s)  # another moment of the first preparations each time
            self.assertEqual(server.close()[0], 0)
            self.finish()


class WhileTheNextOneCleansUp(CrashCase):
    def dead_server(self):
        """The folder that a killed server leaves."""
        client = self.server("--results", "structured")
        leave(client)
        client.kill(signal.SIGKILL)
        client.wait()
        client.close()
        folder, = glob.glob(f"{self.home}/servers/*")
        return folder

    def clean(self, client):
        """Takes up what lives and removes the rest, then all of it."""
        call(client, "sandbox_list")
        call(client, "sandbox_destroy", sandbox_id="*", confirm=True)

    def test_it_is_killed_too_and_the_third_one_finishes(self):
        self.dead_server()
        points = spread(8, self.count_steps(self.clean, REMOVAL), self.rng)
        for step, when in points:
            self.dead_server()
            with self.naming(f"the second server killed {when[2:]} step {step}"):
                self.play(self.server("--results", "structured", under=self.under(when, step, REMOVAL)), self.clean)
                self.finish()

    def remover(self, folder, when, step=0):
        """`hutch --remove`, as a server starts it at its end: with the lock, when the server is dead and has marked
        its sandboxes."""
        for path in glob.glob(f"{folder}/sandboxes/*/record"):
            with open(path, "r+") as file:
                if lines := file.read().splitlines():
                    file.write(json.dumps({**json.loads(lines[-1]), "state": "ending"}) + "\n")
        with open(f"{folder}/lock", "r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            done = subprocess.run(["bash", "-c", f'exec 3<&{lock.fileno()} 4</dev/null && exec "$@"', "bash",
                                   *self.under(when, step), HUTCH, "--remove", folder],
                                  # A program that is traced cannot be looked over for leaks.
                                  env={**self.env(), "ASAN_OPTIONS": "detect_leaks=0"}, pass_fds=[lock.fileno()],
                                  timeout=60 * SLOW)
        self.assertIn(done.returncode, (0, REACHED))

    def test_a_remover_that_is_killed_leaves_the_rest_to_the_next_server(self):
        self.remover(self.dead_server(), "--list")
        self.assert_nothing_left()
        self.assertGreater(len(self.steps()), 20)
        for step, when in spread(8, len(self.steps()), self.rng):
            folder = self.dead_server()
            with self.naming(f"the remover killed {when[2:]} step {step}"):
                self.remover(folder, when, step)
                self.finish()

    def test_of_two_that_start_at_once_exactly_one_takes_each_sandbox(self):
        for _ in range(20 if LONG else 3):
            dead = {os.path.basename(p) for p in glob.glob(self.dead_server() + "/sandboxes/*")}
            two = [self.server("--results", "structured", env={"HUTCH_LOG_LEVEL": "info"}) for _ in range(2)]
            calls = [server.submit_tool("sandbox_list", {}) for server in two]
            taken = []
            for server, listing in zip(two, calls):
                boxes = listing.result(60 * SLOW)["structuredContent"]["sandboxes"]
                taken += [box["sandbox_id"] for box in boxes]
                taken += re.findall(r"removed (?:the leftover sandbox )?(sbx-\w+)", server.stderr(100_000))
            for server in two:
                self.assertEqual(server.close()[0], 0)
            self.assertEqual(sorted(taken), sorted(dead))
            self.finish()


class Worker(threading.Thread):
    """A client with a server of its own, as hosts have it: makes sandboxes, works in them and looks whether its
    work is still there. When its server is killed it starts the next one."""

    def __init__(self, case, number, known):
        super().__init__()
        self.case, self.number, self.known = case, number, known
        self.rounds, self.serial, self.killed, self.took = 0, 0, False, 0.5
        self.enough, self.problem, self.lock = threading.Event(), None, threading.Lock()
        self.client = case.server("--results", "structured")

    def kill(self):
        with self.lock:
            self.killed = True
            self.client.kill(signal.SIGKILL)

    def run(self):
        try:
            while not self.enough.is_set():
                try:
                    self.round()
                except KILLED:
                    self.next_server()
            with contextlib.suppress(*KILLED):
                self.client.close()
        except Exception as e:  # the main thread tells it
            self.problem = e

    def next_server(self):
        with self.lock:
            if not self.killed:
                raise AssertionError(f"a server that nobody killed ended: {self.client.stderr()}")
            self.client.close("SIGKILL")
            self.current = None
            self.client, self.killed = self.case.server("--results", "structured"), False
        # What it took up of dead ones is as they left it, and nothing of a living one.
        with contextlib.suppress(*KILLED):
            for box in self.ok("sandbox_list")["sandboxes"]:
                owner = next(w for w in self.case.workers if box["name"].startswith(f"w{w.number}-"))
                assert owner.current != box["name"] or owner.killed or owner is self, f"{box} is of a living server"
                if content := self.known.get(box["name"]):
                    self.look(box["name"], content)
                self.known.pop(box["name"], None)
                self.ok("sandbox_destroy", sandbox_id=box["sandbox_id"])

    current = None

    def ok(self, tool, **arguments):
        done = call(self.client, tool, **arguments)
        if done.is_error:
            raise AssertionError(f"{tool} {arguments}: {done.text}")
        return done.structured

    def look(self, name, content):
        read = self.ok("sandbox_exec", sandbox_id=name, command="cat mine; hostname >/dev/null")
        assert read["stdout"] == content, f"{name}: {read}"

    def round(self):
        start = time.monotonic()
        self.serial += 1
        name = f"w{self.number}-{self.serial}"
        self.current = name
        box = self.ok("sandbox_create", name=name)["sandbox_id"]
        content = f"{name} {box}\n"
        self.ok("sandbox_write_file", sandbox_id=name, path="mine", content=content)
        self.known[name] = content
        self.ok("sandbox_exec", sandbox_id=name, command="sleep 1000", background=True)
        for _ in range(3):
            self.look(name, content)
        listed = {b["name"]: b["sandbox_id"] for b in self.ok("sandbox_list")["sandboxes"]}
        assert listed.get(name) == box, f"{name} {box} is not among {listed}"
        del self.known[name]
        self.ok("sandbox_destroy", sandbox_id=name)
        self.rounds, self.took = self.rounds + 1, time.monotonic() - start


class AtRandomTimes(CrashCase):
    def test_living_servers_keep_what_is_theirs_and_at_the_end_nothing_is_left(self):
        self.workers = []
        known = {}
        self.workers += [Worker(self, number, known) for number in range(4)]
        for worker in self.workers:
            worker.start()
        kills, wanted = 0, 200 if LONG else 6 if os.environ.get("HUTCHTEST_SHORT") else 20
        with self.naming("killed at random times"):
            while kills < wanted and not any(w.problem for w in self.workers):
                # The moments are what is tried: within a round or two of one worker's.
                time.sleep(self.rng.uniform(0, 1.5) * max(w.took for w in self.workers))
                for worker in self.rng.sample(self.workers, self.rng.choice((1, 1, 2))):
                    if not worker.killed:
                        worker.kill()
                        kills += 1
            for worker in self.workers:
                worker.enough.set()
            for worker in self.workers:
                worker.join(120 * SLOW)
                worker.client.close()
            self.assertEqual([w.problem for w in self.workers], [None] * 4)
            self.assertGreater(sum(w.rounds for w in self.workers), wanted // 10)
            self.finish()
