"""Commands always end, never flood, and go on in the background when they should."""
import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import unittest

from process_case import LONG, ProcessCase, SharedFolder, commands_left, cpu_seconds, forget_peak, host_processes, status_bytes
from sandbox_case import SLOW, call, leaks, skip_when_impossible, slow, wait_for

MIB = 1 << 20

# Each prints `here` and would go on for minutes.
LONG_COMMANDS = {
    "a pipeline": "echo here; sleep 300 | cat",
    "one in a session of its own": "echo here; (setsid sleep 300 &) ; sleep 300",
    "nohup": "echo here; nohup sleep 300 >/dev/null 2>&1 & sleep 300",
    "one that stops itself": "echo here; kill -STOP $$; sleep 300",
    "a stopped grandchild": "echo here; sh -c 'sleep 300 & kill -STOP $!; wait' & sleep 300",
    "a session of its own that ignores TERM": "echo here; (setsid sh -c 'trap \"\" TERM INT HUP; sleep 300; sleep 300' &); sleep 300",
    "a vfork child that sleeps": "echo here; exec python3 -c 'import ctypes, time; ctypes.CDLL(None).vfork(); time.sleep(300)'",
    "one that closed its output": "echo here; exec >&- 2>&-; sleep 300",
    "one that waits for input": "echo here; exec sleep 300 <<< x",
}
# What takes a whole processor is on its own.
BUSY_COMMANDS = {
    "a flood": "echo here; yes",
    "a flood without lines": "echo here; dd if=/dev/zero bs=1M count=10000",
    "a loop that ignores signals": "echo here; trap '' TERM INT HUP; while :; do :; done",
    "a flood through a pipe": "echo here; dd if=/dev/zero bs=1M count=1000000 | cat >/dev/null",
}
# 10 + 100 + 1000 processes, each in a session of its own, whose parents have ended.
FORK_TREE = """echo here; exec perl -MPOSIX=setsid -e '
sub tree { my $depth = shift; if ($depth == 0) { sleep 300; exit }
  for (1..10) { if (!fork) { setsid; $SIG{TERM} = "IGNORE"; tree($depth - 1) } } sleep 300 if $depth == 3; exit }
tree(3)'"""


class Deadlines(ProcessCase):
    def assert_times_out(self, command, what, **limits):
        box = self.box(**limits)
        start = time.monotonic()
        result = self.call("sandbox_exec", sandbox_id=box, command=command, timeout_s=1)
        took = time.monotonic() - start
        with self.subTest(what):
            self.assertLess(took, 4 * SLOW)
            self.assertFalse(result.is_error, result.text)
            done = result.structured
            self.assertEqual((done["end"], done["stdout"][:5]), ("timed_out", "here\n"), result.text[:500])
            self.assertGreaterEqual(done["duration_ms"], 1000)
            self.assertNotIn("process_id", done)
            self.assertRegex(result.text, r"^timed out: ended with all that it had started after \d")
            self.assert_nothing_left(box, what)
        self.ok("sandbox_destroy", sandbox_id=box)

    def test_end_a_whole_tree_however_it_hides(self):
        self.at_once([lambda c=c, w=w: self.assert_times_out(c, w) for w, c in LONG_COMMANDS.items()])

    def test_end_what_takes_all_the_processor(self):
        left = list(BUSY_COMMANDS.items())
        while left:  # two at once: more would only wait for each other
            pair, left = left[:2], left[2:]
            self.at_once([lambda c=c, w=w: self.assert_times_out(c, w) for w, c in pair])

    def test_end_a_thousand_processes_that_daemonize(self):
        self.assert_times_out(FORK_TREE, "a tree of 1,110", pids=1300, memory="2g")

    def test_let_a_command_end_by_itself_after_sigterm(self):
        done = self.ok("sandbox_exec", timeout_s=0.5, command="trap 'echo cleaned up; exit 3' TERM; sleep 300 & wait")
        self.assertEqual((done["end"], done["stdout"]), ("timed_out", "cleaned up\n"))

    def test_hold_after_the_command_went_on_in_the_background(self):
        box = self.box()
        done = self.ok("sandbox_exec", sandbox_id=box, command="echo here; sleep 300", timeout_s=1.5, yield_s=0.2)
        self.assertEqual((done["end"], done["stdout"]), ("running", "here\n"))
        self.assertEqual(self.ended(box, done["process_id"])["end"], "timed_out")
        self.assert_nothing_left(box)

    def test_count_for_the_background_only_when_given(self):
        box = self.box()
        limited, free = self.start(box, "sleep 300", timeout_s=0.5), self.start(box, "sleep 300")
        self.assertEqual(self.ended(box, limited)["end"], "timed_out")
        self.assertEqual(self.process(box, "read", free)["processes"][0]["state"], "running")

    def test_of_a_terminal_end_all_of_it(self):
        box = self.box()
        done = self.ok("sandbox_exec", sandbox_id=box, command="echo here; (setsid sleep 300 &); trap '' HUP INT; sleep 300",
                       tty=True, timeout_s=0.5)
        self.assertEqual((done["end"], done["stdout"]), ("timed_out", "here\n"))
        self.assert_nothing_left(box)


