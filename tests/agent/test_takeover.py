"""A server is killed, and the next one goes on with the agent and its commands."""

import array
import contextlib
import fcntl
import json
import os
import random
import select
import signal
import subprocess
import termios
import threading
import time

import support
import sandbox
from wire import FILL, HEADER, KEPT, TYPES, VERSION, Timeout

HOST = os.path.abspath(os.environ["HUTCHTEST_HOST"])
LONG = bool(os.environ.get("HUTCHTEST_LONG"))
OWN_LOGS = "mount -t tmpfs none /var/log || exit 9;"
COUNTER = "i=0; while [ ! -e {stop} ]; do for k in 1 2 3 4 5; do i=$((i+1)); echo $i; done; sleep 0.002; done; exit 7"


class HostError(Exception):
    pass


class Host:
    """One server: answers by the number of the request, and what its record would hold last."""

    def __init__(self, folder, pid, kept=None, deadline_ms=20_000):
        arguments = [] if kept is None else [json.dumps(kept), str(deadline_ms)]
        self.process = subprocess.Popen([HOST, folder, str(pid), *arguments], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.changed = threading.Condition()
        self.answers, self.kept, self.first, self.over, self.requests = {}, kept or [], None, False, 0
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            with contextlib.suppress(json.JSONDecodeError):  # it was killed
                self._note(json.loads(line))
        with self.changed:
            self.over = True
            self.changed.notify_all()

    def _note(self, message):
        with self.changed:
            if "id" in message:
                self.answers[message["id"]] = message
            elif "kept" in message:
                self.kept = message["kept"]
            else:
                self.first = message
            self.changed.notify_all()

    def ready(self, timeout=60):
        with self.changed:
            assert self.changed.wait_for(lambda: self.first or self.over, timeout), "not ready"
        if not self.first or "error" in self.first:
            raise HostError(self.first)
        return self

    def call(self, do, **arguments):
        self.requests += 1
        with contextlib.suppress(BrokenPipeError):  # it was killed
            self.process.stdin.write(json.dumps({"id": self.requests, "do": do, **arguments}) + "\n")
            self.process.stdin.flush()
        return self.requests

    def result(self, request, timeout=60):
        with self.changed:
            assert self.changed.wait_for(lambda: request in self.answers or self.over, timeout), "no answer"
            message = self.answers[request]
        if "error" in message:
            raise HostError(message["error"])
        return message["answer"]

    def ask(self, do, **arguments):
        return self.result(self.call(do, **arguments))

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.reader.join()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()
        return self.kept


class Takeover(support.SandboxTest):
    def setUp(self):
        self.use(sandbox.Sandbox(before=OWN_LOGS))
        self.sandbox.disconnect(self.sandbox.client)
        self.hosts = []
        self.addCleanup(self.kill_hosts)
        self.host = self.start()
        self.stop = self.folder + "/stop"

    def kill_hosts(self):
        for host in self.hosts:
            host.kill()

    def start(self, kept=None, **options):
        host = Host(self.sandbox.folder, self.sandbox.agent_pid(), kept, **options)
        self.hosts.append(host)
        return host.ready()

    def next_host(self, **options):
        """Kills the server; the next one knows what that one had recorded."""
        self.host = self.start(self.host.kill(), **options)
        return self.host

    def background(self, command, **options):
        return self.host.ask("background", command=command, **options)["process_id"]

    def read_until(self, number, text):
        """All that a command printed, once `text` is in it."""
        end = time.monotonic() + 20
        while text not in (printed := self.host.ask("read", number=number, **{"from": 0})["bytes"]):
            if time.monotonic() > end:
                raise Timeout(f"no {text!r} in {printed[-200:]!r}")
        return printed

    def end_all(self):
        for process in self.host.ask("list"):
            self.host.ask("end_tree", number=process["number"])

    def test_a_background_process_goes_on_and_none_of_its_output_is_lost(self):
        number = self.background(COUNTER.format(stop=self.stop))
        for _ in range(3):
            self.read_until(number, "\n20\n")
            self.next_host()
        open(self.stop, "w").close()
        end = self.host.ask("wait", number=number)
        self.assertEqual((end["end"], end["exit_code"]), ("exited", 7))
        lines = self.host.ask("read", number=number, **{"from": 0})["bytes"].split()
        self.assertEqual(lines, [str(i + 1) for i in range(len(lines))])

    def test_how_it_ended_without_a_server_is_told_and_how_long_it_ran(self):
        number = self.background("cat; exit 3")
        self.host.ask("end_input", number=number)
        kept = self.host.kill()
        time.sleep(0.5)  # in which nothing may be counted
        self.host = self.start(kept)
        end = self.host.ask("wait", number=number)
        self.assertEqual((end["exit_code"], end["signal"]), (3, 0))
        self.assertLess(end["ms"], 500)

    def test_stored_output_does_not_wait_for_a_server(self):
        number = self.background(f"head -c 1000000 /dev/zero | tr '\\0' x; touch {self.stop}; sleep 300")
        self.next_host()
        kept = self.host.kill()
        end = time.monotonic() + 20
        while not os.path.exists(self.stop):
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)
        self.host = self.start(kept)
        self.assertEqual(self.host.ask("read", number=number, bytes=1)["printed"], 1_000_000)
        self.end_all()

    def test_standard_input_works_as_before(self):
        number = self.background("while read x; do echo got $x; done; echo over")
        self.assertEqual(self.host.ask("write", number=number, input="one\n"), 4)
        self.read_until(number, "got one")
        self.next_host()
        self.assertEqual(self.host.ask("write", number=number, input="two\n"), 4)
        self.read_until(number, "got two")
        self.host.ask("end_input", number=number)
        self.next_host()
        self.assertEqual(self.host.ask("wait", number=number)["exit_code"], 0)
        self.assertTrue(self.host.ask("list")[0]["input_ended"])
        self.assertEqual(self.read_until(number, "over"), "got one\ngot two\nover\n")

    def test_much_input_is_neither_lost_nor_written_twice(self):
        number = self.background(f"while [ ! -e {self.stop} ]; do sleep 0.01; done; md5sum")
        self.host.ask("write", number=number, input="x" * 50_000)
        self.next_host()
        waiting = self.host.call("write", number=number, input="y" * 200_000)
        open(self.stop, "w").close()
        self.assertEqual(self.host.result(waiting), 200_000)
        self.host.ask("end_input", number=number)
        self.host.ask("wait", number=number)
        expected = subprocess.run(["md5sum"], input=b"x" * 50_000 + b"y" * 200_000, capture_output=True).stdout
        self.assertEqual(self.read_until(number, "-"), expected.decode())

    def test_a_terminal_shows_its_screen_again(self):
        number = self.background("echo first; printf '\\033[2;5Hsecond'; read x; echo typed $x; sleep 300", terminal=True)
        self.read_until(number, "second")
        before = self.host.ask("screen", number=number)
        self.next_host()
        self.assertTrue(self.host.ask("list")[0]["has_terminal"])
        self.assertEqual(self.host.ask("screen", number=number), before)
        self.host.ask("write", number=number, input="x\r")
        self.read_until(number, "typed x")
        self.end_all()

    def test_the_command_of_a_call_that_died_is_ended(self):
        self.host.call("run", command="trap '' TERM; while :; do sleep 300; done")
        self.wait_for(["sleep"])
        self.next_host()
        self.wait_for([])
        self.assertEqual(self.host.ask("list"), [])

    def test_an_unrecorded_background_process_is_listed(self):
        number = self.background("sleep 300")
        self.host.kill()
        self.host = self.start([])
        [process] = self.host.ask("list")
        self.assertEqual((process["number"], process["title"]), (number, "a command of the server before"))
        self.end_all()

    def test_what_a_call_left_running_is_listed(self):
        number = self.host.ask("run", command="sleep 300 & echo left")["process_id"]
        self.assertEqual(self.next_host().ask("list")[0]["number"], number)
        self.end_all()

    def test_numbers_go_on_above_those_that_have_logs(self):
        old = self.host.ask("run", command="echo 1; sleep 300 &")["log"]
        logs = [self.host.ask("run", command="echo x; sleep 300 &")["log"] for _ in range(3)]
        self.end_all()
        self.next_host()
        result = self.host.ask("run", command="echo new; sleep 300 &")
        self.assertNotIn(result["log"], [old, *logs])
        self.assertEqual(self.host.ask("run", command="cat " + result["log"])["out"], "new\n")
        self.end_all()

    def test_ended_processes_are_still_told_of(self):
        number = self.background("sleep 300")
        self.host.ask("end_tree", number=number)
        self.next_host()
        self.assertFalse(self.host.ask("list")[0]["running"])
        self.assertEqual(self.host.ask("wait", number=number)["signal"], signal.SIGKILL)

    def test_variables_of_an_idle_session_live_on(self):
        for language, code, value in (("python", "x = 41", "x + 1"), ("bash", "x=41", "echo $((x + 1))")):
            self.host.ask("eval", language=language, session="s", code=code)
            self.next_host()
            result = self.host.ask("eval", language=language, session="s", code=value)
            self.assertEqual((result["value"] or result["out"].strip(), result["new"]), ("42", False))
        self.end_all()

    def test_a_session_at_work_ends_with_its_call(self):
        self.host.ask("eval", language="python", session="s", code="x = 41")
        self.host.call("eval", language="python", session="s", code="import subprocess; subprocess.run(['sleep', '300'])")
        self.wait_for(["python3", "sleep"])
        self.next_host()
        self.wait_for([])
        result = self.host.ask("eval", language="python", session="s", code="'x' in globals()")
        self.assertEqual((result["value"], result["new"]), ("False", True))
        self.end_all()

    def test_killed_in_the_middle_of_bulk_data(self):
        path = self.folder + "/big"
        for _ in range(5):
            self.begin_bulk(path)
            self.next_host()
            self.assertEqual(self.host.ask("run", command=f"ls -A {self.folder}")["out"], "")

    def test_with_full_fifos_both_ways(self):
        self.host.ask("flood")
        self.wait_for(["yes"])
        self.begin_bulk(self.folder + "/big")
        os.kill(self.sandbox.agent_pid(), signal.SIGSTOP)
        self.wait_for_full_fifo()
        kept = self.host.kill()
        with self.assertRaisesRegex(HostError, "agent does not answer"):
            self.start(kept, deadline_ms=300)
        os.kill(self.sandbox.agent_pid(), signal.SIGCONT)
        self.hosts[-1].kill()
        self.host = self.start(kept)
        self.wait_for([])
        self.assertEqual(self.host.ask("run", command="echo alive")["out"], "alive\n")

    def begin_bulk(self, path):
        self.host.call("write_file", path=path, bytes=100_000_000)
        end = time.monotonic() + 20
        while not os.listdir(self.folder):
            self.assertLess(time.monotonic(), end)

    def wait_for_full_fifo(self):
        reader = os.open(self.sandbox.fifo_in, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, reader)
        size, end = fcntl.fcntl(reader, fcntl.F_GETPIPE_SZ), time.monotonic() + 20
        waiting = array.array("i", [0])
        while waiting[0] < size * 9 // 10:  # pages are not filled to their ends
            self.assertLess(time.monotonic(), end)
            fcntl.ioctl(reader, termios.FIONREAD, waiting)

    def test_one_host_at_a_time(self):
        with self.assertRaisesRegex(HostError, "conflict"):
            self.start([])
        self.assertEqual(self.host.ask("run", command="echo mine")["out"], "mine\n")

    def test_an_agent_of_another_version_is_told_apart(self):
        with FakeAgent(self.folder, VERSION + 1), self.assertRaisesRegex(HostError, "another version of hutch"):
            host = Host(self.folder, os.getpid(), [])
            self.hosts.append(host)
            host.ready()

    def test_an_agent_that_is_gone_is_noticed_at_once(self):
        os.kill(self.sandbox.agent_pid(), signal.SIGKILL)
        self.sandbox.process.wait()
        self.host.kill()
        begin = time.monotonic()
        with self.assertRaisesRegex(HostError, "agent has ended"):
            host = Host(self.sandbox.folder, os.getpid(), [])
            self.hosts.append(host)
            host.ready()
        self.assertLess(time.monotonic() - begin, 5)

    def test_a_link_or_a_file_in_place_of_a_fifo_is_refused(self):
        self.host.kill()
        os.rename(self.sandbox.fifo_out, self.sandbox.folder + "/real")
        os.symlink("real", self.sandbox.fifo_out)
        with self.assertRaisesRegex(HostError, "ELOOP"):
            self.start([])
        os.unlink(self.sandbox.fifo_out)
        open(self.sandbox.fifo_out, "w").close()
        with self.assertRaisesRegex(HostError, "not a FIFO"):
            self.start([])

    def test_killed_at_random_times(self):
        """Seeded as the run says. Also in the middle of a takeover, with the record of the one before."""
        seed = random.randrange(1 << 32)
        dice = random.Random(seed)
        counter = self.background(COUNTER.format(stop=self.stop))
        echo = self.background("while read x; do echo $x; done")
        for round_ in range(500 if LONG else 50):
            with self.subTest(seed=seed, round=round_):
                self.go_on_for(dice)
        self.next_host()
        open(self.stop, "w").close()
        self.assertEqual(self.host.ask("wait", number=counter)["exit_code"], 7)
        self.check_count(counter)
        self.host.ask("write", number=echo, input="last\n")
        self.read_until(echo, "last\n")
        self.end_all()
        self.wait_for([])
        listed = {process["number"] for process in self.host.ask("list")}
        self.host.kill()
        self.assertEqual(self.numbers_at_agent(), listed)

    def numbers_at_agent(self):
        client = self.sandbox.connect(takeover=True)
        client.ping()
        # What was being ended may not have told the agent yet; if it is there to stay, this does not end.
        for stream, messages in client.queues.items():
            if messages and messages[0][0] == "started" and not messages[0][2].state & KEPT:
                client.collect(stream)
                client.expect("tree_gone", stream)
        announced = {stream: messages[0][2] for stream, messages in client.queues.items() if messages}
        return {started.number for started in announced.values()}

    def go_on_for(self, dice):
        """A server does something or other and is killed; the next one is begun."""
        for _ in range(dice.randrange(4)):
            do, arguments = dice.choice([
                ("run", {"command": "sleep 300"}), ("run", {"command": "sleep 0.01; sleep 300 & echo x"}),
                ("background", {"command": "cat"}), ("flood", {}),
                ("write_file", {"path": self.folder + "/file", "bytes": 3_000_000}),
                ("read", {"number": 1}), ("write", {"number": 2, "input": "x" * dice.randrange(5000) + "\n"})])
            self.host.call(do, **arguments)
        time.sleep(dice.random() * 0.06)
        kept = self.host.kill()
        self.host = Host(self.sandbox.folder, self.sandbox.agent_pid(), kept)
        self.hosts[:] = [self.host]
        if dice.random() < 0.7:
            self.host.ready()

    def check_count(self, number):
        place, lines = 0, b""
        while piece := self.host.ask("read", number=number, bytes=100_000, **{"from": place})["bytes"]:
            place += len(piece)
            lines += piece.encode()
        lines = lines.split()
        self.assertEqual(lines, [b"%d" % (i + 1) for i in range(len(lines))])

    def wait_for(self, names):
        """Waits until just these programs run inside, shells aside."""
        end = time.monotonic() + 20
        while (found := sorted(set(self.sandbox.processes()) - {"hutch-super", "bash"})) != names:
            if time.monotonic() > end:
                self.fail(f"{found} run instead of {names}")
            time.sleep(0.005)


class FakeAgent:
    """Answers each hello as an agent of `version` does."""

    def __init__(self, folder, version):
        self.version = version
        paths = [os.path.join(folder, name) for name in ("to-agent", "from-agent")]
        for path in paths:
            os.mkfifo(path, 0o600)
        self.input = os.open(paths[0], os.O_RDWR)
        self.output = os.open(paths[1], os.O_RDWR)
        self.thread = threading.Thread(target=self._serve)

    def _serve(self):
        seen = b""
        while len(seen) < len(FILL) + HEADER.size:
            assert select.select([self.input], [], [], 20)[0], "no hello"
            seen += os.read(self.input, 1 << 16)
        size, stream, epoch, kind, *_ = HEADER.unpack_from(seen, len(FILL))
        assert (size, stream, kind) == (17, 0, TYPES["hello"]), "no hello"
        os.write(self.output, b"rest of a frame" + HEADER.pack(4, 0, epoch, TYPES["welcome"], 0, self.version, 0))

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        self.thread.join()
        os.close(self.input)
        os.close(self.output)


if __name__ == "__main__":
    support.main()
