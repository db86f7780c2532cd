"""Programs that want a terminal can be driven: keys go in, the screen comes out as text."""
import os
import re
import time
import unittest

from process_case import ProcessCase, forget_peak, host_processes, status_bytes
from sandbox_case import SLOW, wait_for

MIB = 1 << 20

LOG_IN = r"""
echo "Open https://example.com/device and enter the code ABCD-1234"
printf 'Press any key when done... '
IFS= read -r -n1 key
echo
printf 'Passphrase: '
IFS= read -r -s phrase
echo
[ "$key" = y ] && [ "$phrase" = 'a <b> c' ] && echo "Logged in." || echo "Refused: [$key] [$phrase]"
"""


class Foreground(ProcessCase):
    def test_gives_a_terminal_of_the_asked_size_and_returns_its_text(self):
        done = self.ok("sandbox_exec", command="tty; stty size; echo $TERM; [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo all", tty=True,
                       rows=37, columns=133)
        self.assertRegex(done["stdout"], r"^/dev/pts/\d+\n37 133\nxterm-256color\nall\n$")
        self.assertEqual((done["end"], done["exit_code"], done["stderr"]), ("exited", 0, ""))
        self.assertNotIn("process_id", done)
        self.assertEqual(self.ok("sandbox_exec", command="stty size", tty=True)["stdout"], "24 80\n")
        self.assertEqual(self.ok("sandbox_exec", command="tty")["exit_code"], 1, "only when asked for")

    def test_colours_and_overwritten_lines_come_out_as_a_person_sees_them(self):
        done = self.ok("sandbox_exec", tty=True,
                       command=r"printf '\e[1;31mred\e[0m\n'; for i in 1 50 100; do printf '\rprogress %d%%' $i; done; printf '\nDONE\n'; exit 3")
        self.assertEqual((done["stdout"], done["exit_code"]), ("red\nprogress 100%\nDONE\n", 3))

    def test_lines_that_scrolled_off_are_in_the_text(self):
        done = self.ok("sandbox_exec", command="seq 1 300", tty=True)
        self.assertEqual(done["stdout"].split(), [str(n) for n in range(1, 301)])
        self.assertFalse(done["truncated"])

    def test_text_is_bounded_like_other_output(self):
        done = self.ok("sandbox_exec", tty=True, columns=500, output_limit=3000,
                       command="for i in $(seq 1 1500); do printf '%0490d\\n' $i; done; echo the last line")
        self.assertLess(len(done["stdout"]), 3500)
        self.assertTrue(done["stdout"].endswith("\nthe last line\n"))
        self.assertTrue(done["truncated"])
        self.assertIn("log", done)

    def test_nothing_that_was_printed_just_before_the_end_is_lost(self):
        for count in [1, 300, 2000] * 20:
            done = self.ok("sandbox_exec", command=f"seq 1 {count}", tty=True, output_limit=100_000)
            self.assertEqual(done["stdout"].split(), [str(n) for n in range(1, count + 1)])

    def test_a_program_that_asks_the_terminal_gets_its_answer_when_somebody_looks(self):
        box = self.box()
        number = self.start(box, r"stty raw -echo; printf '\e[6n'; IFS= read -r -d R place; stty sane; echo \<${place#??}\>", tty=True)
        self.screen_with(box, number, "<1;1>")

    def test_a_command_line_without_a_terminal_of_its_own_group_is_interrupted_alone(self):
        box = self.box()
        number = self.start(box, "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.05; done", tty=True)
        self.screen_with(box, number, "ready")
        self.process(box, "signal", number, signal="INT")
        self.assertEqual(self.ended(box, number)["exit_code"], 5)


