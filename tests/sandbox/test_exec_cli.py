"""`hutch exec`: a person in a sandbox of a running server."""
import contextlib
import fcntl
import glob
import json
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import termios
import time
import uuid

from sandbox_case import HUTCH, SLOW, HutchCase, SandboxCase, call, leaks, skip_when_impossible, wait_for

WINDOW = 64 << 10  # of input
LARGEST = 32 << 10  # of one frame


def set_size(fd, rows, columns):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


class Attached:
    """`hutch exec` under way, on pipes. What it prints is read as it comes."""

    def __init__(self, case, *args, stdin=subprocess.DEVNULL, **options):
        self.process = subprocess.Popen([HUTCH, "exec", *args], stdin=stdin, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, env=case.env(), **options)
        self.source = self.process.stdout.fileno()
        self.seen = b""
        case.addCleanup(self.close)

    def read(self):
        ready, _, _ = select.select([self.source], [], [], 20 * SLOW)
        assert ready, f"nothing more came after {self.seen[-2000:]!r}"
        try:
            return os.read(self.source, 65536)
        except OSError:  # a terminal that nobody has open any more
            return b""

    def until(self, text):
        """Everything up to `text`, which must come."""
        while text not in self.seen:
            piece = self.read()
            assert piece, f"{text!r} did not come: {self.seen!r} {self.rest()!r}"
            self.seen += piece
        at = self.seen.index(text) + len(text)
        before, self.seen = self.seen[:at], self.seen[at:]
        return before

    def rest(self):
        return self.process.stderr.read() if self.process.stderr else b""

    def write(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def wait(self):
        return self.process.wait(20 * SLOW)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for end in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(OSError):
                if end:
                    end.close()


class Terminal(Attached):
    """`hutch exec -t` on a terminal of ours."""

    def __init__(self, case, *args, rows=24, columns=80, env=None):
        self.master, self.slave = pty.openpty()
        set_size(self.slave, rows, columns)
        self.before = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen(
            [HUTCH, "exec", "-it", *args], stdin=self.slave, stdout=self.slave, stderr=self.slave,
            env=env or case.env(TERM="xterm"), start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        self.source, self.seen = self.master, b""
        case.addCleanup(self.close)

    def write(self, data):
        os.write(self.master, data)

    def rest(self):
        return b""

    def settings(self):
        return termios.tcgetattr(self.slave)

    def is_raw(self):
        return not self.settings()[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def close(self):
        super().close()
        os.close(self.master)
        os.close(self.slave)


class ExecCase(SandboxCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.box = call(cls.client, "sandbox_create", name="box").structured["sandbox_id"]

    def exec(self, *args, **options):
        return self.hutch("exec", *args, **options)

    def unique(self):
        """A command that sleeps, and can be told from others."""
        return ["sleep", str(100_000 + uuid.uuid4().int % 1_000_000_000)]

    def sh(self, command, sandbox_id="box"):
        return super().sh(command, sandbox_id=sandbox_id)

    def running(self, command):
        """How many processes of the sandbox have this command line."""
        return self.sh("ps -eo args=").splitlines().count(" ".join(command))

    def wait_stalled(self, which):
        """Until a process, found by pgrep, prints no more, because nobody takes it."""
        def printed():
            return self.sh(f"cat /proc/$(pgrep {which})/io | grep wchar")

        def same():
            before = printed()
            time.sleep(0.2)  # no event says that nothing happens
            return printed() == before
        wait_for("a command to wait", same, 30)

    def wait_running(self, command, count=1):
        wait_for(f"{count} of {command}", lambda: self.running(command) == count)


class Pipes(ExecCase):
    def test_output_and_exit_code_are_the_commands(self):
        done = self.exec("box", "sh", "-c", "echo out; echo err >&2; exit 7")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (7, "out\n", "err\n"))
        self.assertEqual(self.exec(self.box, "true").returncode, 0)

    def test_a_signal_that_ended_it_is_128_and_the_signal(self):
        self.assertEqual(self.exec("box", "sh", "-c", "kill -KILL $$").returncode, 137)

    def test_a_missing_command_is_127_and_one_that_cannot_be_run_126(self):
        missing = self.exec("box", "no-such-program-at-all")
        self.assertEqual((missing.returncode, missing.stdout), (127, ""))
        self.assertIn("no-such-program-at-all", missing.stderr)
        self.assertEqual(self.exec("box", "/etc/passwd").returncode, 126)

    def test_options_behind_the_sandbox_are_the_commands(self):
        done = self.exec("box", "echo", "-i", "--env", "-t", "--", "x")
        self.assertEqual((done.returncode, done.stdout), (0, "-i --env -t -- x\n"))
        self.assertEqual(self.exec("box", "--", "echo", "-n", "y").stdout, "y")

    def test_it_runs_where_and_with_what_the_sandboxs_commands_run(self):
        made = self.ok("sandbox_create", env={"COLOUR": "blue"}, workdir="deep/er")
        show = ("sh", "-c", "echo $COLOUR $SIZE $(pwd)")
        self.assertEqual(self.exec(made["sandbox_id"], *show).stdout, "blue /workspace/deep/er\n")
        done = self.exec("--env", "SIZE=big", "--env=COLOUR=a=b", "--workdir", "..", made["sandbox_id"], *show)
        self.assertEqual(done.stdout, "a=b big /workspace/deep\n", done.stderr)

    def test_nothing_of_the_persons_environment_is_passed_on(self):
        done = self.exec("box", "env", env=self.env(SECRET_OF_MINE="x"))
        self.assertEqual(done.returncode, 0)
        self.assertNotIn("SECRET_OF_MINE", done.stdout)

    def test_standard_input_is_passed_on_with_i_only(self):
        self.assertEqual(self.exec("box", "cat", input="hello").stdout, "")
        self.assertEqual(self.exec("-i", "box", "cat", input="hello").stdout, "hello")

    def test_a_megabyte_goes_in_and_comes_out_byte_for_byte(self):
        for size in (0, 1, WINDOW, WINDOW + 1, 1 << 20, 5_000_001):
            with self.subTest(size):
                data = os.urandom(size)
                done = self.exec("-i", "box", "cat", input=data, text=False)
                self.assertEqual((done.returncode, len(done.stdout)), (0, size), done.stderr)
                self.assertTrue(done.stdout == data, "other bytes came back")

    def test_all_of_a_long_output_is_there_and_streams_stay_apart(self):
        done = self.exec("box", "sh", "-c", "seq 1 200000; seq 1 100000 >&2")
        self.assertEqual(done.stdout.split(), [str(i) for i in range(1, 200_001)])
        self.assertEqual(done.stderr.split(), [str(i) for i in range(1, 100_001)])

    def test_output_into_a_file_is_whole(self):
        path = os.path.join(self.home, "out")
        with open(path, "wb") as file:
            subprocess.run([HUTCH, "exec", "box", "seq", "1", "100000"], stdin=subprocess.DEVNULL, stdout=file,
                           env=self.env(), check=True, timeout=60 * SLOW)
        with open(path) as file:
            self.assertEqual(file.read().split(), [str(i) for i in range(1, 100_001)])

    def test_a_command_that_does_not_read_its_input_ends_all_the_same(self):
        done = self.exec("-i", "box", "sh", "-c", "exit 4", input=b"x" * 3_000_000, text=False)
        self.assertEqual(done.returncode, 4)

    def test_what_it_leaves_running_does_not_hold_it_and_lives_on(self):
        command = self.unique()
        done = self.exec("box", "sh", "-c", f"{' '.join(command)} & echo started")
        self.assertEqual((done.returncode, done.stdout), (0, "started\n"))
        self.assertEqual(self.running(command), 1)
        self.sh(f"pkill -xf '{' '.join(command)}'")

    def test_signals_are_passed_to_the_command(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            with self.subTest(number):
                attached = Attached(self, "box", "sh", "-c",
                                    f"trap 'echo got it; exit 3' {number.value}; echo ready; while :; do sleep 0.05; done")
                attached.until(b"ready\n")
                attached.process.send_signal(number)
                attached.until(b"got it\n")
                self.assertEqual(attached.wait(), 3)

    def test_a_signal_reaches_a_command_that_does_not_take_its_input(self):
        with open("/dev/zero", "rb") as zeros:
            attached = Attached(self, "-i", "box", "sh", "-c", "echo ready; exec sleep 1000", stdin=zeros)
            attached.until(b"ready\n")
            attached.process.send_signal(signal.SIGTERM)
            self.assertEqual(attached.wait(), 128 + signal.SIGTERM)

    def test_a_client_that_is_killed_takes_the_whole_tree_with_it(self):
        command = self.unique()
        for script in ("{0}", "{0} & {0} & wait", "trap '' HUP TERM; setsid nohup {0} >/dev/null & {0} & echo x; {0}; {0}"):
            with self.subTest(script):
                attached = Attached(self, "-i", "box", "sh", "-c", script.format(" ".join(command)), stdin=subprocess.PIPE)
                wait_for("its processes", lambda: self.running(command) >= min(2, script.count("{0}")))
                attached.process.kill()
                self.assertEqual(attached.wait(), -signal.SIGKILL)
                self.wait_running(command, 0)

    def test_a_client_that_is_killed_while_much_input_and_output_waits_leaves_nothing(self):
        command = self.unique()
        with open("/dev/zero", "rb") as zeros:
            attached = Attached(self, "-i", "box", "sh", "-c", f"{' '.join(command)} & yes; wait", stdin=zeros)
            self.wait_running(command)
            self.assertTrue(attached.read())
            attached.process.kill()
            self.wait_running(command, 0)
            self.wait_running(["yes"], 0)

    def test_when_nobody_reads_the_output_any_more_it_ends_with_its_command(self):
        attached = Attached(self, "box", "yes", "and no")
        self.assertTrue(attached.read().startswith(b"and no\n"))
        attached.process.stdout.close()
        self.assertEqual(attached.wait(), 128 + signal.SIGPIPE)
        self.wait_running(["yes", "and", "no"], 0)

    def test_out_of_memory_is_said(self):
        small = self.ok("sandbox_create", memory="64m")["sandbox_id"]
        done = self.exec(small, "python3", "-c", "x = bytearray(200 << 20)")
        self.assertEqual(done.returncode, 137)
        self.assertIn("64m", done.stderr)

    def test_a_sandbox_is_not_idle_while_somebody_is_attached(self):
        made = self.ok("sandbox_create", idle_timeout_s=1)["sandbox_id"]
        done = self.exec(made, "sh", "-c", "sleep 3; echo still here")
        self.assertEqual((done.returncode, done.stdout), (0, "still here\n"), done.stderr)
        wait_for("its end", lambda: self.call("sandbox_info", sandbox_id=made).structured["state"] == "ended")

    def test_when_the_sandbox_is_destroyed_the_client_ends_and_says_so(self):
        made = self.ok("sandbox_create")["sandbox_id"]
        attached = Attached(self, made, "sh", "-c", "echo ready; sleep 1000")
        attached.until(b"ready\n")
        self.ok("sandbox_destroy", sandbox_id=made)
        self.assertEqual(attached.wait(), 125)
        self.assertIn(b"destroyed", attached.rest())

    def test_an_unknown_sandbox_is_refused_with_those_there_are(self):
        done = self.exec("nope", "true")
        self.assertEqual((done.returncode, done.stdout), (125, ""))
        self.assertIn("'nope'", done.stderr)
        self.assertIn(f"{self.box} (box)", done.stderr)

    def test_wrong_command_lines_are_refused(self):
        for args, status, word in ((("box",), 125, "hutch exec"), ((), 125, "hutch exec"), (("-x", "box", "true"), 2, "-x"),
                                   (("--i", "box", "true"), 2, "--i"), (("--env", "A", "box", "true"), 125, "NAME=VALUE"),
                                   (("-t", "box", "true"), 125, "terminal"), (("box", b"\xff"), 125, "UTF-8"),
                                   (("box", "echo", *["x" * 1000] * 300), 125, "256 KiB")):
            with self.subTest(args[:3]):
                done = subprocess.run([HUTCH, "exec", *args], capture_output=True, env=self.env(), stdin=subprocess.DEVNULL,
                                      timeout=60 * SLOW)
                self.assertEqual((done.returncode, done.stdout), (status, b""), done.stderr)
                self.assertIn(word, done.stderr.decode())

    def test_a_long_command_line_arrives_whole(self):
        words = [f"{i:0200}" for i in range(1000)]
        done = self.exec("box", "printf", "%s\n", *words)
        self.assertEqual(done.stdout.split(), words, done.stderr)


class Terminals(ExecCase):
    def test_what_is_typed_is_echoed_once_and_control_d_ends_it(self):
        terminal = Terminal(self, "box", "cat")
        wait_for("raw mode", terminal.is_raw)
        terminal.write(b"hello\r")
        self.assertEqual(terminal.until(b"hello\r\nhello\r\n"), b"hello\r\nhello\r\n")
        terminal.write(b"\x04")
        self.assertEqual(terminal.wait(), 0)
        self.assertEqual(terminal.settings(), terminal.before)

    def test_all_three_streams_are_a_terminal_of_the_persons_kind(self):
        terminal = Terminal(self, "box", "sh", "-c", "test -t 0 && test -t 1 && test -t 2 && tty && true </dev/tty && echo $TERM",
                            env=self.env(TERM="vt220"))
        self.assertRegex(terminal.until(b"vt220\r\n"), rb"^/dev/pts/\d+\r\nvt220\r\n$")
        self.assertEqual(terminal.wait(), 0)

    def test_the_last_that_a_command_prints_is_never_lost(self):
        for _ in range(50):
            terminal = Terminal(self, "box", "sh", "-c", "seq 1 2000; echo the end")
            lines = terminal.until(b"the end\r\n").split()
            self.assertEqual((len(lines), terminal.wait()), (2002, 0))

    def test_control_c_interrupts_the_command_and_not_the_client(self):
        terminal = Terminal(self, "box", "sh", "-c", "trap 'echo interrupted; exit 5' INT; echo ready; while :; do sleep 0.05; done")
        terminal.until(b"ready\r\n")
        self.assertTrue(terminal.is_raw())
        terminal.write(b"\x03")
        terminal.until(b"interrupted\r\n")
        self.assertEqual(terminal.wait(), 5)
        self.assertEqual(terminal.settings(), terminal.before)

    def test_a_command_that_control_c_ends_is_130(self):
        terminal = Terminal(self, "box", "sh", "-c", "echo ready; exec sleep 1000")
        terminal.until(b"ready\r\n")
        terminal.write(b"\x03")
        self.assertEqual(terminal.wait(), 130)

    def test_the_window_has_the_size_of_the_persons_terminal_also_when_it_changes(self):
        terminal = Terminal(self, "box", "sh", "-c", "trap 'stty size; exit' WINCH; stty size; while :; do sleep 0.05; done",
                            rows=33, columns=111)
        terminal.until(b"33 111\r\n")
        set_size(terminal.master, 44, 99)
        terminal.until(b"44 99\r\n")
        self.assertEqual(terminal.wait(), 0)

    def test_every_byte_passes_both_ways_unchanged(self):
        terminal = Terminal(self, "box", "sh", "-c", "stty raw -echo; echo ready; exec cat")
        terminal.until(b"ready\n")
        data = bytes(range(256)) * 8
        for _ in range(20):
            terminal.write(data)
            self.assertEqual(terminal.until(data), data)

    def test_an_interactive_shell_works_with_job_control_and_leaves_at_exit(self):
        terminal = Terminal(self, "box", "bash", "--norc")
        terminal.until(b"# ")
        terminal.write(b"sleep 1000\r")
        self.wait_running(["sleep", "1000"])
        terminal.write(b"\x1a")
        terminal.until(b"Stopped")
        terminal.until(b"# ")  # what comes before the prompt, the shell may throw away
        terminal.write(b"fg\r")
        wait_for("the job in front again", lambda: "S+" in self.sh("ps -C sleep -o stat="))
        terminal.write(b"\x03")
        terminal.until(b"# ")
        terminal.write(b"exit 9\r")
        self.assertEqual(terminal.wait(), 9)
        self.assertEqual(terminal.settings(), terminal.before)

    def test_its_settings_come_back_after_every_signal_that_ends_the_client(self):
        command = self.unique()
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGSEGV, signal.SIGABRT):
            with self.subTest(number):
                terminal = Terminal(self, "box", "sh", "-c", f"echo ready; {' '.join(command)}; :")
                terminal.until(b"ready\r\n")
                self.assertTrue(terminal.is_raw())
                terminal.process.send_signal(number)
                crash = number in (signal.SIGSEGV, signal.SIGABRT)
                self.assertEqual(terminal.wait(), -number if crash else 128 + number)
                self.assertEqual(terminal.settings(), terminal.before)
                self.wait_running(command, 0)

    def test_its_settings_come_back_while_nobody_reads_the_terminal(self):
        terminal = Terminal(self, "box", "yes")
        terminal.until(b"y\r\n")
        self.wait_stalled("-x yes")
        terminal.process.send_signal(signal.SIGTERM)
        self.assertEqual(terminal.wait(), 143)
        self.assertEqual(terminal.settings(), terminal.before)
        self.wait_running(["yes"], 0)

    def test_it_is_hung_up_on_when_the_terminal_is_closed(self):
        command = self.unique()
        terminal = Terminal(self, "box", *command)
        self.wait_running(command)
        os.close(terminal.master)
        terminal.master = os.open("/dev/null", os.O_RDONLY)
        self.assertIn(terminal.wait(), (129, -signal.SIGHUP))
        self.wait_running(command, 0)

    def test_a_client_that_is_killed_takes_all_jobs_with_it(self):
        command = self.unique()
        terminal = Terminal(self, "box", "bash", "--norc")
        terminal.until(b"# ")
        terminal.write(f"{' '.join(command)} & (trap '' HUP; setsid {' '.join(command)}) & {' '.join(command)}\r".encode())
        self.wait_running(command, 3)
        terminal.process.kill()
        self.wait_running(command, 0)
        self.wait_running(["bash", "--norc"], 0)

    def test_messages_come_when_the_settings_are_back(self):
        made = self.ok("sandbox_create")["sandbox_id"]
        terminal = Terminal(self, made, "sh", "-c", "echo ready; sleep 1000")
        terminal.until(b"ready\r\n")
        self.ok("sandbox_destroy", sandbox_id=made)
        self.assertIn(b"it was destroyed\r\n", terminal.until(b"destroyed\r\n"))
        self.assertEqual(terminal.wait(), 125)
        self.assertEqual(terminal.settings(), terminal.before)


class Many(ExecCase):
    def cats(self, count):
        wait_for("room for all", lambda: self.exec("box", "true").returncode == 0)  # those of the test before may still leave
        made = [Attached(self, "-i", "box", "cat", stdin=subprocess.PIPE) for _ in range(count)]
        for i, attached in enumerate(made):
            attached.write(b"%d\n" % i)
            self.assertEqual(attached.until(b"\n"), b"%d\n" % i)
        return made

    def test_two_are_attached_at_once_and_get_their_own(self):
        first, second = self.cats(2)
        for attached, word in ((first, b"one\n"), (second, b"two\n")):
            attached.write(word)
        self.assertEqual((first.until(b"\n"), second.until(b"\n")), (b"one\n", b"two\n"))
        for attached in (second, first):
            attached.process.stdin.close()
            self.assertEqual(attached.wait(), 0)

    def test_the_seventeenth_is_refused_and_let_in_when_one_has_left(self):
        made = self.cats(16)
        refused = self.exec("box", "true")
        self.assertEqual(refused.returncode, 125)
        self.assertIn("16 are attached", refused.stderr)
        made[7].process.stdin.close()
        self.assertEqual(made[7].wait(), 0)
        wait_for("room", lambda: self.exec("box", "true").returncode == 0)
        self.assertEqual(self.sh("echo on"), "on\n")

    def test_who_does_not_read_makes_the_command_wait_and_nobody_else(self):
        def resident():
            return int(open(f"/proc/{self.client.pid}/status").read().split("VmRSS:")[1].split()[0])
        before = resident()
        attached = [Attached(self, "box", "yes", "x" * 1000) for _ in range(3)]
        for one in attached:
            self.assertTrue(one.read())
        self.wait_stalled("-x -o yes")  # the oldest of them
        self.assertEqual(self.sh("echo on"), "on\n")
        self.assertEqual(self.exec("box", "echo", "on too").stdout, "on too\n")
        self.client.ping()
        if SLOW == 1:  # sanitizers keep memory of their own
            self.assertLess(resident() - before, 8 * 1024, "KiB more than before")
        for one in attached:  # and nothing was lost
            taken = one.read()
            while len(taken) < 4_000_000:
                taken += one.read()
            lines = taken.split(b"\n")
            self.assertEqual(set(lines[1:-1]), {b"x" * 1000})


class Hostile(ExecCase):
    def connect(self):
        connection = socket.socket(socket.AF_UNIX)
        self.addCleanup(connection.close)
        connection.settimeout(20 * SLOW)
        connection.connect(glob.glob(f"{self.home}/servers/*/control")[0])
        return connection

    def request(self, connection, params, method="sandbox/attach"):
        line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        connection.sendall(line.encode() + b"\n")
        answer = b""
        while not answer.endswith(b"\n"):
            answer += connection.recv(1)
            self.assertTrue(answer)
        return json.loads(answer)

    def attach(self, *argv, **params):
        connection = self.connect()
        self.assertIn("result", self.request(connection, {"sandbox_id": "box", "argv": argv, **params}))
        return connection

    @staticmethod
    def frame(kind, payload=b""):
        return struct.pack("=BI", kind, len(payload)) + payload

    def to_end(self, connection):
        """What comes until the server closes."""
        taken = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(65536):
                taken += piece
        return taken

    def test_frames_that_make_no_sense_end_the_connection_and_its_command(self):
        command = self.unique()
        bad = {"garbage": os.urandom(100_000), "a huge length": struct.pack("=BI", 1, 0xFFFFFFFF),
               "one byte too long": struct.pack("=BI", 1, LARGEST + 1), "an unknown type": self.frame(99),
               "type 0": self.frame(0), "a server's own type": self.frame(64, b"x"), "a short size": self.frame(3, b"\0"),
               "a long size": self.frame(3, b"\0" * 5), "an end with bytes": self.frame(2, b"x"),
               "input after the end": self.frame(2) + self.frame(1, b"x"),
               "more input than is taken": self.frame(1, b"x" * LARGEST) * 8}
        for name, data in bad.items():
            with self.subTest(name):
                connection = self.attach(*command, input=True)
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    connection.sendall(data)
                self.to_end(connection)
                self.wait_running(command, 0)
                self.client.ping()

    def test_input_that_was_not_announced_ends_the_connection(self):
        connection = self.attach("sleep", "1000")
        connection.sendall(self.frame(1, b"x"))
        self.to_end(connection)
        self.wait_running(["sleep", "1000"], 0)

    def test_half_a_frame_and_then_nothing_ends_the_command(self):
        command = self.unique()
        for half in (b"\x01", b"\x01\x05\0", self.frame(1, b"12345")[:-2]):
            with self.subTest(half):
                connection = self.attach(*command, input=True)
                self.wait_running(command)
                connection.sendall(half)
                connection.close()
                self.wait_running(command, 0)

    def test_frames_in_the_smallest_pieces_are_understood(self):
        connection = self.attach("cat", input=True)
        for byte in self.frame(1, b"hello") + self.frame(4, struct.pack("=I", 0)) + self.frame(4, struct.pack("=I", 1 << 31)) \
                + self.frame(2):
            connection.sendall(bytes([byte]))
        taken = self.to_end(connection)
        self.assertIn(self.frame(64, b"hello"), taken)
        self.assertTrue(taken.endswith(self.frame(67, struct.pack("=iII", 0, 0, 0))), taken)

    def test_frames_that_come_with_the_request_are_not_lost(self):
        connection = self.connect()
        params = {"sandbox_id": "box", "argv": ["cat"], "input": True}
        line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "sandbox/attach", "params": params}).encode()
        connection.sendall(line + b"\n" + self.frame(1, b"early") + self.frame(2))
        self.assertIn(self.frame(64, b"early"), self.to_end(connection))

    def test_requests_that_make_no_sense_are_answered_with_what_is_wrong(self):
        for params, word in (({}, "'sandbox_id' is missing"), ({"sandbox_id": "box"}, "'argv'"), (None, "object"),
                             ({"sandbox_id": "box", "argv": []}, "'argv'"), ({"sandbox_id": "box", "argv": ["a"], "colour": 1}, "colour"),
                             ({"sandbox_id": "box", "argv": ["a"], "rows": 70000}, "'rows'"),
                             ({"sandbox_id": "box", "argv": ["a\0b"]}, "NUL"), ({"sandbox_id": "none", "argv": ["a"]}, "'none'"),
                             ({"sandbox_id": "box", "argv": ["true"], "env": {"": "x"}}, "environment")):
            with self.subTest(params):
                connection = self.connect()
                self.assertIn(word, self.request(connection, params)["error"]["message"])
                self.assertEqual(self.to_end(connection), b"")

    def test_a_request_without_end_is_hung_up_on(self):
        connection = self.connect()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(b"x" * 1_000_000)
        self.assertEqual(self.to_end(connection), b"")
        self.client.ping()

    def test_who_leaves_before_the_answer_leaves_nothing(self):
        command = self.unique()
        for _ in range(20):
            connection = self.connect()
            connection.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "sandbox/attach",
                                           "params": {"sandbox_id": "box", "argv": command}}).encode() + b"\n")
            connection.close()
        wait_for("room", lambda: self.exec("box", "true").returncode == 0)
        self.wait_running(command, 0)