class Cancellation(ProcessCase):
    def test_ends_a_whole_tree_and_sends_nothing(self):
        def cancel(what, command):
            box = self.box(pids=1300, memory="2g")
            call_ = self.client.submit_tool("sandbox_exec", {"sandbox_id": box, "command": "touch started; " + command})
            wait_for("it has started", lambda: self.ok("sandbox_exec", sandbox_id=box, command="test -e started")["exit_code"] == 0)
            call_.cancel()
            wait_for(f"all of {what} has ended", lambda: not commands_left(box), 3)
            self.assertFalse(call_.answered_within(0.1), what)
            self.assert_nothing_left(box, what)

        self.at_once([lambda w=w: cancel(w, LONG_COMMANDS[w]) for w in (
            "a pipeline", "one in a session of its own", "one that stops itself", "a session of its own that ignores TERM",
            "a vfork child that sleeps")])
        cancel("a loop that ignores signals", BUSY_COMMANDS["a loop that ignores signals"])
        cancel("a flood", BUSY_COMMANDS["a flood"])
        if LONG:
            cancel("a tree of 1,110", FORK_TREE)

    def test_of_a_cancelled_call_the_output_can_still_be_read(self):
        box = self.ok("sandbox_create")["sandbox_id"]
        call_ = self.client.submit_tool("sandbox_exec", {"sandbox_id": box, "command": "echo before; touch on; sleep 300"})
        while self.ok("sandbox_exec", sandbox_id=box, argv=["test", "-e", "on"])["exit_code"] != 0:
            pass
        call_.cancel()
        # Ended and told: the waiting is for the process, which the cancelled call leaves in the list.
        listed = wait_for("the cancelled command is listed",
                          lambda: self.ok("sandbox_process", action="list", sandbox_id=box)["processes"])
        self.assertEqual([p["end"] for p in listed], ["cancelled"])
        read = self.ok("sandbox_process", action="read", sandbox_id=box, process_id=listed[0]["process_id"])
        self.assertEqual(read["output"], "before\n")

    def test_of_a_call_that_waits_for_a_process_leaves_the_process_alone(self):
        box = self.box()
        number = self.start(box, "sleep 300")
        call_ = self.client.submit_tool("sandbox_process", {"sandbox_id": box, "action": "wait", "process_id": number, "wait_s": 300})
        call_.cancel()
        self.assertEqual(self.process(box, "read", number)["processes"][0]["state"], "running")
        self.assertFalse(call_.answered_within(0.1))

    def test_after_the_command_went_on_in_the_background_does_nothing(self):
        box = self.box()
        call_ = self.client.submit_tool("sandbox_exec", {"sandbox_id": box, "command": "sleep 300", "yield_s": 0.1})
        number = call_.result(30 * SLOW)["structuredContent"]["process_id"]
        call_.cancel()
        self.client.ping()
        self.assertEqual(self.process(box, "read", number)["processes"][0]["state"], "running")


class Leftovers(ProcessCase):
    def test_do_not_hold_the_answer_and_can_be_read_and_ended(self):
        box = self.box()
        result = self.call("sandbox_exec", sandbox_id=box,
                           command="(while [ ! -e go ]; do sleep 0.01; done; echo later; exec sleep 300) & echo now; exit 4")
        done = result.structured
        self.assertEqual((done["end"], done["exit_code"], done["stdout"]), ("exited", 4, "now\n"))
        number = done["process_id"]
        self.assertRegex(result.text, rf"still runs? as process {number}\b")
        view = self.process(box, "read", number)["processes"][0]
        self.assertEqual((view["state"], view["end"], view["exit_code"]), ("left_running", "exited", 4))
        self.sh("touch go", sandbox_id=box)
        self.assertEqual(self.read_until(box, number, "later"), "later\n")
        self.assertEqual(self.process(box, "signal", number)["processes"][0]["state"], "ended")
        self.assert_nothing_left(box)

    def test_end_with_their_sandbox(self):
        box = self.box()
        self.assertIn("process_id", self.ok("sandbox_exec", sandbox_id=box, command="(setsid sleep 300 &); sleep 300 & echo now"))
        self.assertTrue(commands_left(box))
        self.ok("sandbox_destroy", sandbox_id=box)
        wait_for("none is left", lambda: not host_processes(box))

    def test_that_ignore_signals_are_ended_too(self):
        box = self.box()
        done = self.ok("sandbox_exec", sandbox_id=box, command="(setsid sh -c 'trap \"\" TERM; while :; do sleep 300; done' &) ; echo now")
        self.assertEqual(self.process(box, "signal", done["process_id"])["processes"][0]["state"], "ended")
        self.assert_nothing_left(box)

    def test_of_one_command_do_not_get_the_signals_of_another(self):
        box = self.box()
        one, two = (self.ok("sandbox_exec", sandbox_id=box, command="sleep 300 & echo now")["process_id"] for _ in range(2))
        self.process(box, "signal", one, signal="KILL")
        self.assertEqual([p["process_id"] for p in self.ok("sandbox_process", sandbox_id=box, action="list")["processes"]
                          if p["state"] == "left_running"], [two])


class Supervisors(ProcessCase):
    """A command that turns on who watches it loses its strays, and the sandbox lives on."""

    def assert_lost(self, command):
        box = self.box()
        start = time.monotonic()
        result = self.call("sandbox_exec", sandbox_id=box, command="echo here; (setsid sleep 300 &); " + command, timeout_s=20)
        self.assertLess(time.monotonic() - start, 15 * SLOW, "at once, not by the deadline")
        self.assertFalse(result.is_error, result.text)
        self.assertEqual(result.structured["stdout"], "here\n")
        self.assertRegex(result.text, "ended its own supervisor")
        self.assert_nothing_left(box, command)
        self.assertEqual(self.sh("echo on", sandbox_id=box), "on\n")

    def test_killed(self):
        self.assert_lost("kill -9 $PPID; sleep 300")

    def test_killed_with_everything_else(self):
        self.assert_lost("kill -9 -1; sleep 300")

    def test_stopped_does_not_hold_a_deadline(self):
        box = self.box()
        start = time.monotonic()
        done = self.ok("sandbox_exec", sandbox_id=box, command="echo here; (setsid sleep 300 &); kill -STOP $PPID; sleep 300", timeout_s=1)
        self.assertLess(time.monotonic() - start, 5 * SLOW)
        self.assertEqual((done["end"], done["stdout"]), ("timed_out", "here\n"))
        self.assert_nothing_left(box)

    def test_stopped_does_not_hold_an_end(self):
        done = self.ok("sandbox_exec", sandbox_id=self.box(), command="kill -STOP $PPID; echo here; exit 6")
        self.assertEqual((done["exit_code"], done["stdout"]), (6, "here\n"))

    def test_of_a_background_process_killed(self):
        box = self.box()
        number = self.start(box, "echo here; (setsid sleep 300 &); read x; kill -9 $PPID; sleep 300")
        other = self.start(box, "sleep 300")
        self.process(box, "write", number, input="\n")
        self.assertEqual(self.ended(box, number)["end"], "signaled")
        self.assertEqual(self.process(box, "read", number, cursor=0)["output"], "here\n")
        self.assertEqual(self.process(box, "read", other)["processes"][0]["state"], "running", "somebody else's")