class Dialogues(ProcessCase):
    def test_a_device_code_log_in_is_driven_to_its_end(self):
        box = self.box()
        self.ok("sandbox_write_file", sandbox_id=box, path="log-in.sh", content=LOG_IN)
        started = self.ok("sandbox_exec", sandbox_id=box, command="bash log-in.sh", tty=True, yield_s=0.3)
        self.assertEqual(started["end"], "running")
        number = started["process_id"]
        self.assertIn("enter the code ABCD-1234", started["stdout"] or self.screen_with(box, number, "Press any key")["output"])
        asked = self.screen_with(box, number, "Press any key")
        self.assertEqual((asked["cursor_row"], asked["cursor_column"]), (2, 28))
        answer = self.process(box, "write", number, input="y")  # waits for an answer, as terminals make one do
        self.assertIn("Passphrase:", answer["output"] + self.screen_with(box, number, "Passphrase:")["output"])
        answer = self.type(box, number, "a <lt>b> c<enter>", wait_s=10)
        self.assertIn("Logged in.", answer["output"] + self.screen_with(box, number, "Logged in|Refused")["output"])
        self.assertNotIn("<b>", self.process(box, "read", number)["output"], "what is not echoed is not on the screen")
        self.assertEqual(self.ended(box, number)["exit_code"], 0)

    def test_the_answer_to_a_key_comes_with_the_call_that_types_it(self):
        box = self.box()
        number = self.start(box, "while read -p '> ' line; do echo \"you said $line\"; done", tty=True)
        self.screen_with(box, number, "^>")
        self.assertIn("you said hello", self.type(box, number, "hello\n", wait_s=10)["output"])
        self.assertIn("you said <div> 5 < 6", self.type(box, number, "<div> 5 < 6<enter>", wait_s=10)["output"])
        self.assertIn("you said häß 漢 😀", self.type(box, number, "häß 漢 😀\n", wait_s=10)["output"])

    def test_control_c_interrupts_and_control_d_ends_input(self):
        box = self.box()
        number = self.start(box, "cat; echo cat ended with $?; sleep 300; echo sleep ended with $?", tty=True)
        self.type(box, number, "abc<enter>")
        self.screen_with(box, number, r"abc\nabc")
        self.process(box, "write", number, eof=True)
        self.screen_with(box, number, "cat ended with 0")
        self.type(box, number, "<c-c>")
        view = self.ended(box, number)
        self.assertEqual(view["end"], "signaled")
        number = self.start(box, "bash --norc -i", tty=True)
        self.screen_with(box, number, r"[$#] ?$")
        self.type(box, number, "(echo first; exec sleep 300)<enter>")
        self.screen_with(box, number, "^first")
        self.type(box, number, "<c-c>")
        self.type(box, number, "echo still $((40+2))<enter>")
        self.screen_with(box, number, "^still 42")
        self.type(box, number, "(echo second; exec sleep 300)<enter>")
        self.screen_with(box, number, "^second")
        self.type(box, number, "<c-z>")
        self.screen_with(box, number, "Stopped")
        self.process(box, "signal", number)
        self.assert_nothing_left(box)

    def test_eof_after_input_ends_a_program_that_reads_to_the_end(self):
        box = self.box()
        number = self.start(box, "wc -l", tty=True)
        self.process(box, "write", number, input="one\ntwo\n", eof=True)
        self.assertEqual(self.ended(box, number)["exit_code"], 0)
        self.assertRegex(self.process(box, "read", number, raw=True, cursor=0)["output"], r"(?m)^2\r?$")

    def test_raw_reads_give_every_byte_once(self):
        box = self.box()
        number = self.start(box, r"printf '\e[31mred\e[0m\n'; read x; printf 'more\n'; sleep 300", tty=True)
        first = self.read_until(box, number, "red.*\n", raw=True)
        self.assertEqual(first, "\x1b[31mred\x1b[0m\r\n")
        second = self.process(box, "write", number, input="\r", raw=True, wait_s=0).get("output", "")
        second += self.read_until(box, number, "more\r\n", raw=True)
        self.assertEqual(second, "\r\nmore\r\n")
        self.assertEqual(self.process(box, "read", number, raw=True, cursor=0)["output"], first + second)
        self.assertEqual(self.process(box, "read", number)["output"], "red\n\nmore\n", "the screen is there as well")

    def test_typing_takes_nothing_from_who_reads_the_bytes(self):
        box = self.box()
        number = self.start(box, "echo before; read x; echo after; read x", tty=True)
        self.sh(f"until grep -qs before /var/log/hutch/{number}.log; do sleep 0.01; done", sandbox_id=box)
        self.type(box, number, "x<enter>")
        self.assertEqual(self.read_until(box, number, "after\r\n", raw=True), "before\r\nx\r\nafter\r\n")

    def test_a_screen_read_twice_is_the_same_and_what_scrolled_off_comes_once(self):
        box = self.box()
        number = self.start(box, "seq 1 100; echo end; sleep 300", tty=True)
        seen, end = "", time.monotonic() + 20 * SLOW
        while not re.search("^end", seen, re.M) and time.monotonic() < end:
            seen += self.process(box, "read", number, wait_s=1)["output"]
        seen = list(dict.fromkeys(seen.split()))  # lines that were still on the screen come again
        self.assertEqual(seen, [str(n) for n in range(1, 101)] + ["end"])
        again = self.process(box, "read", number)["output"].split()
        self.assertEqual(again, [str(n) for n in range(79, 101)] + ["end"])

    def test_reading_after_the_end_still_shows_the_screen(self):
        box = self.box()
        number = self.start(box, "echo the end; exit 4", tty=True)
        self.assertEqual(self.ended(box, number)["exit_code"], 4)
        self.assertEqual(self.process(box, "read", number)["output"], "the end\n")
        self.assertTrue(self.call("sandbox_process", sandbox_id=box, action="write", process_id=number, input="x").is_error)

    def test_what_a_terminals_program_leaves_running_is_named_and_can_be_ended(self):
        box = self.box()
        done = self.ok("sandbox_exec", sandbox_id=box, command="trap '' HUP; (sleep 300 &) ; echo here", tty=True)
        self.assertEqual((done["end"], done["stdout"]), ("exited", "here\n"))
        self.assertEqual(self.process(box, "signal", done["process_id"])["processes"][0]["state"], "ended")
        self.assert_nothing_left(box)


