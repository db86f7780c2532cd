"""Commands: results, output, input, logs, limits."""

import errno
import os
import signal
import struct
import unittest

import support
from wire import DATA_CHUNK, INPUT, MERGE_OUTPUT, Timeout


class Exec(support.SandboxTest):
    def test_exit_code_output_and_errors_are_apart(self):
        result = self.client.run("echo out; echo err >&2; exit 7")
        self.assertEqual((result.exit_code, result.out, result.err), (7, b"out\n", b"err\n"))

    def test_signal(self):
        result = self.client.run("kill -SEGV $$")
        self.assertEqual((result.exit_code, result.signal), (-1, signal.SIGSEGV))

    def test_merged_output_keeps_the_order(self):
        result = self.client.run("echo 1; echo 2 >&2; echo 3", options=MERGE_OUTPUT)
        self.assertEqual(result.out, b"1\n2\n3\n")

    def test_argv_env_and_workdir_are_exact(self):
        script = 'printf "%s|" "$0" "$@"; env; pwd; umask'
        result = self.client.run(["sh", "-c", script, "a b", "", "*", "$x"], env=["PATH=/bin", "E=1 2"],
                                 workdir="/tmp")
        self.assertIn(b"a b||*|$x|", result.out)
        self.assertIn(b"E=1 2\n", result.out)
        self.assertIn(b"/tmp\n0022\n", result.out)

    def test_only_three_descriptors(self):
        result = self.client.run(["ls", "/proc/self/fd"])
        self.assertEqual(result.out.split(), [b"0", b"1", b"2", b"3"])  # 3 is the folder ls reads

    def test_signal_state_is_default(self):
        out = self.client.run(["grep", "-E", "SigBlk|SigIgn|NoNewPrivs|^Seccomp:", "/proc/self/status"]).out
        zeros = b"0" * 16
        self.assertIn(b"SigBlk:\t" + zeros, out)
        self.assertIn(b"SigIgn:\t" + zeros, out)
        self.assertIn(b"NoNewPrivs:\t1", out)
        self.assertIn(b"Seccomp:\t2", out)

    def test_limits_of_a_command(self):
        out = self.client.run("cat /proc/self/oom_score_adj; ulimit -c; ulimit -Hc").out
        self.assertEqual(out.split(), [b"500", b"0", b"0"])

    def test_failures_name_the_step(self):
        cases = [(dict(argv=["no-such-program"]), errno.ENOENT, "exec no-such-program"),
                 (dict(argv=["/etc/passwd"]), errno.EACCES, "exec /etc/passwd"),
                 (dict(argv=["true"], workdir="/nope"), errno.ENOENT, "chdir /nope"),
                 (dict(argv=[]), errno.EINVAL, "exec: no command")]
        for options, number, step in cases:
            with self.assertRaises(OSError) as caught:
                self.client.run(**options)
            self.assertEqual((caught.exception.errno, caught.exception.strerror), (number, step))

    def test_ten_at_once(self):
        streams = [self.client.start(f"echo {i}; exit {i}") for i in range(10)]
        for i, stream in enumerate(streams):
            result = self.client.collect(stream)
            self.assertEqual((result.exit_code, result.out), (i, f"{i}\n".encode()))

    def test_table_is_bounded(self):
        streams = [self.client.start(["sleep", "300"]) for _ in range(512)]
        for stream in streams:
            self.client.expect("started", stream, timeout=60)
        with self.assertRaisesRegex(OSError, "512 commands at once"):
            self.client.run(["true"])
        for stream in streams:
            self.client.end_tree(stream)
        for stream in streams:
            self.client.expect("exited", stream, timeout=60)
            self.client.expect("tree_gone", stream, timeout=60)
        self.assertEqual(self.client.run(["true"]).exit_code, 0)

    def test_flood_without_reader_delays_nothing(self):
        self.client.auto_credit = False
        floods = [self.client.start("yes") for _ in range(3)]
        for flood in floods:
            self.client.expect("started", flood)
        self.assertLess(max(self.client.ping() for _ in range(50)), 0.5)
        self.assertEqual(self.client.run("echo quick").out, b"quick\n")
        for flood in floods:
            held = sum(len(data) for name, _, data in self.client.queues[flood] if name == "output")
            self.assertLessEqual(held, 512 * 1024)
        self.client.auto_credit = True
        for flood in floods:
            self.client.end_tree(flood)
            self.client.send("credit", flood, struct.pack("<I", 512 * 1024))
            self.client.collect(flood)
            self.client.expect("tree_gone", flood)

    def test_large_output_is_complete(self):
        self.assertEqual(len(self.client.run("head -c 30000000 /dev/zero").out), 30_000_000)

    def test_input(self):
        stream = self.client.start(["wc", "-c"], options=INPUT)
        sent, credit = 0, 64 * 1024
        while sent < 1_000_000:
            while credit < 8192:
                name, _, message = self.client.receive(stream)
                credit += message.bytes if name == "credit" else 0
            self.client.send("input", stream, b"x" * 8192)
            sent, credit = sent + 8192, credit - 8192
        self.client.send("input_end", stream)
        self.assertEqual(self.client.collect(stream).out.strip(), str(sent).encode())

    def test_input_that_nobody_reads(self):
        stream = self.client.start(["sleep", "300"], options=INPUT)
        for _ in range(2):
            self.client.send("input", stream, b"x" * DATA_CHUNK)
        self.assertLess(self.client.ping(), 1)
        self.client.end_tree(stream)
        self.client.collect(stream)
        self.client.expect("tree_gone", stream)

    def test_log_has_all_output_up_to_its_limit(self):
        log = self.folder + "/logs/deep/one.log"
        result = self.client.run("echo out; echo err >&2; sleep 0.01; echo more", log=log)
        self.assertEqual(result.log_bytes, 13)
        with open(log, "rb") as file:
            self.assertEqual(sorted(file.read().split()), [b"err", b"more", b"out"])
        result = self.client.run("head -c 100000 /dev/zero", log=self.folder + "/two.log", log_max=1000)
        self.assertEqual((result.log_bytes, len(result.out)), (1000, 100000))
        self.client.run(["true"], log=self.folder + "/three.log")
        self.assertFalse(os.path.exists(self.folder + "/three.log"))

    def test_log_follows_no_link(self):
        victim = self.folder + "/victim"
        os.mkdir(self.folder + "/real")
        os.symlink(victim, self.folder + "/link.log")
        os.symlink(self.folder + "/real", self.folder + "/folder")
        for log in ("/link.log", "/folder/x.log"):
            self.assertEqual(self.client.run("echo x", log=self.folder + log).log_bytes, 0)
        self.assertFalse(os.path.exists(victim))
        self.assertEqual(os.listdir(self.folder + "/real"), [])

    def test_grandchild_with_the_pipe_does_not_hold_the_answer(self):
        stream = self.client.start("echo first; sleep 300 & yes > /dev/null &")
        result = self.client.collect(stream)
        self.assertEqual((result.out, result.left_running), (b"first\n", 2))
        with self.assertRaises(Timeout):
            self.client.receive(stream, timeout=0.05)
        self.client.end_tree(stream)
        self.client.expect("tree_gone", stream)

    def test_output_after_the_end_goes_to_the_log(self):
        log, gate = self.folder + "/late.log", self.folder + "/gate"
        os.mkfifo(gate)
        stream = self.client.start(f"echo early; (cat {gate}; echo late) &", log=log)
        self.assertEqual(self.client.collect(stream).out, b"early\n")
        with open(gate, "w"):
            pass
        self.client.expect("tree_gone", stream)
        with open(log) as file:
            self.assertEqual(file.read(), "early\nlate\n")

    def test_signal_reaches_the_group(self):
        # The child says "ready" itself, when its own trap is set: before that the signal would be lost on it.
        child = 'trap "echo child; exit" USR1; echo ready; while :; do sleep 0.05; done'
        stream = self.client.start(f"trap 'wait; echo main; exit 5' USR1; sh -c '{child}' & wait")
        self.assertEqual(self.client.receive(stream)[0], "started")
        self.assertEqual(self.client.receive(stream)[2], b"ready\n")
        self.client.send("signal", stream, struct.pack("<I", signal.SIGUSR1))
        result = self.client.collect(stream)
        self.assertEqual((result.exit_code, result.out.split()), (5, [b"child", b"main"]))
        self.client.expect("tree_gone", stream)


if __name__ == "__main__":
    support.main()