class Memory(ProcessCase):
    HOG = "python3 -c 'x = []\nwhile True: x.append(bytearray(16 << 20))'"

    def test_filled_again_and_again_gives_an_answer_each_time(self):
        box = self.box(memory="64m")
        background = self.start(box, "echo here; exec sleep 300")
        for _ in range(100 if LONG else 5):
            result = self.call("sandbox_exec", sandbox_id=box, command=self.HOG)
            self.assertFalse(result.is_error, result.text)
            self.assertEqual(result.structured["end"], "oom_killed", result.text)
            self.assertRegex(result.text, "memory limit of 64m")
        self.assertEqual(self.sh("echo on", sandbox_id=box), "on\n")
        self.assertEqual(self.process(box, "read", background)["processes"][0]["state"], "running", "it took no memory")

    def test_filled_in_the_background_is_told_there_each_time(self):
        box = self.box(memory="64m")
        for _ in range(100 if LONG else 5):
            view = self.ended(box, self.start(box, self.HOG))
            self.assertEqual(view["end"], "oom_killed", view)
        self.assertEqual(self.sh("echo on", sandbox_id=box), "on\n")

    def test_filled_by_many_at_once_never_takes_the_agent(self):
        box = self.box(memory="64m")
        done = self.ok("sandbox_exec", sandbox_id=box, command="for i in 1 2 3 4 5; do " + self.HOG + " & done; wait; echo over; exit 1")
        self.assertEqual(done["stdout"], "over\n")
        self.assertRegex(str(done["notes"]), "memory limit of 64m")

    def test_a_kill_from_elsewhere_is_no_lack_of_memory(self):
        box = self.box(memory="64m")
        self.assertEqual(self.ok("sandbox_exec", sandbox_id=box, command=self.HOG)["end"], "oom_killed")
        self.assertEqual(self.ok("sandbox_exec", sandbox_id=box, command="kill -9 $$")["end"], "signaled")
        number = self.start(box, "sleep 300")
        self.process(box, "signal", number, signal="KILL")
        self.assertEqual(self.ended(box, number)["end"], "signaled")
        # Nor what happened to others before.
        self.assertEqual(self.ended(box, self.start(box, self.HOG))["end"], "oom_killed")
        done = self.ok("sandbox_exec", sandbox_id=box, command="kill -9 $$")
        self.assertEqual((done["end"], done["notes"]), ("signaled", []))
        self.assertEqual(self.ok("sandbox_exec", sandbox_id=box, command=self.HOG + "; true")["end"], "exited")
        self.assertEqual(self.ok("sandbox_exec", sandbox_id=box, command="kill -9 $$")["end"], "signaled")