class FullScreen(ProcessCase):
    def need(self, box, program):
        if self.ok("sandbox_exec", sandbox_id=box, command=f"command -v {program}")["exit_code"] != 0:
            self.skipTest(f"no {program} on this host")

    def test_python_is_talked_to(self):
        box = self.box()
        number = self.start(box, "python3 -q", tty=True)
        self.screen_with(box, number, "^>>> ?$")
        self.type(box, number, "x = 6 * 7<enter>")
        self.assertIn("42", self.type(box, number, "x<enter>", wait_s=10)["output"])
        self.type(box, number, "while True: print('loop') or __import__('time').sleep(300)<enter><enter>")
        self.screen_with(box, number, "^loop")
        self.type(box, number, "<c-c>")
        self.screen_with(box, number, "KeyboardInterrupt")
        self.type(box, number, "<up>")
        self.type(box, number, "<c-c>")
        self.type(box, number, "exit(x)<enter>")
        self.assertEqual(self.ended(box, number)["exit_code"], 42)

    def test_vim_writes_a_file(self):
        box = self.box()
        self.need(box, "vim")
        number = self.start(box, "vim -u NONE -N note.txt", tty=True, rows=20, columns=60)
        self.screen_with(box, number, "^~")
        self.type(box, number, "ifirst line<enter>second <lt>line><esc>")
        self.screen_with(box, number, r"(?s)first line\nsecond <line>\n~")
        self.type(box, number, "ggdd:set number<enter>")
        self.screen_with(box, number, r"^\s+1 second <line>")
        self.type(box, number, ":wq<enter>")
        self.assertEqual(self.ended(box, number)["exit_code"], 0)
        self.assertEqual(self.sh("cat note.txt", sandbox_id=box), "second <line>\n")

    def test_less_pages_and_searches(self):
        box = self.box()
        self.need(box, "less")
        number = self.start(box, "seq 1 1000 | less", tty=True, rows=11)
        self.assertEqual(self.screen_with(box, number, "^:")["output"].split(), [*map(str, range(1, 11)), ":"])
        self.type(box, number, "<space>")
        self.screen_with(box, number, r"\A11\n")
        self.type(box, number, "/^500$<enter>")
        self.screen_with(box, number, r"\A500\n")
        self.type(box, number, "<pageup><down>G")
        self.screen_with(box, number, r"^1000\n")
        self.type(box, number, "q")
        self.assertEqual(self.ended(box, number)["exit_code"], 0)

    def test_top_shows_processes_and_is_left(self):
        box = self.box()
        self.need(box, "top")
        number = self.start(box, "top -d 0.2", tty=True, rows=30, columns=100)
        seen = self.screen_with(box, number, r"hutch-agent")["output"]
        self.assertRegex(seen, r"Tasks:.* total")
        self.assertIn("PID", seen)
        self.screen_with(box, number, r"hutch-agent")
        self.type(box, number, "q")
        self.assertEqual(self.ended(box, number)["exit_code"], 0)


