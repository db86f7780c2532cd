#!/usr/bin/env python3
"""What commands print is stored, sent when it is wanted, and can be read again; terminals; deadlines."""

import os
import struct
import time
import unittest

import support
from wire import INPUT, MERGE_OUTPUT, STORE, TAIL, TERMINAL, TIMED_OUT, Timeout

TERMINAL_OPTIONS = TERMINAL | INPUT | MERGE_OUTPUT


class StoredOutput(support.SandboxTest):
    def background(self, command, **options):
        stream = self.client.start(command, options=STORE | MERGE_OUTPUT, **options)
        self.client.expect("started", stream)
        return stream

    def test_is_not_sent_but_can_be_read_from_any_place(self):
        stream = self.background("printf hello; printf ' world' >&2", log=self.folder + "/1.log")
        exited = self.client.expect("exited", stream)
        self.client.expect("tree_gone", stream)
        self.assertEqual((exited.exit_code, exited.printed_bytes), (0, 11))
        self.assertEqual(self.client.read_output(stream).bytes, b"hello world")
        self.assertEqual(self.client.read_output(stream, 6, 3).bytes, b"wor")
        self.assertEqual(self.client.read_output(stream, 11).bytes, b"")
        self.client.forget(stream)
        with self.assertRaises(ProcessLookupError):
            self.client.read_output(stream)

    def test_of_a_removed_log_can_still_be_read(self):
        log = self.folder + "/1.log"
        stream = self.background(f"printf kept; while [ ! -e {log} ]; do sleep 0.01; done; rm {log}", log=log)
        self.client.expect("exited", stream)
        self.assertFalse(os.path.exists(log))
        self.assertEqual(self.client.read_output(stream).bytes, b"kept")

    def test_past_the_logs_cap_keeps_its_end(self):
        log = self.folder + "/1.log"
        stream = self.background("seq 1 100000", log=log, log_max=5000)
        exited = self.client.expect("exited", stream, timeout=60)
        whole = b"".join(b"%d\n" % n for n in range(1, 100001))
        self.assertEqual((exited.log_bytes, exited.printed_bytes), (5000, len(whole)))
        self.assertEqual(os.path.getsize(log), 5000)
        self.assertEqual(self.client.read_output(stream).bytes, whole[:5000])
        piece = self.client.read_output(stream, 5000)
        self.assertEqual(piece.first, len(whole) - TAIL)
        self.assertEqual(self.client.read_all_output(stream, 5000), whole[-TAIL:])

    def test_without_a_log_keeps_its_end(self):
        stream = self.background("seq 1 20000")
        self.client.expect("exited", stream)
        self.assertTrue(self.client.read_all_output(stream).endswith(b"\n19999\n20000\n"))

    def test_of_all_commands_has_one_bound(self):
        first = self.background("head -c 3000 /dev/zero; sleep 60", log=self.folder + "/1.log", logs_max=4000)
        self.client.wait_for_output(first, 2999)
        second = self.background("head -c 3000 /dev/zero", log=self.folder + "/2.log", logs_max=4000)
        self.assertEqual(self.client.expect("exited", second).log_bytes, 1000)
        self.client.end_tree(first)
        self.client.expect("exited", first)
        self.client.expect("tree_gone", first)
        self.client.forget(first)
        third = self.background("head -c 3000 /dev/zero", log=self.folder + "/3.log", logs_max=4000)
        self.assertEqual(self.client.expect("exited", third).log_bytes, 3000)

    def test_that_is_watched_is_announced_once(self):
        fifo = self.folder + "/go"
        os.mkfifo(fifo)
        stream = self.background(f"printf abc; read x < {fifo}; printf def; sleep 60", log=self.folder + "/1.log")
        self.assertEqual(self.client.wait_for_output(stream, 2), 3)
        self.client.send("watch", stream, struct.pack("<Q", 3))
        with open(fifo, "w") as go:
            go.write("\n")
        self.assertEqual(self.client.expect("printed", stream), 6)
        self.client.end_tree(stream)
        self.client.expect("exited", stream)

    def test_is_sent_again_from_where_relaying_begins(self):
        stream = self.client.start("printf before; read x; printf after; read x", options=INPUT | STORE,
                                   log=self.folder + "/1.log")
        self.client.expect("started", stream)
        self.client.wait_for_output(stream, 5)
        self.client.relay(stream, True)
        self.assertEqual(self.client.expect("relaying", stream), 6)
        self.client.send("input", stream, b"\n")
        self.assertEqual(self.client.expect("output", stream), b"after")
        self.client.relay(stream, False)
        self.client.send("input", stream, b"\n")
        self.assertEqual(self.client.expect("exited", stream).printed_bytes, 11)
        self.assertEqual(self.client.read_output(stream, 0).bytes, b"beforeafter")

    def test_of_what_was_left_running_can_be_read_after_the_end(self):
        fifo = self.folder + "/go"
        os.mkfifo(fifo)
        stream = self.client.start(f"(read x < {fifo}; echo late) & echo early", log=self.folder + "/1.log")
        result = self.client.collect(stream)
        self.assertEqual((result.out, result.left_running > 0), (b"early\n", True))
        with open(fifo, "w") as go:
            go.write("\n")
        self.client.expect("tree_gone", stream)
        self.assertEqual(self.client.read_output(stream).bytes, b"early\nlate\n")
        self.client.forget(stream)

    def test_does_not_hold_up_a_command_that_nobody_reads(self):
        stream = self.background("head -c 20000000 /dev/zero")
        self.assertEqual(self.client.expect("exited", stream, timeout=60).printed_bytes, 20_000_000)

    def test_is_told_to_the_next_host(self):
        stream = self.background("echo one", log=self.folder + "/1.log")
        self.client.expect("exited", stream)
        self.client.expect("tree_gone", stream)
        self.client.epoch = 2
        self.client.synchronised = False
        self.client.hello()
        self.assertEqual(self.client.expect("started", stream).printed_bytes, 4)
        self.assertEqual(self.client.expect("exited", stream).exit_code, 0)
        self.client.expect("tree_gone", stream)
        self.assertEqual(self.client.read_output(stream).bytes, b"one\n")


