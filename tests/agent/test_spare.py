"""The supervisor that waits for the next command: there when needed, never in the way, never one too many."""

import errno
import os
import signal
import time

import sandbox
import support
from wire import INPUT


class Spare(support.SandboxTest):
    def wait_for_spare(self, other_than=None):
        """Its pid, seen from outside. There is no event to wait for from there."""
        end = time.monotonic() + 5
        while time.monotonic() < end:
            spares = self.sandbox.spares()
            self.assertLessEqual(len(spares), 1)
            if spares and spares[0] != other_than:
                return spares[0]
            time.sleep(0.002)
        self.fail("no spare")

    def test_it_waits_from_the_first_hello_on(self):
        self.wait_for_spare()

    def test_there_is_none_before_hello(self):
        box = sandbox.Sandbox(hello=False)
        self.addCleanup(box.close)
        time.sleep(0.05)
        self.assertEqual(box.spares(), [])

    def test_it_is_what_watches_the_next_command(self):
        spare = self.wait_for_spare()
        stream = self.client.start("echo $PPID; read x", options=INPUT)
        self.client.expect("started", stream)
        inside = int(self.client.expect("output", stream))
        with open(f"/proc/{spare}/status") as file:
            numbers = next(line for line in file if line.startswith("NSpid:")).split()
        self.assertEqual(int(numbers[-1]), inside)
        with open(f"/proc/{spare}/comm") as file:
            self.assertEqual(file.read(), "hutch-super\n")
        self.assertNotEqual(self.wait_for_spare(), spare)  # although the command still runs
        with open(f"/proc/{spare}/oom_score_adj") as file:
            self.assertEqual(file.read(), "0\n")
        self.client.send("input_end", stream)
        self.client.collect(stream)
        self.client.expect("tree_gone", stream)

    def test_killed_while_it_waits(self):
        spare = None
        for _ in range(20):
            spare = self.wait_for_spare(other_than=spare)
            os.kill(spare, signal.SIGKILL)
            self.assertEqual(self.client.run("echo x").out, b"x\n")  # whether it was noticed already or not

    def test_killed_by_a_command_in_the_moment_of_a_start(self):
        """Whoever was not started yet is started by another; who was, is told that it was killed."""
        killer = self.client.start(
            "while :; do for p in /proc/[2-9]* /proc/[1-9][0-9]*; do read n < $p/comm; "
            '[ "$n" = hutch-spare ] && kill -9 ${p#/proc/}; done; done 2>/dev/null')
        self.client.expect("started", killer)
        self.addCleanup(self.client.expect, "tree_gone", killer)
        self.addCleanup(self.client.collect, killer)
        self.addCleanup(self.client.end_tree, killer)
        ran = 0
        for i in range(100):
            result = self.client.run(["echo", str(i)])
            if result.signal != signal.SIGKILL:  # killed after it had begun, under the name that was read before
                self.assertEqual((result.exit_code, result.out), (0, f"{i}\n".encode()))
                ran += 1
        self.assertGreater(ran, 50)

    def test_stopped_while_it_waits(self):
        os.kill(self.wait_for_spare(), signal.SIGSTOP)
        self.assertEqual(self.client.run("echo x").out, b"x\n")

    def test_input_of_a_command_whose_spare_was_killed_is_complete(self):
        for _ in range(20):
            os.kill(self.wait_for_spare(), signal.SIGKILL)
            stream = self.client.start(["wc", "-c"], options=INPUT)
            self.client.send("input", stream, b"x" * 30_000)
            self.client.send("input_end", stream)
            self.assertEqual(self.client.collect(stream).out.strip(), b"30000")
            self.client.expect("tree_gone", stream)

    def test_it_is_no_stray(self):
        spare = self.wait_for_spare()
        stream = self.client.start("(setsid sleep 300 &); kill -9 $PPID; sleep 300")
        self.client.collect(stream)
        self.client.expect("tree_gone", stream)
        self.assertNotEqual(self.wait_for_spare(), spare)

    def test_many_commands_leave_one(self):
        for i in range(300):
            self.assertEqual(self.client.run(["true"]).exit_code, 0)
        streams = [self.client.start(["echo", str(i)]) for i in range(50)]
        for i, stream in enumerate(streams):
            self.assertEqual(self.client.collect(stream).out, f"{i}\n".encode())
            self.client.expect("tree_gone", stream)
        self.check_nothing_left()
        self.wait_for_spare()

    def test_a_huge_request(self):
        script = 'printf "%s" "$A$1" | wc -c'
        value = "x" * 100_000  # one string may have 128 KiB
        result = self.client.run(["sh", "-c", script, "sh", value], env=["PATH=/usr/bin:/bin", "A=" + value])
        self.assertEqual(result.out.strip(), b"200000")
        many = [f"V{i}={i}" for i in range(15_000)]
        result = self.client.run(["sh", "-c", "env | grep -c ^V"], env=["PATH=/usr/bin:/bin", *many])
        self.assertEqual(result.out.strip(), b"15000")

    def test_it_ends_with_the_sandbox(self):
        pidfd = os.pidfd_open(self.wait_for_spare())
        self.addCleanup(os.close, pidfd)
        self.sandbox.close()
        with self.assertRaises(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, 0)


class Full(support.PidsLimit):
    PIDS = 12

    def test_a_full_sandbox(self):
        """Without room for a spare commands work as long as there is room for them, and then say what is missing."""
        others = []
        for _ in range(self.PIDS):
            other = self.client.start(["sleep", "300"])
            name, _, message = self.client.receive(other)
            if name != "started":
                self.assertEqual((name, message.error, message.step), ("failed", errno.EAGAIN, "fork"))
                break
            others.append(other)
        # `unshare` and PID 1, and two processes a command.
        self.assertEqual(len(others), (self.PIDS - 2) // 2)
        for other in others:
            self.client.end_tree(other)
            self.client.collect(other)
            self.client.expect("tree_gone", other)
        self.assertEqual(self.client.run("echo on").out, b"on\n")


if __name__ == "__main__":
    support.main()