class Floods(ProcessCase):
    def test_a_flooded_terminal_answers_and_costs_no_memory(self):
        box = self.box()
        for _ in range(2):  # with its first memory the server is warm
            self.ok("sandbox_exec", sandbox_id=box, command="seq 1 3000", tty=True)
        forget_peak(self.client.pid)
        before = status_bytes(self.client.pid, "VmRSS")
        number = self.start(box, "yes 'a line of the flood'", tty=True)
        log = re.search(r"/var/log/\S+log", str(self.process(box, "read", number)))[0]
        wait_for("it has printed a lot", lambda: int(self.sh(f"stat -c %s {log} || echo 0", sandbox_id=box)) > 8 * MIB, 30)
        for _ in range(3):
            start = time.monotonic()
            self.assertIn("a line of the flood\na line of the flood\n", self.process(box, "read", number)["output"])
            self.assertLess(time.monotonic() - start, 5 * SLOW)
        start = time.monotonic()
        self.type(box, number, "<c-c>")
        self.assertLess(time.monotonic() - start, 10 * SLOW)
        self.assertEqual(self.ended(box, number)["signal"], "SIGINT")
        self.process(box, "read", number)
        if SLOW == 1:
            self.assertLess(status_bytes(self.client.pid, "VmHWM") - before, 32 * MIB)

    def test_a_flood_in_the_foreground_ends_by_its_deadline(self):
        box = self.box()
        start = time.monotonic()
        done = self.ok("sandbox_exec", sandbox_id=box, command="echo here; yes", tty=True, timeout_s=1)
        self.assertLess(time.monotonic() - start, 4 * SLOW)
        self.assertEqual(done["end"], "timed_out")
        self.assertTrue(done["stdout"].endswith("y\ny\n"))
        self.assertLess(len(done["stdout"]), 11_000)
        self.assert_nothing_left(box)

    def test_control_bytes_of_all_kinds_are_no_fault(self):
        box = self.box()
        number = self.start(box, "head -c 300000 /dev/urandom; printf '\\033c\\033[2J\\033[Hafter all\\n'; sleep 300", tty=True)
        self.screen_with(box, number, "after all")
        number = self.start(box, "printf '\\033[?1049h\\033[999999999;999999999H\\033[99999999999L\\033]0;'; head -c 100000 /dev/zero | tr '\\0' x;"
                            " printf '\\007\\033[Hthere'; sleep 300", tty=True)
        self.screen_with(box, number, "there")

    def test_a_program_that_asks_again_and_again_does_not_hold_who_looks(self):
        box = self.box()
        number = self.start(box, "stty raw -echo; for i in $(seq 1 20000); do printf '\\033[6n\\033[c'; done; printf 'asked'; sleep 300", tty=True)
        self.screen_with(box, number, "asked")
        start = time.monotonic()
        self.process(box, "read", number)
        self.assertLess(time.monotonic() - start, 5 * SLOW)


class ManyTerminals(ProcessCase):
    def test_can_be_open_at_once_and_are_given_back(self):
        box = self.box()
        for _ in range(2):
            numbers = [self.start(box, f"tty; echo number {i}; read x", tty=True) for i in range(10)]
            for i, number in enumerate(numbers):
                self.screen_with(box, number, f"^number {i}$")
            for number in numbers:
                self.type(box, number, "<enter>")
            for number in numbers:
                self.assertEqual(self.ended(box, number)["exit_code"], 0)
        self.assertEqual(self.sh("ls /dev/pts", sandbox_id=box).split(), ["ptmx"])
        agent = next(pid for pid, name in host_processes(box).items() if name == "hutch-agent")
        if os.geteuid() == 0:
            held = [os.readlink(f"/proc/{agent}/fd/{fd}") for fd in os.listdir(f"/proc/{agent}/fd")]
            self.assertFalse([path for path in held if "ptmx" in path or "pts/" in path and path != "/dev/pts"], held)


if __name__ == "__main__":
    unittest.main()