class Servers(HutchCase):
    def setUp(self):
        skip_when_impossible()
        # What a killed server leaves alive.
        self.addCleanup(lambda: self.hutch("gc", "--all"))

    def serve(self):
        server = self.server("--results", "structured")
        self.addCleanup(lambda: server.process.returncode is None and server.close())
        return server

    def exec(self, *args, **options):
        return self.hutch("exec", *args, **options)

    def test_a_name_that_two_servers_know_is_refused_and_server_chooses(self):
        first, second = self.serve(), self.serve()
        ids = [call(server, "sandbox_create", name="same").structured["sandbox_id"] for server in (first, second)]
        done = self.exec("same", "true")
        self.assertEqual(done.returncode, 125)
        for word in ("2 sandboxes", *ids, "--server"):
            self.assertIn(word, done.stderr)
        for box in ids:
            self.assertEqual(self.exec(box, "echo", box).stdout, box + "\n")
        status = json.loads(self.hutch("pool", "status", "--json").stdout)
        of = {s["pid"]: s["server"] for s in status}
        call(first, "sandbox_exec", sandbox_id="same", command="echo first > /workspace/who")
        done = self.exec("--server", of[first.pid], "same", "cat", "/workspace/who")
        self.assertEqual(done.stdout, "first\n", done.stderr)
        other = self.exec("--server", of[second.pid], ids[0], "true")
        self.assertEqual(other.returncode, 125)
        self.assertIn(ids[1], other.stderr)

    def test_without_a_server_it_says_what_to_do(self):
        done = self.exec("box", "true")
        self.assertEqual(done.returncode, 125)
        self.assertIn("hutch mcp", done.stderr)
        done = self.exec("--server", "none", "box", "true")
        self.assertEqual(done.returncode, 125)
        self.assertIn("'none'", done.stderr)

    def ends(self, how):
        server = self.serve()
        box = call(server, "sandbox_create").structured["sandbox_id"]
        terminal = Terminal(self, box, "sh", "-c", "echo ready; sleep 1000")
        pipes = Attached(self, "-i", box, "sh", "-c", "echo ready; sleep 1000", stdin=subprocess.PIPE)
        terminal.until(b"ready\r\n")
        pipes.until(b"ready\n")
        self.assertTrue(terminal.is_raw())
        server.close(how)
        terminal.until(b"ended")
        self.assertEqual((terminal.wait(), pipes.wait()), (125, 125))
        self.assertEqual(terminal.settings(), terminal.before)
        self.assertIn(b"hutch: ", pipes.rest())

    def test_when_the_server_ends_its_clients_end_and_terminals_are_as_before(self):
        self.ends("eof")
        self.ends("SIGTERM")
        leaks.wait_clean(self.before, self.home)

    def test_when_the_server_is_killed_its_clients_end_and_terminals_are_as_before(self):
        self.ends("SIGKILL")
        call(self.serve(), "sandbox_list")  # removes what the dead one left

    def test_a_server_with_somebody_attached_ends_as_fast_as_without(self):
        server = self.serve()
        box = call(server, "sandbox_create").structured["sandbox_id"]
        attached = Attached(self, box, "sh", "-c", "echo ready; yes >&2")
        attached.until(b"ready\n")
        status, took = server.close()
        self.assertEqual(status, 0)
        self.assertLess(took, 0.5 if SLOW == 1 else 10)  # then Claude Code kills it; a sanitizer's own end takes long