class Output(ProcessCase):
    server_settings = {"HUTCH_LIMITS__LOG_MAX": "300k"}

    def test_is_whole_in_the_log_up_to_its_cap(self):
        box = self.box()
        done = self.ok("sandbox_exec", sandbox_id=box, command="seq 1 40000")
        whole = "".join(f"{n}\n" for n in range(1, 40001))
        self.assertEqual(self.sh(f"sha256sum < {done['log']}; seq 1 40000 | sha256sum", sandbox_id=box).split("\n")[0],
                         self.sh("seq 1 40000 | sha256sum", sandbox_id=box).strip())
        self.assertTrue(done["stdout"].startswith("1\n2\n") and done["stdout"].endswith("\n40000\n"))
        self.assertTrue(done["truncated"])
        cut = int(re.search(r"\[\.\.\. (\d+) of (\d+) bytes cut here", done["stdout"])[1])
        self.assertEqual(len(re.sub(r"\[\.\.\. .* \.\.\.\]\n", "", done["stdout"])) + cut, len(whole))

    def test_past_the_cap_keeps_the_log_at_the_cap_and_the_last_lines_in_the_result(self):
        box = self.box()
        done = self.ok("sandbox_exec", sandbox_id=box, command="seq 1 200000; echo the last line")
        self.assertTrue(done["stdout"].endswith("\n200000\nthe last line\n"), done["stdout"][-100:])
        self.assertEqual(self.sh(f"stat -c %s {done['log']}; seq 1 200000 | head -c 307200 | cmp - {done['log']} && echo same", sandbox_id=box),
                         "307200\nsame\n")

    def test_past_the_cap_is_read_up_to_the_cap_and_from_the_end(self):
        box = self.box()
        number = self.start(box, "seq 1 200000; echo the last line")
        self.ended(box, number)
        piece = self.process(box, "read", number, cursor=0, output_limit=1_000_000)
        whole = "".join(f"{n}\n" for n in range(1, 200001)) + "the last line\n"
        self.assertEqual(piece["output"], whole[:307200])
        self.assertNotIn("bytes_skipped", piece)
        rest = self.process(box, "read", number, output_limit=1_000_000)
        self.assertEqual(rest["output"], whole[307200 + rest["bytes_skipped"]:])
        self.assertGreaterEqual(len(rest["output"]), 60000)
        self.assertEqual(self.process(box, "read", number, cursor=-14)["output"], "the last line\n")
        # A flood that nobody reads: the reader comes late, loses the middle, and is told how much.
        self.assertRegex(self.call("sandbox_process", sandbox_id=box, action="read", process_id=number, cursor=307200).text,
                         rf"{rest['bytes_skipped']} bytes are not stored any more")

    def test_invalid_bytes_and_nul_are_shown_and_kept_as_they_are_in_the_log(self):
        done = self.ok("sandbox_exec", command=r"printf 'a\xff\xfeb\0c\xc3d\n'")
        self.assertEqual(done["stdout"], "a\ufffd\ufffdb\0c\ufffdd\n")
        self.assertEqual(self.sh(f"od -An -tx1 {done['log']}").split(), "61 ff fe 62 00 63 c3 64 0a".split())

    def test_characters_that_come_in_pieces_come_out_whole(self):
        done = self.ok("sandbox_exec", command=r"printf '\xe2'; sleep .05; printf '\x82\xac\n'; printf '\xf0\x9f'; sleep .05; printf '\x98\x80\n'")
        self.assertEqual(done["stdout"], "€\n😀\n")
        box = self.box()
        number = self.start(box, r"printf 'x\xe2'; read x; printf '\x82\xac\n'")
        self.assertEqual(self.read_until(box, number, "x"), "x")
        self.process(box, "write", number, input="\n")
        self.assertEqual(self.read_until(box, number, "\n"), "€\n")

    def test_a_character_that_never_gets_whole_is_shown_in_the_end(self):
        box = self.box()
        number = self.start(box, r"printf 'x\xe2\x82'")
        self.ended(box, number)
        self.assertEqual(self.process(box, "read", number, cursor=0)["output"].rstrip("\ufffd"), "x")
        self.assertEqual(self.process(box, "read", number, cursor=0)["cursor"], 3)

    def test_cut_in_the_middle_of_characters_stays_valid(self):
        for limit in (200, 201, 202, 203):
            done = self.ok("sandbox_exec", command="printf '€%.0s' $(seq 1 1000)", output_limit=limit)
            self.assertRegex(done["stdout"], r"^€+\n\[\.\.\. \d+ of 3000 bytes cut here[^\n]*\]\n€+$")

    def test_into_a_closed_or_removed_log_does_not_matter(self):
        box = self.box()
        number = self.start(box, "echo one; read x; echo two; read x; echo three")
        self.assertEqual(self.read_until(box, number, "one"), "one\n")
        self.sh("rm -rf /var/log/hutch", sandbox_id=box)
        self.process(box, "write", number, input="\n")
        self.assertEqual(self.read_until(box, number, "two"), "two\n")
        self.assertEqual(self.process(box, "read", number, cursor=0)["output"], "one\ntwo\n")
        self.process(box, "write", number, input="\n")
        self.ended(box, number)
        self.assertEqual(self.process(box, "read", number, cursor=0)["output"], "one\ntwo\nthree\n")

    def test_in_a_log_that_the_sandbox_shortened_or_changed_is_never_a_fault(self):
        box = self.box()
        number = self.start(box, "seq 1 1000; read x; echo more")
        self.read_until(box, number, "1000\n")
        self.sh("truncate -s 10 /var/log/hutch/*.log 2>/dev/null; true", sandbox_id=box)
        self.process(box, "write", number, input="\n")
        self.ended(box, number)
        self.assertFalse(self.call("sandbox_process", sandbox_id=box, action="read", process_id=number, cursor=0).is_error)
        self.assertFalse(self.call("sandbox_process", sandbox_id=box, action="read", process_id=number, cursor=2000).is_error)

    def test_of_the_sandbox_may_not_lead_the_log_elsewhere(self):
        box = self.box()
        self.sh("rm -rf /var/log/hutch; mkdir /workspace/there; ln -s /workspace/there /var/log/hutch", sandbox_id=box)
        self.assertEqual(self.sh("echo on", sandbox_id=box), "on\n")
        number = self.start(box, "echo one; echo two")
        self.ended(box, number)
        self.assertEqual(self.process(box, "read", number, cursor=0)["output"], "one\ntwo\n")
        self.assertEqual(self.sh("ls /workspace/there", sandbox_id=box), "")


@unittest.skipIf(SLOW > 1, "the memory of a sanitizer build says nothing")
class Floods(ProcessCase):
    """What is printed costs neither the server nor the agent memory."""
    BYTES = 10_000_000_000 if LONG else 1_000_000_000

    def setUp(self):
        self.made = self.box()
        self.sh("true", sandbox_id=self.made)
        self.agent = next(pid for pid, name in host_processes(self.made).items() if name == "hutch-agent")
        self.before = {}
        for pid in (self.client.pid, self.agent):
            forget_peak(pid)
            self.before[pid] = status_bytes(pid, "VmRSS")

    def assert_small(self, size):
        grown = {pid: status_bytes(pid, "VmHWM") - before for pid, before in self.before.items()}
        if os.environ.get("HUTCHTEST_FIGURES"):
            print(f"     {size} bytes: server +{grown[self.client.pid] >> 10} KiB, agent +{grown[self.agent] >> 10} KiB")
        self.assertLess(grown[self.client.pid], 32 * MIB)
        self.assertLess(grown[self.agent], 4 * MIB)

    @slow
    def test_in_a_call(self):
        done = self.ok("sandbox_exec", sandbox_id=self.made, timeout_s=600, yield_s=600, _timeout=600,
                       command=f"yes 'a line of the flood' | head -c {self.BYTES}; echo; echo the last line")
        self.assertEqual((done["end"], done["exit_code"]), ("exited", 0))
        self.assertTrue(done["stdout"].endswith("\nthe last line\n"))
        self.assertTrue(done["stdout"].startswith("a line of the flood\n"))
        self.assert_small(self.BYTES)

    @slow
    def test_in_the_background(self):
        size = self.BYTES if LONG else self.BYTES // 4
        number = self.start(self.made, f"yes 'a line of the flood' | head -c {size}; echo; echo the last line")
        while self.process(self.made, "read", number, output_limit=100_000)["processes"][0]["state"] == "running":
            pass  # somebody reads meanwhile
        self.assertRegex(self.process(self.made, "read", number, cursor=-30)["output"], "the last line\n$")
        self.assert_small(size)

    @slow
    def test_in_one_line(self):
        size = 1_000_000_000 if LONG else 200_000_000
        done = self.ok("sandbox_exec", sandbox_id=self.made, timeout_s=600, yield_s=600, _timeout=600,
                       command=f"head -c {size} /dev/zero | tr '\\0' x")
        self.assertIn(f"of {size} bytes cut here", done["stdout"])
        self.assertLess(len(done["stdout"]), 11_000)
        self.assert_small(size)


