"""The programs that keep an interpreter's state between calls of sandbox_eval, as ordinary processes over pipes."""
import json
import os
import pathlib
import re
import select
import shutil
import signal
import subprocess
import tempfile
import textwrap
import threading
import time
import unittest

DRIVERS = pathlib.Path(__file__).resolve().parents[2] / "src/sandbox/drivers"
PYTHON = "/usr/bin/python3"
MARK = b"\x1e"
DEADLINE_S = 20


def has_module(name):
    return subprocess.run([PYTHON, "-c", f"import {name}"], capture_output=True).returncode == 0


class Session:
    """One driver. `merged`: stdout and stderr are one pipe."""

    def __init__(self, argv, cwd, merged=False, env=None):
        environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "MPLBACKEND", "PYTHONPATH")}
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, cwd=cwd,
                                        stderr=subprocess.STDOUT if merged else subprocess.PIPE,
                                        env={**environment, **(env or {})}, start_new_session=True,
                                        # As the agent does: a shell leaves alone what it finds ignored.
                                        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        self.out, self.err = b"", b""
        self.pipes = {self.process.stdout.fileno(): "out"}
        if not merged:
            self.pipes[self.process.stderr.fileno()] = "err"
        self.count = 0
        self.split = False

    def read(self, enough):
        """Takes what comes until enough() or the end of both pipes."""
        deadline = time.monotonic() + DEADLINE_S
        while not enough() and self.pipes:
            ready, _, _ = select.select(list(self.pipes), [], [], max(0, deadline - time.monotonic()))
            if not ready:
                raise AssertionError(f"no answer; stdout {self.out[-300:]!r}, stderr {self.err[-300:]!r}")
            for fd in ready:
                self.take(fd)

    def take(self, fd):
        data = os.read(fd, 1 << 20)
        if data:
            setattr(self, self.pipes[fd], getattr(self, self.pipes[fd]) + data)
        else:
            del self.pipes[fd]

    def request_bytes(self, code, token, **fields):
        data = code if isinstance(code, bytes) else code.encode()
        header = {"token": token, "name": f"<eval {self.count}>", "bytes": len(data), "once": False, "split": False}
        return json.dumps({**header, **fields}).encode() + b"\n" + data

    def send(self, code, **fields):
        self.count += 1
        self.token = os.urandom(16).hex()
        self.split = fields.get("split", False)
        self.process.stdin.write(self.request_bytes(code, self.token, **fields))

    def answer(self):
        """The answer to what was sent: its fields, and `out` and `err`, what came before."""
        start, token = MARK + self.token.encode(), MARK + self.token.encode() + MARK

        def whole():
            at = self.out.find(start)
            return at >= 0 and MARK in self.out[at + len(start):] and (not self.split or token in self.err)

        self.read(whole)
        if not whole():
            raise AssertionError(f"it ended with {self.process.wait(10)}; stdout {self.out[-300:]!r}, stderr {self.err[-2000:]!r}")
        at = self.out.index(start)
        end = self.out.index(MARK, at + len(start))
        done = json.loads(self.out[at + len(start):end].decode("ascii"))
        done["out"], self.out = self.out[:at].decode("utf-8", "replace"), self.out[end + 1:]
        if self.split:
            before, _, self.err = self.err.partition(token)
        else:
            self.read_now()
            before, self.err = self.err, b""
        done["err"] = before.decode("utf-8", "replace")
        return done

    def read_now(self):
        """What lies in the pipes already: the driver writes to stderr before it answers."""
        while ready := select.select(list(self.pipes), [], [], 0)[0]:
            for fd in ready:
                self.take(fd)

    def ask(self, code, **fields):
        self.send(textwrap.dedent(code) if isinstance(code, str) else code, **fields)
        return self.answer()

    def interrupt(self):
        os.killpg(self.process.pid, signal.SIGINT)

    def interrupt_until_answered(self):
        """As a caller does it: a signal that came before the code began was for nobody."""
        stop = threading.Event()

        def repeat():
            while not stop.wait(0.1):
                self.interrupt()

        thread = threading.Thread(target=repeat)
        thread.start()
        try:
            return self.answer()
        finally:
            stop.set()
            thread.join()

    def wait_for_output(self, text):
        self.read(lambda: text.encode() in self.out)

    def rest(self):
        """What comes until the end, and the exit status."""
        self.read(lambda: False)
        status = self.process.wait(DEADLINE_S)
        return self.out.decode(), self.err.decode(), status

    def close(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe:
                pipe.close()


class BashSession(Session):
    """Writes what bash_request() of drivers.cpp writes."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.process.stdin.write((DRIVERS / "bash.sh").read_bytes())

    def request_bytes(self, code, token, split=False, env=None, workdir=None):
        data = code if isinstance(code, bytes) else code.encode()
        quoted = lambda text: "'" + text.replace("'", "'\\''") + "'"
        first = "{ builtin trap - INT; } 2>/dev/null; "
        first += "".join(f"builtin export -- {quoted(f'{k}={v}')} && " for k, v in (env or {}).items())
        first += f"builtin cd -- {quoted(workdir)} && " if workdir else ""
        first += f"builtin . /dev/fd/97 97<<'hutch-{token}' </dev/null\n"
        last = f"\nhutch-{token}\n{{ hutch_answer {token}{' split' if split else ''}; }} 2>/dev/null\n"
        return first.encode() + data + last.encode()


class DriverCase(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder, True)

    def start(self, **options):
        made = self.make(**options)
        self.addCleanup(made.close)
        return made

    def once(self, code, **fields):
        """A fresh process: its answer, all that it printed, and its exit status."""
        made = self.start()
        made.send(textwrap.dedent(code), once=True, **fields)
        done = made.answer()
        out, err, status = made.rest()
        return done, done["out"] + out, done["err"] + err, status

    def check(self, done, exit_code=0, value=None, out="", err=""):
        self.assertEqual((done["exit_code"], done.get("value"), done["out"], done["err"]), (exit_code, value, out, err))


class Common:
    """What holds for every driver; `words` are its language."""
    head_start_s = 0  # before which the driver is not interrupted

    def test_a_thousand_calls_keep_the_state(self):
        box = self.start()
        box.ask(self.words["zero"])
        for _ in range(998):
            box.ask(self.words["increment"])
        self.assertIn("998", self.shown(box.ask(self.words["show"])))

    def test_ten_megabytes_of_output_arrive_before_the_answer(self):
        done = self.start().ask(self.words["ten_megabytes"])
        self.assertEqual((len(done["out"]), done["exit_code"]), (10_000_000, 0))

    def test_nothing_is_printed_at_the_start(self):
        self.check(self.start().ask(self.words["nothing"]))

    def test_empty_code_and_comments_give_nothing(self):
        box = self.start()
        for code in ("", "\n", "\n\n", self.words["comment"], self.words["comment"] + "\n"):
            self.check(box.ask(code))

    def test_code_without_a_line_end_and_with_crlf_runs(self):
        box = self.start()
        if self.words["crlf"]:
            self.assertIn("7", self.shown(box.ask(self.words["crlf"])))

    def test_the_end_of_requests_is_the_end(self):
        box = self.start()
        box.ask(self.words["nothing"])
        box.process.stdin.close()
        self.assertEqual(box.rest()[:2], ("", self.words.get("end", "")))

    def test_the_code_reads_no_requests(self):
        box = self.start()
        box.send(self.words["read_input"])
        first = box.token
        box.process.stdin.write(box.request_bytes(self.words["zero"], "f" * 32))
        self.assertIn("[]", box.answer()["out"])
        self.assertNotEqual(first, "f" * 32)
        box.token = "f" * 32
        self.assertEqual(box.answer()["exit_code"], 0)

    def test_split_marks_the_end_of_stderr_too(self):
        box = self.start()
        for _ in range(20):
            done = box.ask(self.words["to_both"], split=True)
            self.assertEqual((done["out"], done["err"], box.err), ("out\n", "err\n", b""))

    def test_one_pipe_for_both_keeps_their_order(self):
        self.assertEqual(self.start(merged=True).ask(self.words["to_both"] + "\n" + self.words["to_both"])["out"],
                         "out\nerr\nout\nerr\n")

    def test_env_and_workdir_are_applied_and_stay(self):
        box = self.start()
        box.ask(self.words["nothing"], env={"GREETING": "it's \"a\" $HOME"}, workdir="/usr")
        self.assertEqual(box.ask(self.words["show_env"])["out"], "it's \"a\" $HOME /usr\n")

    def test_a_missing_workdir_is_reported_and_the_code_does_not_run(self):
        box = self.start()
        done = box.ask(self.words["to_both"], workdir="/nowhere")
        self.assertEqual((done["exit_code"], done["out"]), (1, ""))
        self.assertIn("/nowhere", done["err"])
        self.assertEqual(box.ask(self.words["nothing"])["exit_code"], 0)

    def test_an_interrupt_ends_endless_code_and_keeps_the_state(self):
        box = self.start()
        box.ask(self.words["zero"])
        for code in self.words["endless"]:
            with self.subTest(code):
                box.send(code)
                box.wait_for_output("begun")
                # bash forks before its child can be interrupted: one signal may be lost, as at a terminal.
                done = box.interrupt_until_answered()
                self.assertEqual((done["exit_code"], done["out"]), (130, "begun\n"), done)
                self.assertIn("0", self.shown(box.ask(self.words["show"])))

    def test_an_interrupt_while_idle_changes_nothing(self):
        box = self.start()
        box.ask(self.words["zero"])
        for _ in range(20):
            box.interrupt()
            # Delivered for certain before the request is written: it is handled while the driver waits.
            self.wait_until_sleeping(box.process.pid)
            self.assertEqual(box.ask(self.words["increment"])["exit_code"], 0)
        self.assertIn("20", self.shown(box.ask(self.words["show"])))

    def wait_until_sleeping(self, pid):
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            status = pathlib.Path(f"/proc/{pid}/status").read_text()
            if re.search(r"^State:\s+S", status, re.M) and re.search(r"^ShdPnd:\s+0+$", status, re.M):
                return
        self.fail("it does not come to rest")

    def test_an_interrupt_right_after_sending_gives_one_answer_each_time(self):
        box = self.start()
        box.ask(self.words["zero"])
        codes = set()
        for i in range(50):
            box.send(self.words["short_work"])
            if i % 5 or self.head_start_s:
                time.sleep(self.head_start_s + i * 2e-5)  # another moment each time: no order is counted on
            box.interrupt()
            done = box.answer()
            codes.add(done["exit_code"])
            self.assertIn(done["exit_code"], (0, 130))
            self.wait_until_sleeping(box.process.pid)
            self.check(box.ask(self.words["nothing"]))
        self.assertIn("0", self.shown(box.ask(self.words["show"])))
        self.assertEqual(box.out, b"")

    def test_endless_code_that_is_interrupted_at_once_ends_too(self):
        box = self.start()
        box.ask(self.words["nothing"])
        for _ in range(5):
            box.send(self.words["endless"][0])
            box.interrupt()
            self.assertEqual(box.interrupt_until_answered()["exit_code"], 130)

    def test_code_that_kills_its_process_ends_the_session(self):
        box = self.start()
        box.send(self.words["kill_itself"])
        self.assertEqual(box.rest()[2], -signal.SIGKILL)


class Python(Common, DriverCase):
    words = {
        "zero": "n = 0", "increment": "n += 1", "show": "n", "nothing": "pass", "comment": "# nothing",
        "ten_megabytes": "for _ in range(100_000): print('x' * 99)", "crlf": "if True:\r\n\tx = 3\r\n\tx += 4\r\nx",
        "to_both": "import sys\nprint('out')\nprint('err', file=sys.stderr)",
        "read_input": "import sys, subprocess\nprint([*sys.stdin.read(), *subprocess.check_output(['cat'])])",
        "show_env": "import os\nprint(os.environ['GREETING'], os.getcwd())",
        "short_work": "for _ in range(20_000): pass",
        "endless": ["print('begun')\nwhile True: pass", "import time; print('begun'); time.sleep(1000)",
                    "import subprocess; subprocess.run('echo begun; sleep 1000', shell=True)",
                    "import asyncio; print('begun'); await asyncio.sleep(1000)",
                    "import threading; print('begun'); threading.Event().wait()",
                    "class R:\n  def __repr__(self):\n    print('begun')\n    while True: pass\nR()"],
        "kill_itself": "import os; os.kill(os.getpid(), 9)",
    }

    def make(self, **options):
        return Session([PYTHON, "-c", (DRIVERS / "python.py").read_text()], self.folder, **options)

    def shown(self, done):
        return done.get("value", done)

    def test_the_value_of_the_last_expression_is_shown(self):
        box = self.start()
        self.check(box.ask("6 * 7"), value="42")
        self.check(box.ask("x = 1\nprint('a')\nx, 'é', '\\x1e'"), value="(1, 'é', '\\x1e')", out="a\n")
        self.check(box.ask("None"))
        self.check(box.ask("x = 3"))
        self.check(box.ask("'doc'"), value="'doc'")

    def test_a_long_value_is_cut_and_says_how_long_it_was(self):
        self.check(self.start().ask("'a' * 5000"), value="'" + "a" * 2999 + "... (5002 characters)")

    def test_a_value_with_half_characters_is_still_json(self):
        box = self.start()
        done = box.ask("class R:\n  def __repr__(self): return 'a\\udc80\\x1e'\nR()")
        self.assertEqual(done["value"], "a\\udc80\x1e")

    def test_a_repr_that_raises_is_an_ordinary_exception(self):
        box = self.start()
        box.ask("class R:\n  def __repr__(self): return 1 / 0")
        done = box.ask("R()")
        self.assertEqual((done["exit_code"], done.get("value")), (1, None))
        self.assertRegex(done["err"], r'File "<eval 1>", line 2, in __repr__\n +class|return 1 / 0')

    def test_names_and_imports_live_on(self):
        box = self.start()
        box.ask("import math\ndef area(r): return math.pi * r * r\nclass P: pass")
        self.check(box.ask("round(area(2), 2), P.__module__"), value="(12.57, '__main__')")
        self.check(box.ask("import __main__, pickle; pickle.loads(pickle.dumps(P())).__class__ is __main__.P"), value="True")

    def test_the_namespace_begins_with_the_usual_names_only(self):
        self.assertEqual(eval(self.start().ask("dir()")["value"]), [
            "__builtins__", "__doc__", "__file__", "__loader__", "__name__", "__package__", "__spec__"])
        box = self.start()
        box.send("[v for v in globals().values() if isinstance(v, str)], globals().get('token')")
        self.assertNotIn(box.token, box.answer()["value"])

    def test_a_traceback_shows_the_lines_of_the_code_and_none_of_the_driver(self):
        box = self.start()
        box.ask("def f():\n    return 1 / 0")
        done = box.ask("x = 1\nf()")
        self.assertEqual(done["exit_code"], 1)
        self.assertEqual(re.sub(r"\n +[~^]+(?=\n)", "", done["err"]), textwrap.dedent("""\
            Traceback (most recent call last):
              File "<eval 2>", line 2, in <module>
                f()
              File "<eval 1>", line 2, in f
                return 1 / 0
            ZeroDivisionError: division by zero
            """))

    def test_code_that_prints_a_traceback_itself_sees_its_lines(self):
        done = self.start().ask("import traceback\ntry:\n    1 / 0  # here\nexcept Exception:\n    traceback.print_exc()")
        self.assertIn("1 / 0  # here", done["err"])
        self.assertIn("def g(): pass", self.start().ask("def g(): pass\nimport inspect\ninspect.getsource(g)")["value"])

    def test_a_line_with_a_form_feed_does_not_shift_the_lines(self):
        self.assertIn("1 / 0  # third", self.start().ask("a = 'x\x0c\u2028y'\nb = 1\n1 / 0  # third")["err"])

    def test_a_syntax_error_is_reported_and_the_session_lives(self):
        box = self.start()
        done = box.ask("def f(:\n  pass")
        self.assertEqual(done["exit_code"], 1)
        self.assertTrue(done["err"].startswith('  File "<eval 1>", line 1\n    def f(:\n'), done["err"])
        self.check(box.ask("1"), value="1")

    def test_exceptions_raised_from_others_show_both(self):
        done = self.start().ask("try:\n  {}['k']\nexcept KeyError as e:\n  raise ValueError('v') from e")
        self.assertRegex(done["err"], r"(?s)KeyError: 'k'.*direct cause.*ValueError: v")
        self.assertNotIn("<string>", done["err"])

    def test_system_exit_gives_its_code_and_the_session_goes_on(self):
        box = self.start()
        box.ask("kept = 5")
        for code, exit_code, err in (("import sys; sys.exit()", 0, ""), ("sys.exit(3)", 3, ""), ("exit(256 + 4)", 4, ""),
                                     ("raise SystemExit('gone')", 1, "gone\n"), ("sys.exit(True)", 1, "")):
            self.check(box.ask(code), exit_code=exit_code, err=err)
        self.check(box.ask("kept"), value="5")

    def test_the_end_of_the_process_ends_the_session(self):
        box = self.start()
        box.send("import os; print('last', flush=True); os._exit(7)")
        self.assertEqual(box.rest(), ("last\n", "", 7))

    def test_unusual_code_runs(self):
        box = self.start()
        for code, value in (("@staticmethod\ndef f(): return 1\nf.__func__()", "1"), ("\ufeff5", "5"), ("x = 'ü✓😀'; x", "'ü✓😀'"),
                            ("async def g():\n\treturn 3\nawait g()", "3"), ("if 1:\n  y = 2; y", None), ("ä = 1; ä", "1"),
                            ("for i in range(3): i", None), ("1;2", "2"), ("[await g() for _ in 'ab']", "[3, 3]"),
                            ("lambda: 0\n", None)):
            done = box.ask(code)
            self.assertEqual(done["exit_code"], 0, (code, done))
            if value:
                self.assertEqual(done["value"], value)

    def test_code_that_is_not_utf8_or_has_a_nul_is_an_error_of_the_code(self):
        box = self.start()
        for code in (b"x = '\xff'", b"x = '\xed\xa0\x80'", b"x = 1\x00"):
            done = box.ask(code)
            self.assertEqual(done["exit_code"], 1, code)
            self.assertRegex(done["err"], "SyntaxError|ValueError")
        self.check(box.ask(b"# -*- coding: latin-1 -*-\nx = '\xe9'\nx"), value="'é'")

    def test_printing_half_a_character_is_an_ordinary_error(self):
        done = self.start().ask("print('\\ud800')")
        self.assertEqual(done["exit_code"], 1)
        self.assertIn("UnicodeEncodeError", done["err"])

    def test_a_future_import_holds_for_later_calls(self):
        box = self.start()
        box.ask("from __future__ import annotations")
        self.check(box.ask("def f(x: nowhere): pass\nf.__annotations__"), value="{'x': 'nowhere'}")

    def test_await_uses_one_loop_and_background_tasks_go_on_in_later_calls(self):
        box = self.start()
        box.ask("import asyncio\nloop = asyncio.get_running_loop() if await asyncio.sleep(0) else None")
        box.ask("async def later():\n  await asyncio.sleep(0)\n  done.append(1)\ndone = []\nt = asyncio.create_task(later()); await asyncio.sleep(0)").get('err')
        self.check(box.ask("await t; done"), value="[1]")
        self.check(box.ask("u = asyncio.create_task(later())\nu.done()\nawait u; len(done)"), value="2")
        self.check(box.ask("async def m(): return 4\nasyncio.run(m())"), value="4")
        self.check(box.ask("await asyncio.sleep(0, 'again')"), value="'again'")

    def test_an_interrupted_await_is_cancelled_and_nothing_of_it_runs_later(self):
        box = self.start()
        box.send("import asyncio\nlog = []\ntry:\n  print('begun')\n  await asyncio.sleep(1000)\nfinally:\n  log.append('cleaned')")
        box.wait_for_output("begun")
        box.interrupt()
        self.assertEqual(box.answer()["exit_code"], 130)
        self.check(box.ask("await asyncio.sleep(0)\nlog"), value="['cleaned']")

    def test_an_exception_in_awaited_code_shows_only_the_code(self):
        done = self.start().ask("import asyncio\nawait asyncio.sleep(0)\nraise ValueError('v')")
        self.assertEqual(re.findall(r'File "([^"]*)"', done["err"]), ["<eval 1>"])
        self.assertNotIn("never retrieved", done["err"])

    def test_code_may_catch_an_interrupt_and_go_on(self):
        box = self.start()
        box.send("try:\n  print('begun')\n  while True: pass\nexcept KeyboardInterrupt: pass\n'went on'")
        box.wait_for_output("begun")
        box.interrupt()
        self.assertEqual(box.answer()["value"], "'went on'")

    def test_a_handler_for_interrupts_is_the_codes_own_for_one_call(self):
        box = self.start()
        box.ask("import signal; _ = signal.signal(signal.SIGINT, signal.SIG_IGN)")
        box.send("print('begun')\nwhile True: pass")
        box.wait_for_output("begun")
        box.interrupt()
        self.assertEqual(box.answer()["exit_code"], 130)

    def test_a_hundred_megabytes_are_kept_once(self):
        box = self.start()
        box.ask("big = [bytes(1 << 20) for _ in range(100)]")
        self.check(box.ask("len(big)"), value="100")
        box.ask("import weakref\nclass L(list): pass\nL([1])")
        box.ask("ref = weakref.ref(L([1]))")
        done = box.ask("import gc\nkept = [o for o in gc.get_objects() if type(o) is L]; len(kept)")
        self.assertEqual(done["value"], "0", "the driver holds on to a value")

    def test_a_forked_child_that_returns_answers_nothing_and_reads_nothing(self):
        box = self.start()
        done = box.ask("import os\npid = os.fork()\nif pid == 0: print('child')\nelse: os.waitpid(pid, 0)\n'end'")
        self.assertEqual((done["value"], done["out"]), ("'end'", "child\n"))
        done = box.ask("pid = os.fork()\nif pid == 0: 1 / 0\nos.WEXITSTATUS(os.waitpid(pid, 0)[1])")
        self.assertEqual(done["value"], "1")
        self.check(box.ask("os.getpid() == os.getpid()"), value="True")
        self.assertEqual(box.out, b"")

    def test_the_answer_comes_whatever_the_code_does_to_stdout(self):
        for code in ("import sys, io; sys.stdout = io.StringIO(); sys.stderr = None", "import sys; sys.stdout.close()",
                     "import os; os.close(1); os.close(2)", "import sys; sys.stdout = None",
                     "import contextlib, io; c = contextlib.redirect_stdout(io.StringIO()); c.__enter__()",
                     "import os; os.write = os.read = print",
                     "import os, fcntl; fcntl.fcntl(1, fcntl.F_SETFL, os.O_NONBLOCK)"):
            with self.subTest(code):
                box = self.start()
                box.ask(code)
                self.check(box.ask("1"), value="1")
                self.assertIn("ZeroDivisionError", box.ask("1 / 0")["err"])

    def test_output_comes_in_order_with_that_of_children(self):
        self.assertEqual(self.start().ask("import os\nprint(1)\nos.system('echo 2')\nprint(3)")["out"], "1\n2\n3\n")

    def test_output_of_a_thread_between_calls_is_not_lost(self):
        box = self.start()
        box.ask("import threading\ngo = threading.Event()\nthreading.Thread(target=lambda: (go.wait(), print('from a thread'))).start()")
        if "from a thread" not in box.ask("threading.Timer(0, go.set).start()")["out"]:  # it may be that quick
            box.wait_for_output("from a thread")
        self.check({**box.ask("1"), "out": ""}, value="1")

    def test_children_inherit_neither_requests_nor_private_descriptors(self):
        done = self.start().ask("import subprocess\nprint(subprocess.check_output(['ls', '/proc/self/fd'], close_fds=False, text=True))")
        self.assertLessEqual(set(done["out"].split()), set("0123"))

    def test_a_path_as_name_is_the_codes_file(self):
        box = self.start()
        folder = os.path.join(self.folder, "sub")
        os.mkdir(folder)
        pathlib.Path(folder, "neighbour.py").write_text("word = 'near'\n")
        self.check(box.ask("import sys; __file__, sys.argv, sys.path[0]"), value="('<eval 1>', ['<eval 1>'], '')")
        name = os.path.join(folder, "a b.py")
        self.check(box.ask("import neighbour; neighbour.word, __file__, sys.argv[0], sys.path[0]", name=name),
                   value=repr(("near", name, name, folder)))
        self.assertIn(f'File "{name}", line 1', box.ask("1 / 0", name=name)["err"])
        self.check(box.ask("sys.path.count(%r)" % folder, name=name), value="1")

    def test_once_ends_as_a_script_does(self):
        for code, status, out in (
                ("print('a')", 0, "a\n"), ("import sys; sys.exit(5)", 5, ""), ("1 / 0", 1, ""), ("raise KeyboardInterrupt", 130, ""),
                ("import atexit; atexit.register(print, 'at exit')", 0, "at exit\n"),
                ("import threading, time\nthreading.Thread(target=lambda: (time.sleep(0.05), print('thread'))).start()", 0, "thread\n"),
                ("import asyncio\nasync def f():\n  try: await asyncio.sleep(1000)\n  finally: print('cancelled')\n"
                 "t = asyncio.create_task(f()); await asyncio.sleep(0)", 0, "cancelled\n")):
            with self.subTest(code):
                done, printed, err, ended = self.once(code)
                self.assertEqual((done["exit_code"], printed, ended), (status, out, status), err)
                self.assertNotIn("never retrieved", err)

    def test_a_module_in_the_working_folder_is_found(self):
        pathlib.Path(self.folder, "here.py").write_text("word = 1\n")
        self.assertEqual(self.once("import here; here.word")[0]["value"], "1")

    def test_an_excepthook_of_the_codes_own_is_used(self):
        self.assertEqual(self.start().ask("import sys\nsys.excepthook = lambda *a: print('mine', a[0].__name__)\n1 / 0")["out"],
                         "mine ZeroDivisionError\n")

    def test_recursion_without_end_and_errors_that_cannot_be_shown_are_reported(self):
        box = self.start()
        self.assertIn("RecursionError", box.ask("def f(): f()\nf()")["err"])
        done = box.ask("class E(Exception):\n  def __str__(self): raise self\nraise E")
        self.assertEqual(done["exit_code"], 1)
        self.assertIn("E", done["err"])
        self.check(box.ask("1"), value="1")


PNG = """
import struct, zlib
def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
def png(extra=b""):
    return (b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)) + extra
            + chunk(b"IDAT", zlib.compress(b"\\0\\0")) + chunk(b"IEND", b""))
