"""Ending trees: whatever a command does, nothing of it stays."""

import errno
import signal

import support
from wire import SUPERVISOR_LOST


class Tree(support.SandboxTest):
    def end(self, script, grace_ms=0, ready=True, timeout=20):
        """Starts it, waits for its first line, ends it."""
        stream = self.client.start(script)
        self.client.expect("started", stream)
        if ready:
            self.assertEqual(self.client.expect("output", stream), b"ready\n")
        self.client.end_tree(stream, grace_ms)
        result = self.client.collect(stream, timeout)
        self.client.expect("tree_gone", stream, timeout)
        self.assertEqual(result.left_running, 0)
        self.check_nothing_left()
        return result

    def test_pipeline(self):
        self.assertEqual(self.end("echo ready; sleep 300 | cat").signal, signal.SIGKILL)

    def test_sigterm_comes_first(self):
        self.assertEqual(self.end("trap 'exit 3' TERM; echo ready; sleep 300 & wait", 10_000).exit_code, 3)

    def test_setsid(self):
        self.end("(setsid sleep 300 &); echo ready; sleep 300")

    def test_ignores_signals(self):
        self.assertEqual(self.end("trap '' TERM INT HUP; echo ready; while :; do :; done", 50).signal, 9)

    def test_double_fork_outlives_main_and_is_ended_later(self):
        stream = self.client.start("(setsid sh -c 'sleep 300 & sleep 300 &' &); exit 0")
        result = self.client.collect(stream)
        self.assertEqual(result.exit_code, 0)
        self.client.end_tree(stream)
        self.client.expect("tree_gone", stream)

    def test_stopped(self):
        self.assertEqual(self.end("trap 'exit 4' TERM; echo ready; kill -STOP $$; :", 10_000).exit_code, 4)
        self.end("echo ready; kill -STOP $$", 0)

    def test_only_this_tree(self):
        other = self.client.start("echo other; read x", options=2)
        self.client.expect("started", other)
        self.client.expect("output", other)
        stream = self.client.start("sleep 300 & echo ready; wait")
        self.client.expect("started", stream)
        self.client.expect("output", stream)
        self.client.end_tree(stream)
        self.client.collect(stream)
        self.client.expect("tree_gone", stream)
        self.client.send("input_end", other)
        self.assertEqual(self.client.collect(other).exit_code, 1)
        self.client.expect("tree_gone", other)

    def test_command_kills_its_supervisor(self):
        stream = self.client.start("(setsid sleep 300 &) ; echo ready; kill -9 $PPID; sleep 300")
        result = self.client.collect(stream)
        self.assertEqual((result.signal, result.flags), (signal.SIGKILL, SUPERVISOR_LOST))
        self.assertEqual(result.out, b"ready\n")
        self.client.expect("tree_gone", stream)

    def test_command_stops_its_supervisor(self):
        result = self.client.run("kill -STOP $PPID; sleep 0.01; exit 6")
        self.assertEqual(result.exit_code, 6)
        self.end("(while :; do kill -STOP $PPID; done) & echo ready; wait", 100)

    def test_command_kills_everything(self):
        victims = [self.client.start(["sleep", "300"]) for _ in range(5)]
        for victim in victims:
            self.client.expect("started", victim)
        result = self.client.run("kill -9 -1; sleep 300")
        self.assertEqual((result.signal, result.flags), (signal.SIGKILL, SUPERVISOR_LOST))
        for victim in victims:
            self.assertEqual(self.client.collect(victim).signal, signal.SIGKILL)
            self.client.expect("tree_gone", victim)
        self.assertEqual(self.client.run("echo alive").out, b"alive\n")

    def test_orphans_are_reaped(self):
        result = self.client.run("i=0; while [ $i -lt 300 ]; do (true &) ; i=$((i+1)); done; wait; echo done")
        self.assertEqual(result.out, b"done\n")

    def test_pid_1_cannot_be_reached(self):
        script = ("kill -9 1; kill -STOP 1; kill -TERM 1; readlink /proc/1/fd/0; cat /proc/1/mem; "
                  "readlink /proc/1/exe; cat /proc/1/environ; exit 0")
        result = self.client.run(["setpriv", "--bounding-set", "-all", "sh", "-c", script])
        self.assertEqual(result.out, b"")
        self.assertEqual(result.err.count(b"ermission denied"), 2, result.err)  # readlink says nothing


class ForkBomb(support.PidsLimit):
    PIDS = 400

    BOMB = "bomb() { bomb | bomb & }; echo ready; while :; do bomb 2>/dev/null; done 2>/dev/null"

    def test_live_fork_bomb(self):
        for script in (self.BOMB, "trap '' TERM; " + self.BOMB):
            stream = self.client.start(["bash", "-c", script])
            self.client.expect("started", stream)
            self.client.expect("output", stream)
            self.client.start(["true"])  # may fail for the limit; must not harm
            self.client.end_tree(stream, 0)
            self.client.collect(stream, 30)
            self.client.expect("tree_gone", stream, 30)
        self.assertEqual(self.client.run("echo alive").out, b"alive\n")

    def test_fork_bomb_that_kills_its_supervisor(self):
        stream = self.client.start(["bash", "-c", "sup=$PPID; (sleep 0.05; kill -9 $sup) & " + self.BOMB])
        result = self.client.collect(stream, 30)
        self.assertEqual(result.flags, SUPERVISOR_LOST)
        self.client.expect("tree_gone", stream, 30)

    def test_no_process_left_for_a_command(self):
        stream = self.client.start("i=0; while [ $i -lt 390 ]; do sleep 300 & i=$((i+1)); done; echo full; wait")
        self.client.expect("started", stream)
        self.client.expect("output", stream, 30)
        others = []
        for _ in range(30):
            other = self.client.start(["sleep", "300"])
            name, _, message = self.client.receive(other)
            if name == "started":
                others.append(other)
            else:
                self.assertEqual((name, message.error, message.step), ("failed", errno.EAGAIN, "fork"))
        self.assertLess(len(others), 30)
        for command in (stream, *others):
            self.client.end_tree(command)
            self.client.collect(command)
            self.client.expect("tree_gone", command)


if __name__ == "__main__":
    support.main()
