"""The channel: lost hosts, takeover, lifetimes, broken frames."""

import os
import random
import select
import signal
import struct
import time
import unittest

import support
import sandbox
from wire import FILL, HAS_INPUT, HEADER, INPUT, INPUT_ENDED, KEPT, NAMES, RELAYED, STORE, TIMED_OUT, TYPES, VERSION, \
    WHOLE, strings, text


class Channel(support.SandboxTest):
    def ended(self, box, timeout=10):
        """Waits for the end of PID 1."""
        pidfd = os.pidfd_open(box.process.pid)
        try:
            return bool(select.select([pidfd], [], [], timeout)[0])
        finally:
            os.close(pidfd)

    def test_hosts_come_and_go(self):
        for _ in range(5):
            self.sandbox.disconnect(self.client)
            self.client = self.sandbox.connect()
            self.assertEqual(self.client.run("echo x").out, b"x\n")

    def test_commands_live_on_and_their_output_waits(self):
        log = self.folder + "/log"
        stream = self.client.start("echo one; read x; echo $x", log=log, options=INPUT)
        self.client.expect("started", stream)
        self.client.expect("output", stream)
        self.sandbox.disconnect(self.client)
        self.client = self.sandbox.connect()
        self.assertEqual(self.client.welcome.commands, 1)
        self.assertEqual(self.client.expect("started", stream).printed_bytes, 4)
        self.assertEqual(self.client.expect("credit", stream).bytes, 64 * 1024)
        self.client.send("input", stream, b"two\n")
        result = self.client.collect(stream)
        self.assertEqual((result.out, result.log_bytes), (b"two\n", 8))
        self.client.expect("tree_gone", stream)

    def test_ended_command_is_told_to_the_next_host(self):
        gate = self.folder + "/gate"
        os.mkfifo(gate)
        stream = self.client.start(f"cat {gate}; exit 5")
        self.client.expect("started", stream)
        self.sandbox.disconnect(self.client)
        with open(gate, "w") as file:
            file.write("late")
        self.client = self.sandbox.connect()
        result = self.client.collect(stream)
        self.assertEqual((result.exit_code, result.out), (5, b"late"))
        self.client.expect("tree_gone", stream)

    def test_host_that_dies_in_the_middle_of_a_frame(self):
        whole = HEADER.pack(100, 7, self.client.epoch, TYPES["exec"], 0, VERSION, 0) + b"\1" * 100
        for cut in (1, 15, 16, 17, 60, 115):
            self.client.raw(whole[:cut])
            old = self.client
            # The next one opens before the first is gone: the agent never sees the channel without writer.
            self.client = self.sandbox.connect(takeover=True)
            self.sandbox.disconnect(old)
            self.assertEqual(self.client.run("echo x").out, b"x\n")
            self.client.raw(whole[:cut])
            self.sandbox.disconnect(self.client)
            self.client = self.sandbox.connect(takeover=True)
            self.client.ping()

    def test_half_of_a_frame_is_never_taken_for_the_whole(self):
        """Whatever its type, and however little is missing."""
        stream = self.client.start(["cat"], options=INPUT | STORE)
        self.client.expect("started", stream)
        for name, payload in (("input", b"half\n"), ("signal", struct.pack("<I", 9)), ("end_tree", struct.pack("<I", 0))):
            whole = HEADER.pack(len(payload) + 1, stream, self.client.epoch, TYPES[name], 0, VERSION, 0) + payload
            for cut in range(1, len(whole) + 1):
                self.client.raw(whole[:cut])
                old = self.client
                self.client = self.sandbox.connect(takeover=True)
                self.sandbox.disconnect(old)
                self.client.expect("started", stream)
                whole = HEADER.pack(len(payload) + 1, stream, self.client.epoch, TYPES[name], 0, VERSION, 0) + payload
        self.client.send("input", stream, b"whole\n")
        self.client.wait_for_output(stream, 5)
        self.assertEqual(self.client.read_all_output(stream), b"whole\n")
        self.end(stream)

    def end(self, stream):
        self.client.end_tree(stream)
        self.client.collect(stream)
        self.client.expect("tree_gone", stream)
        self.client.forget(stream)

    def test_every_command_is_announced_once_to_each_host(self):
        kept = self.client.start("exit 4", options=STORE, number=11)
        running = self.client.start(["cat"], options=INPUT, number=12)
        self.client.collect(kept)
        self.client.expect("tree_gone", kept)
        self.client.expect("started", running)
        for _ in range(2):
            self.sandbox.disconnect(self.client)
            self.client = self.sandbox.connect()
            self.client.ping()
            self.assertEqual(self.client.welcome.commands, 2)
            self.assertEqual([name for name, *_ in self.client.queues[kept]], ["started", "exited", "tree_gone"])
            started = self.client.queues[kept][0][2]
            self.assertEqual((started.number, started.state), (11, KEPT | INPUT_ENDED))
            announced = [message for name, _, message in self.client.queues[running] if name == "started"]
            self.assertEqual([message.number for message in announced], [12])
            self.assertEqual(announced[0].state, HAS_INPUT | RELAYED)
            self.client.queues.clear()
        self.client.send("input_end", running)
        self.client.collect(running)
        self.client.expect("tree_gone", running)
        self.client.forget(kept)

    def test_what_was_forgotten_is_not_kept_for_what_it_leaves_running(self):
        gate = self.folder + "/gate"
        os.mkfifo(gate)
        stream = self.client.start(f"sleep 300 & cat {gate}")
        self.client.expect("started", stream)
        self.client.forget(stream)
        open(gate, "w").close()
        self.assertEqual(self.client.collect(stream).left_running, 1)
        self.client.end_tree(stream)
        self.client.expect("tree_gone", stream)
        self.sandbox.disconnect(self.client)
        self.client = self.sandbox.connect()
        self.assertEqual(self.client.welcome.commands, 0)

    def test_a_deadline_holds_without_a_host(self):
        late = self.client.start(["sleep", "300"], timeout_ms=200)
        gates = self.folder + "/early", self.folder + "/left"
        for gate in gates:
            os.mkfifo(gate)
        early = self.client.start(f"cat {gates[0]}; exit 3", timeout_ms=400)
        left = self.client.start(f"cat {gates[1]}; sleep 300 & exit 3", timeout_ms=400)
        for stream in (late, early, left):
            self.client.expect("started", stream)
        self.sandbox.disconnect(self.client)
        for gate in gates:
            open(gate, "w").close()
        end = time.monotonic() + 10
        while self.sandbox.processes().count("sleep") > 1:
            self.assertLess(time.monotonic(), end)
            time.sleep(0.005)
        time.sleep(0.5)  # past the deadline of all
        self.client = self.sandbox.connect()
        result = self.client.collect(late)
        self.assertEqual((result.signal, result.flags), (signal.SIGTERM, TIMED_OUT))
        self.assertLess(result.ran_ms, 600)
        for stream, running in ((early, 0), (left, 1)):
            result = self.client.collect(stream)
            self.assertEqual((result.exit_code, result.flags, result.left_running), (3, 0, running))
        self.client.end_tree(left)
        for stream in (late, early, left):
            self.client.expect("tree_gone", stream)
        self.client.forget(left)

    def test_streams_of_files_end_with_their_host(self):
        self.client.send("write_file", 900, text(self.folder + "/file") + struct.pack("<BI", 0, 0o644) + text("") +
                         struct.pack("<QQqq", 0, 0, 0, 0))
        self.client.expect("ready", 900)
        self.client.send("data", 900, b"x" * 1000)
        self.sandbox.disconnect(self.client)
        self.client = self.sandbox.connect()
        self.client.send("commit", 900)
        self.client.ping()
        self.assertNotIn(900, self.client.queues)
        self.assertEqual(os.listdir(self.folder), [])

    def test_a_host_of_another_version_is_told_ours_and_is_no_host(self):
        self.sandbox.disconnect(self.client)
        other = self.sandbox.connect(hello=False)
        self.client = other
        hello = struct.pack("<QQ", 100, 0) + WHOLE
        other.raw(FILL + HEADER.pack(len(hello), 0, other.epoch, TYPES["hello"], 0, VERSION + 1, 0) + hello)
        other.expect("welcome")
        other.send("ping", 5)
        self.sandbox.disconnect(other)
        self.client = self.sandbox.connect(takeover=True)
        self.assertNotIn(5, other.queues)
        self.assertEqual(self.client.run("echo x").out, b"x\n")

    def test_the_orphan_timer_runs_only_without_a_host(self):
        self.client.hello(orphan_ttl_ms=400)
        for _ in range(4):
            self.sandbox.disconnect(self.client)
            self.assertFalse(self.ended(self.sandbox, 0.15))
            self.client = self.sandbox.connect(orphan_ttl_ms=400)
            self.assertFalse(self.ended(self.sandbox, 0.5))
        self.sandbox.disconnect(self.client)
        self.assertTrue(self.ended(self.sandbox))

    def test_host_that_dies_with_a_full_channel(self):
        self.client.auto_credit = False
        streams = [self.client.start("yes") for _ in range(4)]
        for stream in streams:
            self.client.expect("started", stream)
        self.sandbox.disconnect(self.client)
        self.client = self.sandbox.connect()
        for stream in streams:
            self.client.end_tree(stream)
            self.client.collect(stream)
            self.client.expect("tree_gone", stream)

    def test_host_that_dies_after_reading_half_a_frame(self):
        gate = self.folder + "/gate"  # or the output could have been read together with `started`
        os.mkfifo(gate)
        for count in (1, 15, 16, 17, 20_000):
            stream = self.client.start(f"read x < {gate}; head -c 30000 /dev/zero | tr '\\0' 'y'; sleep 300")
            self.client.expect("started", stream)
            with open(gate, "w") as file:
                file.write("\n")
            select.select([self.client.from_agent], [], [])
            os.read(self.client.from_agent, count)
            self.sandbox.disconnect(self.client)
            self.client = self.sandbox.connect()
            self.client.expect("started", stream)
            self.client.end_tree(stream)
            self.client.collect(stream)
            self.client.expect("tree_gone", stream)

    def test_frames_of_other_epochs_are_dropped(self):
        self.client.send("ping", 5, epoch=99)
        self.client.send("exec", 6, strings(["true"]), epoch=99)
        self.client.ping()
        self.assertNotIn(5, self.client.queues)
        self.assertNotIn(6, self.client.queues)

    def test_orphan_ttl_ends_the_sandbox(self):
        self.client.hello(orphan_ttl_ms=100)
        self.client.expect("started", self.client.start(["sleep", "300"]))
        self.sandbox.disconnect(self.client)
        self.assertTrue(self.ended(self.sandbox))

    def test_without_a_host_it_ends_when_its_fifo_is_removed_and_with_one_it_does_not(self):
        os.unlink(self.sandbox.fifo_in)
        self.client.ping()
        self.assertIsNone(self.sandbox.process.poll())
        self.sandbox.disconnect(self.client)
        self.assertTrue(self.ended(self.sandbox))

    def test_one_that_no_host_ever_greeted_ends_when_its_fifo_is_removed(self):
        other = sandbox.Sandbox(hello=False)
        self.addCleanup(other.close)
        os.unlink(other.fifo_in)
        self.assertTrue(self.ended(other))

    def test_lifetime_ends_the_sandbox(self):
        self.client.send("lifetime", 0, struct.pack("<Q", 10_000_000))
        self.client.ping()
        self.client.send("lifetime", 0, struct.pack("<Q", 100))
        self.assertTrue(self.ended(self.sandbox))

    def test_idle_costs_no_cpu(self):
        """With a host, and with the hung-up FIFO of a lost one, which is always readable."""
        pid = self.sandbox.agent_pid()

        def cpu_ns_of_window():
            def cpu_ns():
                with open(f"/proc/{pid}/schedstat") as file:
                    return int(file.read().split()[0])
            before = cpu_ns()
            select.select([], [], [], 0.3)
            return cpu_ns() - before

        self.client.ping()
        self.assertLess(cpu_ns_of_window(), 5_000_000)
        self.sandbox.disconnect(self.client)
        self.assertLess(cpu_ns_of_window(), 5_000_000)

    def test_random_frames(self):
        """Seeded; every type with payloads that are random, cut, or lie about lengths."""
        dice = random.Random(20)
        sane = [strings(["true"]), text("/tmp/x"), struct.pack("<QQ", 1, 2), b"", b"\xff" * 40,
                text("/etc/passwd") + struct.pack("<QQ", 0, 0),
                strings(["sh", "-c", "sleep 1"]) + strings([]) + text("/") + text("") + text("") + struct.pack("<QQIQHHB", 0, 0, 0, 0, 0, 0, 3)]
        kinds = [kind for name, kind in TYPES.items() if kind < 64 and name not in ("hello", "lifetime")]
        self.client.auto_credit = False
        for _ in range(3000):
            payload = dice.choice(sane)
            payload = payload[:dice.randrange(len(payload) + 1)] + dice.randbytes(dice.choice([0, 0, 3, 100]))
            payload = payload and payload + WHOLE
            kind = dice.choice(kinds + [dice.randrange(256)])
            if NAMES.get(kind) in ("hello", "lifetime"):
                continue
            # Also from an old stream, an old epoch, or with flags.
            self.client.raw(HEADER.pack(len(payload), dice.randrange(2000, 2020),
                                        dice.choice([1, 1, 1, 2]), kind, dice.randrange(256), VERSION, 0) + payload)
        self.client.ping()
        for _ in range(200):
            self.client.raw(dice.randbytes(dice.randrange(1, 3000)))
        self.client.raw(FILL)
        self.client.hello()
        self.client.auto_credit = True
        self.assertEqual(self.client.run("echo alive").out, b"alive\n")
        for stream in range(2000, 2020):
            self.client.end_tree(stream)
            self.client.send("cancel", stream)
        self.client.ping()


class Unheard(unittest.TestCase):
    def test_nothing_is_answered_before_hello(self):
        box = sandbox.Sandbox(hello=False)
        self.addCleanup(box.close)
        box.client.send("ping", 1)  # before hello: nothing
        box.client.hello()
        self.assertNotIn(1, box.client.queues)


if __name__ == "__main__":
    support.main()