class Picture:
    def _repr_png_(self): return png()
    def __repr__(self): return "<picture>"
"""


class ImagesCase(DriverCase):
    make = Python.make

    def images(self, done, count):
        self.assertEqual(len(done.get("images", [])), count, done)
        for path in done.get("images", []):
            data = pathlib.Path(path).read_bytes()
            self.assertTrue(data.startswith(b"\x89PNG\r\n\x1a\n"), path)
            self.assertEqual(os.stat(os.path.dirname(path)).st_mode & 0o777, 0o700)
        return done.get("images", [])


class PythonImages(ImagesCase):
    def box(self):
        return self.start(env={"TMPDIR": self.folder})

    def test_a_value_with_a_png_of_its_own_is_an_image_until_the_next_call(self):
        box = self.box()
        box.ask(PNG)
        done = box.ask("Picture()")
        path, = self.images(done, 1)
        self.assertEqual((os.path.dirname(os.path.dirname(path)), done["value"]), (self.folder, "<picture>"))
        self.images(box.ask("1"), 0)
        self.assertFalse(os.path.exists(path))

    def test_the_folder_goes_with_the_session(self):
        box = self.box()
        box.ask(PNG)
        self.images(box.ask("Picture()"), 1)
        box.process.stdin.close()
        box.rest()
        self.assertEqual(os.listdir(self.folder), [])

    def test_once_leaves_the_images_for_who_asked(self):
        made = self.box()
        made.send(PNG + "Picture()", once=True)
        done = made.answer()
        made.rest()
        self.images(done, 1)

    def test_an_image_that_is_too_large_or_fails_is_left_out_and_named(self):
        box = self.box()
        box.ask(PNG)
        done = box.ask("class Large:\n  def _repr_png_(self): return png(chunk(b'tEXt', bytes(6 << 20)))\nLarge()")
        self.images(done, 0)
        self.assertIn("6291", done["err"])
        done = box.ask("class Bad:\n  def _repr_png_(self): return 1 / 0\nBad()")
        self.images(done, 0)
        self.assertIn("ZeroDivisionError", done["err"])
        self.assertEqual(done["exit_code"], 0)

    @unittest.skipUnless(has_module("PIL"), "PIL is not installed (apt-get install python3-pil)")
    def test_a_pil_image_is_an_image(self):
        self.images(self.box().ask("from PIL import Image\nImage.new('RGB', (4, 4))"), 1)


@unittest.skipUnless(has_module("matplotlib"), "matplotlib is not installed (apt-get install python3-matplotlib)")
class PythonFigures(ImagesCase):
    def setUp(self):
        super().setUp()
        self.env = {"TMPDIR": self.folder, "MPLCONFIGDIR": self.folder + "/mpl"}
        os.mkdir(self.env["MPLCONFIGDIR"])

    def test_figures_come_once_whether_shown_or_left_open(self):
        box = self.start(env=self.env)
        done = box.ask("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()\nplt.plot([2, 1])\nfig, ax = plt.subplots(); ax.plot([3])")
        self.images(done, 3)
        self.assertEqual(done["err"], "")
        self.images(box.ask("plt.get_fignums()"), 0)
        self.images(box.ask("ax.plot([1, 2])\nfig"), 1)
        self.images(box.ask("_ = plt.figure()"), 0)

    def test_figures_of_code_that_failed_come_too(self):
        done = self.start(env=self.env).ask("import matplotlib.pyplot as plt\n_ = plt.plot([1])\n1 / 0")
        self.images(done, 1)
        self.assertEqual(done["exit_code"], 1)

    def test_more_than_eight_figures_are_cut_and_named(self):
        done = self.start(env=self.env).ask("import matplotlib.pyplot as plt\nfor i in range(10): plt.figure(figsize=(1, 1)).text(0, 0, 'x')")
        self.images(done, 8)
        self.assertIn("figure 9 is not shown", done["err"])
        self.assertIn("figure 10 is not shown", done["err"])

    def test_drawing_modules_are_not_imported_for_code_that_does_not(self):
        self.assertEqual(self.start().ask("import sys; [m for m in ('matplotlib', 'PIL', 'json', 'ast', 'traceback', 'asyncio', 'linecache') if m in sys.modules]")["value"], "[]")


@unittest.skipUnless(shutil.which("node"), "node is not installed (apt-get install nodejs)")
class Node(Common, DriverCase):
    words = {
        "zero": "let n = 0;", "increment": "n += 1; undefined", "show": "n", "nothing": ";", "comment": "// nothing",
        "ten_megabytes": "for (let i = 0; i < 100000; i++) console.log('x'.repeat(99));", "crlf": "let x = 3;\r\nx += 4\r\n",
        "to_both": "console.log('out'); console.error('err');",
        "read_input": "console.log([...require('fs').readFileSync(0, 'utf8'), ...require('child_process').execSync('cat', {stdio: ['inherit', 'pipe', 'inherit']})]);",
        "show_env": "console.log(process.env.GREETING, process.cwd());",
        "short_work": "for (let i = 0; i < 200000; i++);",
        "endless": ["console.log('begun'); for (;;);", "console.log('begun'); await new Promise(() => {});",
                    "console.log('begun'); await new Promise((done) => setTimeout(done, 1e6));",
                    "({ [require('util').inspect.custom]() { console.log('begun'); for (;;); } })"],
        "kill_itself": "process.kill(process.pid, 'SIGKILL'); for (;;);",
    }

    def make(self, **options):
        return Session(["sh", "-c", 'exec node -e "$1" 3<&0 4>&1 5>&2 </dev/null', "hutch", (DRIVERS / "node.js").read_text()],
                       self.folder, **options)

    def shown(self, done):
        return done.get("value", done)

    def test_the_value_of_the_last_expression_is_shown(self):
        box = self.start()
        self.check(box.ask("6 * 7"), value="42")
        self.check(box.ask("console.log('a'); ({a: [1, 'é😀']})"), value="{ a: [ 1, 'é😀' ] }", out="a\n")
        self.check(box.ask("undefined"))
        self.check(box.ask("null"), value="null")
        self.check(box.ask("-0"), value="-0")
        self.check(box.ask("10n ** 20n"), value="100000000000000000000n")
        self.check(box.ask("Symbol('s')"), value="Symbol(s)")
        self.check(box.ask("Promise.resolve(5)"), value="5")
        self.check(box.ask("'a'.repeat(5000)"), value="'" + "a" * 2999 + "... (5002 characters)")

    def test_a_value_with_half_characters_is_still_json(self):
        self.assertEqual(self.start().ask("({[require('util').inspect.custom]() { return 'a\\ud800' }})")["value"], "a\ufffd")

    def test_declarations_live_on_and_may_be_repeated(self):
        box = self.start()
        box.ask("const a = 1; let b = 2; var c = 3; class D { x = 4 } function e() { return 5 }")
        self.check(box.ask("[a, b, c, new D().x, e()].join()"), value="'1,2,3,4,5'")
        self.check(box.ask("const a = 10; let b = 20; class D { x = 40 } function e() { return 50 }\n[a, b, c, new D().x, e()].join()"),
                   value="'10,20,3,40,50'")
        done = box.ask("a = 3")
        self.assertIn("Assignment to constant variable", done["err"])

    def test_await_works_at_the_top_and_what_it_gives_lives_on(self):
        box = self.start()
        self.check(box.ask("const r = await new Promise((done) => setTimeout(done, 1, 7)); r"), value="7")
        self.check(box.ask("const {a: [x]} = await {a: [r]}; x + 1"), value="8")
        self.check(box.ask("for await (const v of [1, Promise.resolve(2)]) console.log(v)"), out="1\n2\n")

    def test_modules_are_imported_in_every_form(self):
        pathlib.Path(self.folder, "m.mjs").write_text("export default 'd'; export const a = 'a', b = 'b';\n")
        pathlib.Path(self.folder, "c.cjs").write_text("module.exports = {word: 'c'};\n")
        box = self.start()
        self.check(box.ask("import d, { a, b as bee } from './m.mjs';\nimport * as all from \"./m.mjs\"\nimport 'node:fs'\n"
                           "import c from './c.cjs'; [d, a, bee, all.b, c.word].join()"), value="'d,a,b,b,c'")
        self.check(box.ask("import {\n  a as again,  // a comment\n} from './m.mjs'\nagain + d"), value="'ad'")
        self.check(box.ask("(await import('./m.mjs')).a + require('./c.cjs').word"), value="'ac'")
        self.check(box.ask("import { a } from './m.mjs'; const f = async () => (await import('./m.mjs')).b; await f()"), value="'b'")
        self.assertIn("m.mjs", box.ask("import.meta.url.replace('eval.js', 'm.mjs')")["value"])
        self.assertIn("Cannot find", box.ask("import x from './nowhere.mjs'")["err"])

    def test_exports_declare_what_they_name(self):
        self.check(self.start().ask("export const a = 1; export default function f() { return 2 }\nexport { a };\na + f()"), value="3")

    def test_words_like_import_in_strings_regexes_and_comments_stay(self):
        for code, value in (("`a ${`import('x') ${1}`} import y`", "\"a import('x') 1 import y\""),
                            ("/* import x from 'y' */ /import(.)/.exec('important')[1] // import()", "'a'"),
                            ("'import a from \"b\"'.length / 2 / 1", "8.5"), ("({ import: 3 }).import", "3"),
                            ("let q = 4; q /2/ 1 + 'import('", "'2import('"),
                            ("if (true) /[/]import/.test('/import')", "true")):
            self.check(self.start().ask(code), value=value)

    def test_errors_show_the_code_and_none_of_the_driver(self):
        box = self.start()
        box.ask("function f() {\n  throw new Error('boo')\n}")
        done = box.ask("\nf()")
        self.assertEqual((done["exit_code"], done["err"]),
                         (1, "Error: boo\n    at f (<eval 1>:2:9)\n    at <eval 2>:2:1\n"))
        self.check(box.ask("throw 5"), exit_code=1, err="Uncaught 5\n")
        self.check(box.ask("let x =\n  ;"), exit_code=1, err="<eval 4>:2\n  ;\n  ^\n\nSyntaxError: Unexpected token ';'\n")
        self.check(box.ask("new Error('value').stack.split('\\n').length > 1"), value="true")
        self.assertEqual(box.ask("new Error('v')")["value"], "Error: v\n    at <eval 6>:1:1")

    def test_errors_that_nobody_awaits_are_reported_and_the_session_lives(self):
        box = self.start()
        done = box.ask("Promise.reject(new Error('late')); 1")
        self.assertEqual(done["exit_code"], 1)
        self.assertIn("Error: late", done["err"])
        box.ask("setTimeout(() => { throw new TypeError('timer') }, 1); await new Promise((done) => setTimeout(done, 20))")
        self.check(box.ask("2"), value="2")

    def test_leaving_the_process_answers_and_ends_the_session(self):
        box = self.start()
        done = box.ask("console.log('x'.repeat(1e6)); process.exit(3)")
        self.assertEqual((done["exit_code"], done["ended"], len(done["out"])), (3, True, 1_000_001))
        self.assertEqual(box.rest(), ("", "", 3))

    def test_timers_go_on_between_calls(self):
        box = self.start()
        self.check(box.ask("const timer = setTimeout(() => console.log('later'), 1); 0"), value="0")
        box.wait_for_output("later")

    def test_children_inherit_neither_requests_nor_private_descriptors(self):
        done = self.start().ask("console.log(require('child_process').execSync('ls /proc/self/fd').toString())")
        self.assertLessEqual(set(done["out"].split()), set("0123"))

    def test_the_answer_comes_whatever_the_code_does_to_stdout(self):
        for code in ("process.stdout.write = () => true; 0", "require('fs').closeSync(1); 0", "console = null; 0", "process.stdout.destroy(); 0"):
            with self.subTest(code):
                box = self.start()
                box.ask(code)
                self.check(box.ask("1"), value="1")

    def test_values_are_let_go_after_a_call(self):
        box = self.start()
        box.ask("const registry = new FinalizationRegistry(() => { freed = true }); let freed = false;"
                "(() => { const o = {big: true}; registry.register(o); console.log(o); return o; })()")
        box.ask("require('v8').setFlagsFromString('--expose-gc'); const gc_ = require('vm').runInNewContext('gc'); 0")
        self.check(box.ask("for (let i = 0; i < 50 && !freed; i++) { gc_(); await new Promise((done) => setTimeout(done, 1)); } freed"), value="true")

    def test_a_path_as_name_is_the_base_of_require_and_import(self):
        folder = os.path.join(self.folder, "sub")
        os.mkdir(folder)
        pathlib.Path(folder, "near.cjs").write_text("module.exports = 'near';\n")
        box = self.start()
        name = os.path.join(folder, "a.js")
        self.check(box.ask("import n from './near.cjs'\n[require('./near.cjs'), n, __filename, __dirname].join()", name=name),
                   value=f"'near,near,{name},{folder}'")
        self.assertIn(f"{name}:1:", box.ask("null.x", name=name)["err"])

    def test_once_ends_as_a_script_does(self):
        for code, exit_code, out, status in (
                ("console.log('a')", 0, "a\n", 0), ("throw new Error('e')", 1, "", 1), ("process.exit(5)", 5, "", 5),
                ("process.exitCode = 4; 0", 4, "", 4), ("setTimeout(() => console.log('timer'), 20); 0", 0, "timer\n", 0),
                ("await new Promise((done) => setTimeout(done, 5)); console.log('b')", 0, "b\n", 0),
                ("await new Promise(() => {})", 0, "", 0), ("import fs from 'fs'; console.log(typeof fs.read)", 0, "function\n", 0),
                ("setTimeout(() => { throw 7 }, 5); 0", 0, "", 1), ("process.on('exit', () => console.log('bye')); 0", 0, "bye\n", 0)):
            with self.subTest(code):
                done, printed, err, ended = self.once(code)
                self.assertEqual((done["exit_code"], printed, ended), (exit_code, out, status), err)


@unittest.skipUnless(shutil.which("bash"), "bash is not installed")
class Bash(Common, DriverCase):
    # bash's `trap - INT` restores the signal's default for a moment before its own handler comes back. No call has a
    # deadline that is so short.
    head_start_s = 0.01
    words = {
        "zero": "n=0", "increment": "n=$((n + 1))", "show": "echo $n", "nothing": ":", "comment": "# nothing",
        "ten_megabytes": "head -c 10000000 /dev/zero | tr '\\0' x", "crlf": "",
        "to_both": "echo out; echo err >&2", "read_input": "echo [$(cat)]; read x; echo $x",
        "show_env": "echo \"$GREETING\" $PWD", "short_work": "for ((i = 0; i < 9000; i++)); do :; done",
        "endless": ["echo begun; while :; do :; done", "echo begun; sleep 1000; echo never", "echo begun; sleep 1000 | cat; echo never",
                    "f() { echo begun; while :; do sleep 0.01; done; }; f; echo never", "echo begun; (sleep 1000; echo never); echo never",
                    "echo begun; x=$(sleep 1000); echo never", "echo begun; sleep 1000 & wait; echo never", "echo begun; read x <> <(sleep 1000); echo never"],
        "kill_itself": "kill -KILL $$", "end": "exit\n",
    }

    def make(self, **options):
        return BashSession(["bash", "-c", "exec bash --norc --noprofile --noediting -i 96>&2 2>/dev/null"], self.folder, **options)

    def shown(self, done):
        return done["out"]

    def test_functions_variables_folder_options_and_aliases_live_on(self):
        box = self.start()
        self.check(box.ask("x=5; declare -A map=([k]=v); f() { echo \"f $x\"; }; alias g='f'; cd /usr; set -o pipefail; shopt -s nullglob"))
        self.check(box.ask("f; g; pwd; echo ${map[k]}; false | true"), exit_code=1, out="f 5\nf 5\n/usr\nv\n")
        self.check(box.ask("shopt nullglob"), out="nullglob       \ton\n")

    def test_any_byte_of_the_code_survives(self):
        box = self.start()
        data = bytes(b for b in range(1, 256) if b != 39)
        box.send(b"printf %s '" + data + b"' | od -An -v -tx1 | tr -d ' \\n'")
        self.assertEqual(box.answer()["out"], data.hex())
        self.check(box.ask("echo \"it's\" '!x' !x `echo a` $'q\\n' \\\\ <<E\nE"), out="it's !x !x a q\n \\\n")

    def test_an_exit_code_is_that_of_the_code(self):
        box = self.start()
        for code, exit_code in (("(exit 7)", 7), ("false", 1), ("true", 0), ("return 9", 9), ("kill -TERM $BASHPID & wait $!", 143)):
            self.assertEqual(box.ask(code)["exit_code"], exit_code, code)

    def test_errors_are_reported_and_the_session_lives(self):
        box = self.start()
        box.ask("kept=1")
        for code, words in (("if", "syntax error"), ("echo 'open", "unexpected EOF"), ("nowhere_at_all", "command not found"),
                            ("echo ${no:?is missing}; echo never", "is missing"), ("set -u; echo $undefined", "unbound"),
                            ("echo )", "syntax error"), ("cat <<E\nopen", "")):
            done = box.ask(code)
            self.assertIn(words, done["err"], code)
            self.assertNotIn("never", done["out"])
        self.check(box.ask("echo $kept"), out="1\n")

    def test_nothing_is_said_about_jobs_and_terminals(self):
        box = self.start()
        self.check(box.ask("sleep 0 &"))
        self.check(box.ask("wait; (kill -SEGV $BASHPID); true"))
        self.check(box.ask("sleep 1000 & kill $!; wait; :"))

    def test_exit_ends_the_session(self):
        box = self.start()
        box.send("trap 'echo bye' EXIT; echo last; exit 3")
        self.assertEqual(box.rest(), ("last\nbye\n", "", 3))

    def test_the_answer_comes_whatever_the_code_does(self):
        for code in ("exec >/dev/null 2>&1", "exec >&- 2>&-", "set -x", "PROMPT_COMMAND=; PS1='$ '", "set -e",
                     "trap 'echo int' INT", "printf() { :; }; trap() { :; }", "exec </etc/passwd", "shopt -u expand_aliases; set -o posix",
                     "IFS=x; LC_ALL=C"):
            with self.subTest(code):
                box = self.start()
                self.assertEqual(box.ask(code)["exit_code"], 0)
                done = box.ask("read x || :; echo \"<$x>\"")
                self.assertIn(done["out"], ("", "<>\n"))
                self.assertNotIn(box.token, done["err"])

    def test_code_longer_than_a_pipe_runs(self):
        box = self.start()
        self.check(box.ask("# " + "x" * 300_000 + "\necho ran"), out="ran\n")


if __name__ == "__main__":
    unittest.main()