class Background(ProcessCase):
    def test_is_listed_read_written_to_signalled_and_waited_for(self):
        box = self.box()
        self.assertEqual(self.ok("sandbox_process", sandbox_id=box, action="list")["processes"], [])
        number = self.start(box, "echo ready; while read line; do echo got $line; done; echo over; exit 3")
        listed = self.ok("sandbox_process", sandbox_id=box, action="list")["processes"]
        self.assertEqual([(p["process_id"], p["state"], p["tty"]) for p in listed], [(number, "running", False)])
        self.assertIn("while read line", listed[0]["command"])
        self.assertEqual(self.read_until(box, number, "ready\n"), "ready\n")
        answer = self.process(box, "write", number, input="one\n", wait_s=10)
        self.assertEqual(answer["output"], "got one\n")
        self.process(box, "write", number, input="two\nthree", eof=True)
        done = self.process(box, "wait", number, wait_s=30)
        view = done["processes"][0]
        self.assertEqual((view["state"], view["end"], view["exit_code"]), ("ended", "exited", 3))
        self.assertEqual(done["output"], "got two\nover\n")
        self.assertEqual(self.process(box, "read", number)["output"], "", "nothing twice")

    def test_signals_reach_the_command_and_tell_how_it_ended(self):
        box = self.box()
        number = self.start(box, "trap 'echo one' USR1; trap 'echo bye; exit 7' INT; echo ready; while :; do sleep 0.05; done")
        self.read_until(box, number, "ready")
        self.process(box, "signal", number, signal="USR1")
        self.read_until(box, number, "one")
        self.process(box, "signal", number, signal="SIGINT")
        self.assertEqual(self.ended(box, number)["exit_code"], 7)
        for name in ("TERM", "kill", "9", "SIGHUP"):
            number = self.start(box, "exec sleep 300")
            view = self.process(box, "signal", number, signal=name, wait_s=10)["processes"][0]
            self.assertEqual((view["state"], view["end"]), ("ended", "signaled"), name)
            self.assertIn(view["signal"], ("SIGTERM", "SIGKILL", "SIGHUP"))

    def test_stopped_goes_on_when_it_is_continued(self):
        box = self.box()
        number = self.start(box, "echo ready; i=0; while :; do echo $((i++)); sleep 0.01; done")
        self.read_until(box, number, "ready")
        self.process(box, "signal", number, signal="STOP")
        wait_for("it stands still", lambda: self.process(box, "read", number)["output"]
                 + self.process(box, "read", number, wait_s=0.2)["output"] == "")
        self.process(box, "signal", number, signal="CONT")
        self.read_until(box, number, r"\d")
        self.process(box, "signal", number, signal="STOP")
        self.assertEqual(self.process(box, "signal", number)["processes"][0]["state"], "ended", "a stopped one too")

    def test_waiting_ends_when_its_time_is_over_or_the_process(self):
        box = self.box()
        number = self.start(box, "echo out; read x; exit 2")
        view = self.process(box, "wait", number, wait_s=0.1)
        self.assertEqual(view["processes"][0]["state"], "running")
        waiting = self.client.submit_tool("sandbox_process", {"sandbox_id": box, "action": "wait", "process_id": number, "wait_s": 100})
        self.process(box, "write", number, eof=True)
        self.assertEqual(waiting.result(30 * SLOW)["structuredContent"]["processes"][0]["exit_code"], 2)

    def test_reading_waits_for_output_also_at_a_cursor(self):
        box = self.box()
        number = self.start(box, "read x; echo first; read x; echo second; sleep 300")
        first = self.client.submit_tool("sandbox_process", {"sandbox_id": box, "action": "read", "process_id": number, "wait_s": 60})
        self.process(box, "write", number, input="\n")
        first = first.result(30 * SLOW)["structuredContent"]
        self.assertEqual(first["output"], "first\n")
        second = self.client.submit_tool("sandbox_process", {"sandbox_id": box, "action": "read", "process_id": number, "wait_s": 60,
                                                             "cursor": first["cursor"]})
        self.process(box, "write", number, input="\n")
        self.assertEqual(second.result(30 * SLOW)["structuredContent"]["output"], "second\n")

    def test_pieces_put_together_are_what_was_printed(self):
        box = self.box()
        program = ("import sys\nfor i in range(60000): sys.stdout.write(f'{i} é€😀 häßlich 漢字\\n')\n")
        self.ok("sandbox_write_file", sandbox_id=box, path="p.py", content=program)
        number = self.start(box, "PYTHONIOENCODING=utf8 python3 p.py")
        pieces, cursor = [], 0
        while True:
            seen = self.process(box, "read", number, output_limit=77_777, wait_s=1)
            pieces.append(seen["output"])
            cursor += len(seen["output"].encode())
            self.assertEqual(seen["cursor"], cursor)
            self.assertNotIn("bytes_skipped", seen)
            if seen["processes"][0]["state"] == "ended" and "bytes_left" not in seen and not seen["output"]:
                break
        whole = "".join(f"{i} é€😀 häßlich 漢字\n" for i in range(60000))
        self.assertTrue("".join(pieces) == whole, (len("".join(pieces)), len(whole)))
        size = len(whole.encode())
        # Explicit places: the start, one within, from the end, past the end.
        self.assertEqual(self.process(box, "read", number, cursor=0, output_limit=200)["output"][:20], whole[:20])
        self.assertEqual(self.process(box, "read", number, cursor=-28)["output"], whole.encode()[-28:].decode(errors="replace"))
        self.assertEqual(self.process(box, "read", number, cursor=-size - 5, output_limit=200)["output"][:20], whole[:20])
        past = self.process(box, "read", number, cursor=size + 1000)
        self.assertEqual((past["output"], past["cursor"]), ("", size))
        # A read at a place moves the place of the next one.
        self.process(box, "read", number, cursor=0, output_limit=200)
        after = self.process(box, "read", number, output_limit=200)["output"]
        self.assertEqual(after.encode(), whole.encode()[after_start(whole, 200):][:len(after.encode())])

    def test_two_readers_at_once_get_each_byte_once(self):
        box = self.box()
        number = self.start(box, "for i in $(seq 10000 29999); do echo $i; done")
        pieces, lock = [], threading.Lock()

        def read():
            while True:
                seen = self.process(box, "read", number, output_limit=500, wait_s=1)
                with lock:
                    pieces.append((seen["cursor"] - len(seen["output"]), seen["output"]))
                if seen["processes"][0]["state"] == "ended" and not seen["output"]:
                    return

        self.at_once([read] * 3)
        at = 0
        for start, text in sorted(p for p in pieces if p[1]):
            self.assertEqual(start, at)
            at += len(text)
        self.assertEqual("".join(text for _, text in sorted(pieces)), "".join(f"{n}\n" for n in range(10000, 30000)))

    def test_nothing_is_lost_or_repeated_where_a_call_goes_on_in_the_background(self):
        box = self.box()
        for _ in range(3):
            done = self.ok("sandbox_exec", sandbox_id=box, yield_s=0.1, output_limit=1_000_000,
                           command="for i in $(seq 100000 102999); do echo $i; [ $((i % 100)) = 0 ] && sleep 0.01; done; true")
            self.assertEqual(done["end"], "running", done["stdout"][-100:])
            self.assertGreater(len(done["stdout"]), 0)
            rest = ""
            while (seen := self.process(box, "read", done["process_id"], wait_s=5, output_limit=1_000_000))["output"] \
                    or seen["processes"][0]["state"] != "ended":
                rest += seen["output"]
            self.assertEqual(done["stdout"] + rest, "".join(f"{n}\n" for n in range(100000, 103000)))

    def test_a_flood_that_goes_on_in_the_background_is_not_repeated(self):
        box = self.box()
        done = self.ok("sandbox_exec", sandbox_id=box, yield_s=0.2,
                       command="awk 'BEGIN { for (i = 1; i < 100000000; i++) print i }'")  # slow enough for the log's cap
        self.assertEqual(done["end"], "running")
        last = int(done["stdout"].rstrip("\n").rsplit("\n", 2)[-2])
        text = self.read_until(box, done["process_id"], r"(\d\n.*){3}", output_limit=100_000)
        number = [int(n) for n in text.split("\n")[1:-1]]
        self.assertGreater(number[0], last)
        self.assertLessEqual(number[0], last + 3)
        self.assertEqual(number, list(range(number[0], number[0] + len(number))))
        self.process(box, "signal", done["process_id"], signal="KILL")

    def test_both_streams_of_a_call_come_apart_and_together_afterwards(self):
        box = self.box()
        done = self.ok("sandbox_exec", sandbox_id=box, yield_s=0.3, stdin="given\n",
                       command="cat; echo err >&2; while [ ! -e go ]; do sleep 0.01; done; echo out; echo err >&2")
        self.assertEqual((done["end"], done["stdout"], done["stderr"]), ("running", "given\n", "err\n"))
        self.sh("touch go", sandbox_id=box)
        self.assertEqual(sorted(self.read_until(box, done["process_id"], "(?s)out.*err|err.*out").split()), ["err", "out"])

    def test_a_call_that_writes_what_nobody_reads_holds_nothing_and_can_be_cancelled(self):
        box = self.box()
        number = self.start(box, "echo here; sleep 300")
        writing = self.client.submit_tool("sandbox_process", {"sandbox_id": box, "action": "write", "process_id": number,
                                                              "input": "x" * 2_000_000})
        self.assertEqual(self.read_until(box, number, "here"), "here\n")
        writing.cancel()
        self.process(box, "signal", number)
        self.assertFalse(writing.answered_within(0.1))

    @unittest.skipUnless(LONG, "takes 10 s")
    def test_input_that_nobody_reads_is_not_waited_for_forever(self):
        box = self.box()
        number = self.start(box, "sleep 300")
        start = time.monotonic()
        done = self.process(box, "write", number, input="x" * 2_000_000)
        self.assertLess(time.monotonic() - start, 20 * SLOW)
        self.assertRegex(str(done["notes"]), r"only the first \d+ of 2000000 bytes")

    def test_a_megabyte_of_input_arrives(self):
        box = self.box()
        number = self.start(box, "sha256sum; echo end")
        self.process(box, "write", number, input="häßlich\n" * 200_000)
        self.process(box, "write", number, eof=True)
        self.ended(box, number)
        self.assertIn(hashlib.sha256(("häßlich\n" * 200_000).encode()).hexdigest(), self.process(box, "read", number, cursor=0)["output"])

    def test_the_latest_that_have_ended_are_kept_and_the_oldest_forgotten(self):
        box = self.box()
        numbers = [self.start(box, f"echo {i}") for i in range(70)]
        for number in numbers[-64:]:
            self.ended(box, number)
        self.sh("true", sandbox_id=box)
        listed = [p["process_id"] for p in self.ok("sandbox_process", sandbox_id=box, action="list")["processes"]]
        self.assertEqual(listed, numbers[-64:])
        self.assertEqual(self.process(box, "read", numbers[-1], cursor=0)["output"], "69\n")
        text = self.refused("sandbox_process", sandbox_id=box, action="read", process_id=numbers[0])
        self.assertIn(f"there is no process {numbers[0]}", text)
        self.assertIn("list", text)

    def test_ends_with_its_sandbox(self):
        box = self.box()
        self.start(box, "(setsid sleep 300 &) ; trap '' TERM; sleep 300; sleep 300")
        self.start(box, "sleep 300", tty=True)
        self.ok("sandbox_destroy", sandbox_id=box)
        wait_for("none is left", lambda: not host_processes(box))
        self.assertIn(box, self.refused("sandbox_process", sandbox_id=box, action="list"))

    def test_whose_sandbox_ends_is_told_to_who_waits(self):
        box = self.box()
        number = self.start(box, "sleep 300")
        waiting = self.client.submit_tool("sandbox_process", {"sandbox_id": box, "action": "wait", "process_id": number, "wait_s": 300})
        self.process(box, "read", number)
        self.ok("sandbox_destroy", sandbox_id=box)
        answer = waiting.result(30 * SLOW)
        self.assertTrue(answer["isError"], answer)
        self.assertIn(box, answer["content"][0]["text"])

    def test_two_hundred_cost_no_processor_time_and_can_all_be_ended(self):
        box = self.box(pids=600)
        numbers = self.at_once([lambda: [self.start(box, "exec sleep 300") for _ in range(20)]] * 10)
        numbers = sorted(sum(numbers, []))
        listed = self.ok("sandbox_process", sandbox_id=box, action="list")["processes"]
        self.assertEqual([p["process_id"] for p in listed if p["state"] == "running"], numbers)
        watched = [self.client.pid, *host_processes(box)]
        before = sum(map(cpu_seconds, watched))
        time.sleep(1)  # the thing measured is that nothing happens in it
        used = sum(map(cpu_seconds, watched)) - before
        if os.environ.get("HUTCHTEST_FIGURES"):
            print(f"     200 idle processes: {used:.3f} s of processor time in a second")
        self.assertLess(used, 0.1 * SLOW)
        half = len(numbers) // 2
        self.at_once([lambda part=numbers[i:half:10]: [self.process(box, "signal", n, signal="KILL") for n in part] for i in range(10)])
        self.at_once([lambda part=numbers[half + i::10]: [self.process(box, "signal", n) for n in part] for i in range(10)])
        self.assert_nothing_left(box)