class Terminals(support.SandboxTest):
    def start(self, command, **options):
        stream = self.client.start(command, options=TERMINAL_OPTIONS, **options)
        self.client.expect("started", stream)
        return stream

    def read_until(self, stream, wanted):
        seen = b""
        while wanted not in seen:
            seen += self.client.expect("output", stream)
        return seen

    def test_are_controlling_and_have_the_asked_size(self):
        stream = self.start("tty; stty size; cat < /dev/tty", size=(33, 111))
        seen = self.read_until(stream, b"33 111\r\n")
        self.assertIn(b"/dev/pts/", seen)
        self.client.send("input", stream, b"typed\n\x04")
        self.read_until(stream, b"typed\r\ntyped\r\n")
        self.assertEqual(self.client.collect(stream).exit_code, 0)

    def test_lose_nothing_of_what_is_printed_right_before_the_end(self):
        lines = b"".join(b"%d\r\n" % i for i in range(1, 2001))
        for _ in range(30):
            done = self.client.run("seq 1 2000", options=TERMINAL_OPTIONS)
            self.assertEqual(len(done.out), len(lines))
            self.assertEqual(done.out, lines)

    def test_change_their_size(self):
        stream = self.start("trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done")
        self.read_until(stream, b"ready\r\n")
        self.client.send("resize", stream, struct.pack("<HH", 50, 132))
        self.read_until(stream, b"50 132\r\n")
        self.assertEqual(self.client.collect(stream).exit_code, 0)

    def test_turn_control_c_into_an_interrupt(self):
        stream = self.start("trap 'echo caught; exit 3' INT; echo ready; while :; do sleep 0.05; done")
        self.read_until(stream, b"ready\r\n")
        self.client.send("input", stream, b"\x03")
        self.read_until(stream, b"caught")
        self.assertEqual(self.client.collect(stream).exit_code, 3)

    def test_send_an_interrupt_to_what_runs_in_the_foreground(self):
        stream = self.start(["/bin/bash", "--norc", "-i"], env=["PATH=/usr/bin:/bin", "PS1=prompt"])
        self.read_until(stream, b"prompt")
        self.client.send("input", stream, b"sh -c 'echo in; sleep 60'\n")
        self.read_until(stream, b"\nin\r\n")
        # Again until it is heard: the shell may just be handing the terminal over.
        for _ in range(20):
            self.client.send("signal", stream, struct.pack("<I", 2))
            try:
                self.client.receive(stream, timeout=0.5)
                break
            except Timeout:
                continue
        self.client.send("input", stream, b"echo status $?\n")
        self.read_until(stream, b"status 130\r\n")
        self.client.end_tree(stream)
        self.client.collect(stream)

    def test_whose_supervisor_is_killed_lose_their_command(self):
        stream = self.start("kill -9 $PPID; sleep 60")
        self.client.collect(stream)
        self.client.expect("tree_gone", stream)


class Deadlines(support.SandboxTest):
    def test_end_the_tree_and_are_told(self):
        begin = time.monotonic()
        stream = self.client.start("echo out; (setsid sleep 300 &); sleep 300", timeout_ms=200)
        exited = self.client.collect(stream)
        self.assertLess(time.monotonic() - begin, 3)
        self.assertEqual((exited.out, exited.flags & TIMED_OUT, exited.left_running), (b"out\n", TIMED_OUT, 0))
        self.assertGreaterEqual(exited.ran_ms, 200)
        self.client.expect("tree_gone", stream)

    def test_end_what_ignores_signals_after_the_grace(self):
        stream = self.client.start("trap '' TERM INT HUP; echo ready; while :; do :; done", timeout_ms=200)
        exited = self.client.collect(stream)
        self.assertEqual((exited.signal, exited.flags & TIMED_OUT), (9, TIMED_OUT))
        self.client.expect("tree_gone", stream)

    def test_count_for_the_main_process_only(self):
        stream = self.client.start("sleep 300 & echo main", timeout_ms=300)
        self.assertEqual(self.client.collect(stream).left_running, 1)
        with self.assertRaises(Timeout):
            self.client.receive(stream, timeout=0.5)
        self.assertIn("sleep", self.sandbox.processes())
        self.client.send("signal", stream, struct.pack("<I", 15))
        self.client.expect("tree_gone", stream)
        self.client.forget(stream)


if __name__ == "__main__":
    support.main()