def after_start(text, limit):
    """Where a read of `limit` bytes from the start ends: before a character that does not fit."""
    return len(text.encode()[:limit].decode(errors="ignore").encode())


class Lifetimes(ProcessCase):
    server_settings = {"HUTCH_SANDBOX__BACKGROUND_KEEPS_ALIVE_S": 2}

    def gone(self, box):
        return box not in str(self.ok("sandbox_list")["sandboxes"])

    def test_a_background_process_keeps_its_sandbox_for_a_while(self):
        start = time.monotonic()
        idle, kept, ended = (self.box(idle_timeout_s=1) for _ in range(3))
        self.sh("true", sandbox_id=idle)
        self.start(kept, "sleep 300")
        self.start(ended, "sleep 1")
        wait_for("the idle one is gone", lambda: self.gone(idle))
        self.assertTrue(time.monotonic() - start > 2 or not self.gone(kept))
        wait_for("the one is gone whose process has ended", lambda: self.gone(ended))
        wait_for("the kept one is gone too", lambda: self.gone(kept), 20)
        self.assertGreater(time.monotonic() - start, 2)


class FullDisk(ProcessCase):
    """The data folder is on a disk of its own that is small."""

    @classmethod
    def setUpClass(cls):
        skip_when_impossible()
        if os.geteuid() != 0:
            raise unittest.SkipTest("needs root to mount a small disk")
        cls.disk = tempfile.mkdtemp(prefix="hutch-test-disk-")
        cls.addClassCleanup(shutil.rmtree, cls.disk, ignore_errors=True)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", cls.disk], capture_output=True).returncode != 0:
            raise unittest.SkipTest("cannot mount a small disk")
        cls.addClassCleanup(subprocess.run, ["umount", "-l", cls.disk])
        os.chmod(cls.disk, 0o755)
        super().setUpClass()

    @classmethod
    def env(cls, **extra):
        return {**super().env(**extra), "HUTCH_HOME": cls.disk, "HUTCH_SANDBOX__DISK": "16m", "HUTCH_LIMITS__DISK_OVERCOMMIT": "100",
                "HUTCH_LIMITS__DISK_RESERVE": "0", "HUTCH_LIMITS__DISK_RESERVE_PERCENT": "0"}

    def test_does_not_hold_what_prints_and_its_last_lines_can_be_read(self):
        box = self.box()
        number = self.start(box, "echo first; read x; seq 1 100000; echo the last line")
        self.read_until(box, number, "first")
        full = self.ok("sandbox_exec", sandbox_id=box, command="cat /dev/zero > /workspace/big")
        if "No space left" not in full["stderr"]:
            self.skipTest(f"the disk of the sandbox is not this one: {full}")
        self.process(box, "write", number, input="\n")
        self.ended(box, number)
        self.assertEqual(self.process(box, "read", number, cursor=-14)["output"], "the last line\n")
        done = self.ok("sandbox_exec", sandbox_id=box, command="echo in a call; echo again")
        self.assertEqual((done["end"], done["stdout"]), ("exited", "in a call\nagain\n"))
        self.sh("rm /workspace/big", sandbox_id=box)
        self.assertEqual(self.sh("echo on", sandbox_id=box), "on\n")


class KilledServer(SharedFolder):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        skip_when_impossible()

    def test_in_the_middle_of_background_work_leaves_nothing_after_the_orphans_time(self):
        before = leaks.snapshot(self.home)
        # No pool: one that nobody has greeted yet waits a minute.
        client = self.server("--results", "structured", env={"HUTCH_SANDBOX__ORPHAN_TTL_S": 1, "HUTCH_POOL__MAX": 0})
        self.addCleanup(lambda: client.process.poll() is None and client.close("SIGKILL"))
        call(client, "sandbox_create", name="b")
        for command in ("yes", "trap '' TERM; while :; do sleep 1; done", "(setsid sleep 300 &); cat"):
            for tty in (False, True):
                started = call(client, "sandbox_exec", sandbox_id="b", command=command, background=True, tty=tty)
                self.assertFalse(started.is_error, started.text)
        client.submit_tool("sandbox_process", {"sandbox_id": "b", "action": "wait", "process_id": started.structured["process_id"],
                                               "wait_s": 300})
        client.close("SIGKILL")
        wait_for("all processes of the sandboxes have ended", lambda: not leaks.processes().keys() - before.keys(), 15)
        with self.server("--results", "structured", env={"HUTCH_POOL__MAX": 0}) as after:
            call(after, "sandbox_list")
        leaks.wait_clean(before, self.home)


class BadInput(ProcessCase):
    def assert_refused(self, pattern, **arguments):
        result = self.call("sandbox_process", **arguments)
        self.assertTrue(result.is_error, f"{arguments} was not refused:\n{result.text}")
        self.assertRegex(result.text, pattern)
        error = result.structured["error"]
        self.assertIn(error["code"], ("invalid_argument", "not_found", "conflict"))
        return error

    def test_unknown_processes_are_named_with_those_there_are(self):
        box = self.box()
        for action in ("read", "write", "signal", "wait"):
            self.assert_refused("there is no process 7", sandbox_id=box, action=action, process_id=7)
            self.assert_refused("process_id", sandbox_id=box, action=action)
        number = self.start(box, "sleep 300")
        error = self.assert_refused("there is no process 99", sandbox_id=box, action="read", process_id=99)
        self.assertIn(str(number), error["hint"])
        self.assert_refused("there is no process", sandbox_id=box, action="read", process_id=2**62)
        self.assert_refused("there is no process", sandbox_id=box, action="read", process_id=2**32 + number)
        other = self.box()
        self.assert_refused("there is no process", sandbox_id=other, action="read", process_id=number)

    def test_of_a_process_in_the_foreground_is_not_reachable(self):
        box = self.box()
        done = self.ok("sandbox_exec", sandbox_id=box, command="true")
        self.assertNotIn("process_id", done)
        self.assert_refused("there is no process 1", sandbox_id=box, action="read", process_id=1)

    def test_wrong_signals_name_right_ones(self):
        box = self.box()
        number = self.start(box, "sleep 300")
        for name in ("", "NOPE", "0", "64", "-9", "999", "TERM KILL", "SIGSIGTERM", "é" * 5000):
            error = self.assert_refused("not a signal|invalid|NUL", sandbox_id=box, action="signal", process_id=number, signal=name)
            self.assertIn("TERM", str(error))
        self.assertEqual(self.process(box, "read", number)["processes"][0]["state"], "running")

    def test_writing_to_who_does_not_listen_says_so(self):
        box = self.box()
        left = self.ok("sandbox_exec", sandbox_id=box, command="sleep 300 & true")["process_id"]
        self.assert_refused("no standard input|has ended", sandbox_id=box, action="write", process_id=left, input="x")
        yielded = self.ok("sandbox_exec", sandbox_id=box, command="sleep 300", yield_s=0.1)["process_id"]
        error = self.assert_refused("no standard input", sandbox_id=box, action="write", process_id=yielded, input="x")
        self.assertIn("background", error["hint"])
        ended = self.start(box, "true")
        self.ended(box, ended)
        self.assert_refused("has ended", sandbox_id=box, action="write", process_id=ended, input="x")
        closed = self.start(box, "sleep 300")
        self.process(box, "write", closed, eof=True)
        self.assert_refused("end of its standard input", sandbox_id=box, action="write", process_id=closed, input="x")

    def test_signalling_what_has_ended_is_no_fault(self):
        box = self.box()
        number = self.start(box, "true")
        self.ended(box, number)
        self.assertIn("ended already", str(self.process(box, "signal", number)["notes"]))
        self.assertEqual(self.process(box, "wait", number, wait_s=0)["processes"][0]["state"], "ended")

    def test_arguments_of_the_wrong_type_are_all_named(self):
        box = self.box()
        number = self.start(box, "sleep 300")
        wrong = {"process_id": ["x", -1, 0, 1.5, None, [1], True, 2**70], "cursor": ["x", 1.5, {}, 2**64], "input": [5, [], {}, True],
                 "eof": ["x", 2, []], "signal": [9, [], True], "wait_s": ["x", -1, 3601, [], "NaN", "1e999"], "raw": ["x", 1.5],
                 "output_limit": ["x", 0, 199, 1_000_001, 1.5], "action": ["", "kill", 5, None, ["read"]], "nonsense": [1]}
        for name, values in wrong.items():
            for value in values:
                arguments = {"sandbox_id": box, "action": "read", "process_id": number, name: value}
                result = self.call("sandbox_process", **arguments)
                if result.is_error:
                    self.assertIn(name, result.text, value)
                else:
                    self.assertIn((name, value), (("input", 5), ("signal", 9), ("eof", "x"), ("process_id", None), ("action", None)),
                                  f"{name}={value!r} was taken: {result.text}")
        text = self.refused("sandbox_process", sandbox_id=box, action="nope", process_id="x", wait_s=-1)
        for name in ("action", "process_id", "wait_s"):
            self.assertIn(name, text)

    def test_numbers_as_text_are_taken(self):
        box = self.box()
        number = self.start(box, "echo here; sleep 300")
        self.read_until(box, number, "here")
        self.assertEqual(self.process(box, "read", str(number), cursor="0")["output"], "here\n")

    def test_exec_refuses_what_makes_no_sense(self):
        for arguments in ({"rows": 0, "tty": True}, {"columns": 501, "tty": True}, {"yield_s": 0}, {"yield_s": -1}, {"timeout_s": 0},
                          {"timeout_s": 4000}, {"background": "x"}, {"output_limit": 1}):
            result = self.call("sandbox_exec", command="true", **arguments)
            self.assertTrue(result.is_error, arguments)
            self.assertRegex(result.text, "|".join(arguments))

    def test_a_program_that_is_not_there_is_an_error_in_the_background_too(self):
        box = self.box()
        for more in ({}, {"background": True}, {"tty": True}, {"tty": True, "background": True}, {"yield_s": 1}):
            result = self.call("sandbox_exec", sandbox_id=box, argv=["/no/such/program"], **more)
            self.assertTrue(result.is_error, result.text)
            self.assertIn("/no/such/program", result.text)
        self.assertEqual(self.ok("sandbox_process", sandbox_id=box, action="list")["processes"], [])


if __name__ == "__main__":
    unittest.main()
