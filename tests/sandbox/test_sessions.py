"""sandbox_eval with `session`: interpreters whose state lives between calls, through the server."""
import base64
import json
import subprocess
import textwrap
import unittest

from sandbox_case import SLOW, SandboxCase, unpack, wait_for

IGNORING = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
ENDLESS = {"python": "while True: pass", "javascript": "for (;;);", "bash": "while :; do :; done"}
# What the code itself must not know: the token of its call, in a frame of the driver.
TOKEN = """
import os, sys
frame = sys._getframe()
while "request" not in frame.f_locals: frame = frame.f_back
token = frame.f_locals["request"]["token"]
def forge(fields): os.write(1, ("\\x1e" + token + fields + "\\x1e").encode())
"""


def has_module(name):
    """In the python of the host, which is the one inside."""
    return subprocess.run(["/usr/bin/python3", "-c", f"import {name}"], capture_output=True).returncode == 0


def notes(done):
    return " ".join(done["notes"])


class SessionCase(SandboxCase):
    made = 0

    def setUp(self):
        """Each test has session names of its own, in one sandbox."""
        SessionCase.made += 1
        self.session = f"s{SessionCase.made}"

    def eval(self, code, language="python", **arguments):
        arguments.setdefault("session", self.session)
        return self.ok("sandbox_eval", code=textwrap.dedent(code), language=language, **arguments)

    def value(self, code, language="python", **arguments):
        done = self.eval(code, language, **arguments)
        self.assertEqual((done["end"], done["exit_code"]), ("exited", 0), done)
        return done.get("value")

    def submit(self, code, language="python", **arguments):
        arguments.setdefault("session", self.session)
        return self.client.submit_tool("sandbox_eval", {"code": textwrap.dedent(code), "language": language, **arguments})

    def gate(self, **arguments):
        """A fifo inside: whoever opens one end waits for the other."""
        SessionCase.made += 1
        path = f"/tmp/gate-{SessionCase.made}"
        self.sh(f"mkfifo {path}", **arguments)
        return path

    def hold(self, before="", after="", **arguments):
        """A call whose code has begun and waits: its call and what lets it go on."""
        here, go = self.gate(), self.gate()
        call = self.submit(f"{before}\nopen('{here}', 'w').close()\nopen('{go}').read()\n{after}", **arguments)
        self.sh(f"cat {here}")
        return call, lambda: self.sh(f": > {go}")

    def processes(self, **arguments):
        return self.ok("sandbox_process", action="list", **arguments)["processes"]

    def process_of(self, session=None, **arguments):
        """The number of the session's process."""
        return next(p["process_id"] for p in self.processes(**arguments)
                    if p["state"] == "running" and p["command"].endswith(f"session '{session or self.session}'"))

    def began_anew(self, done):
        self.assertIn("is new", notes(done))
        self.assertEqual(done["end"], "exited", done)


class State(SessionCase):
    def test_what_python_code_makes_lives_on_between_calls(self):
        first = self.eval("import math\nx = 6\ndef twice(n): return n * 2\nimport os; os.chdir('/tmp')")
        self.assertEqual((first["session"], first["language"]), (self.session, "python"))
        self.assertIn(f"Session '{self.session}' is new.", first["notes"])
        second = self.eval("twice(x), math.floor(1.5), os.getcwd()")
        self.assertEqual(second["value"], "(12, 1, '/tmp')")
        self.assertEqual(second["notes"], [])

    def test_what_javascript_code_makes_lives_on_between_calls(self):
        self.eval("const path = require('path'); let x = 6; const twice = (n) => n * 2; class A {}", "javascript")
        self.assertEqual(self.value("[twice(x), path.basename('/a/b'), typeof A]", "javascript"), "[ 12, 'b', 'function' ]")
        self.assertEqual(self.value("x = await Promise.resolve(7); x + 1", "javascript"), "8")

    def test_what_bash_code_makes_lives_on_between_calls(self):
        self.eval("x=6; twice() { echo $(($1 * 2)); }; cd /tmp; shopt -s extglob", "bash")
        self.assertEqual(self.eval("twice $x; pwd; shopt -q extglob && echo on; false", "bash")["stdout"], "12\n/tmp\non\n")

    def test_a_hundred_megabytes_are_kept_between_calls(self):
        self.eval("data = [bytes([i]) * 1_000_000 for i in range(100)]; place = id(data)")
        for _ in range(3):
            self.assertEqual(self.value("len(data), sum(map(len, data)), data[99][0], id(data) == place"),
                             "(100, 100000000, 99, True)")

    def test_two_sessions_never_mix(self):
        self.eval("x = 'one'", session="mix one")
        self.eval("x = 'two'", session="mix two")
        self.assertEqual(self.value("x", session="mix one"), "'one'")
        self.assertEqual(self.value("x", session="mix two"), "'two'")
        self.assertNotEqual(*(self.value("import os; os.getpid()", session=f"mix {n}") for n in ("one", "two")))

    def test_two_languages_with_one_name_never_mix(self):
        self.eval("x = 'python'")
        self.eval("x = 'javascript'", "javascript")
        self.eval("x=bash", "bash")
        self.assertEqual(self.value("x"), "'python'")
        self.assertEqual(self.value("x", "javascript"), "'javascript'")
        self.assertEqual(self.eval("echo $x", "bash")["stdout"], "bash\n")

    def test_two_sandboxes_with_one_name_of_a_session_never_mix(self):
        other = self.ok("sandbox_create")["sandbox_id"]
        self.eval("x = 1")
        self.began_anew(self.eval("x = 2", sandbox_id=other))
        self.assertEqual((self.value("x"), self.value("x", sandbox_id=other)), ("1", "2"))
        self.ok("sandbox_destroy", sandbox_id=other)

    def test_a_language_that_is_left_out_is_that_of_the_session(self):
        self.eval("x = 5", "javascript")
        done = self.ok("sandbox_eval", code="import_ = x; print = typeof process; print", session=self.session)
        self.assertEqual((done["language"], done["value"]), ("javascript", "'object'"))
        self.eval("x=6", "bash", session=self.session + "b")
        self.assertEqual(self.ok("sandbox_eval", code="printf %s\\\\n $x", session=self.session + "b")["stdout"], "6\n")

    def test_a_language_that_is_left_out_is_guessed_where_the_session_has_more_than_one_or_none(self):
        self.assertEqual(self.ok("sandbox_eval", code="const a = 1", session=self.session)["language"], "javascript")
        self.eval("a = 2")
        self.assertEqual(self.ok("sandbox_eval", code="print(a)", session=self.session)["stdout"], "2\n")
        self.assertEqual(self.ok("sandbox_eval", code="console.log(a)", session=self.session)["stdout"], "1\n")

    def test_calls_without_a_session_share_nothing_with_it(self):
        self.eval("x = 1")
        self.assertIn("NameError", self.ok("sandbox_eval", code="x", language="python")["stderr"])
        self.assertEqual(self.value("x"), "1")

    def test_the_last_expression_gives_the_value_and_a_statement_none(self):
        self.assertEqual(self.value("6 * 7"), "42")
        self.assertEqual(self.value("x = 5\nx"), "5")
        self.assertIsNone(self.value("x = 5"))
        self.assertIsNone(self.value("None"))
        self.assertEqual(self.value("({a: [1, 'b']})", "javascript"), "{ a: [ 1, 'b' ] }")

    def test_environment_and_folder_of_the_sandbox_hold(self):
        box = self.ok("sandbox_create", env={"GREETING": "hé \"x\""}, workdir="/tmp/deep")["sandbox_id"]
        self.assertEqual(self.value("import os; os.environ['GREETING'], os.getcwd()", sandbox_id=box),
                         "('hé \"x\"', '/tmp/deep')")
        self.assertEqual(self.value("[process.env.GREETING, process.cwd()]", "javascript", sandbox_id=box),
                         "[ 'hé \"x\"', '/tmp/deep' ]")
        self.assertEqual(self.eval("echo $GREETING; pwd", "bash", sandbox_id=box)["stdout"], 'hé "x"\n/tmp/deep\n')
        self.ok("sandbox_destroy", sandbox_id=box)

    def test_a_path_keeps_the_code_and_names_it_in_errors(self):
        done = self.eval("def f():\n    raise ValueError(1)\nx = 3\n__file__", path="sub/mod.py")
        self.assertEqual(done["value"], "'/workspace/sub/mod.py'")
        self.assertEqual(self.sh("head -1 sub/mod.py"), "def f():\n")
        self.assertIn('File "/workspace/sub/mod.py", line 2, in f\n    raise ValueError(1)', self.eval("f()")["stderr"])
        self.assertEqual(self.value("x"), "3")


class Output(SessionCase):
    def test_stdout_and_stderr_come_apart(self):
        codes = {"python": "import sys\nprint('out'); print('err', file=sys.stderr)", "bash": "echo out; echo err >&2",
                 "javascript": "console.log('out'); console.error('err')"}
        for language, code in codes.items():
            for _ in range(2):
                done = self.eval(code, language)
                self.assertEqual((done["stdout"], done["stderr"]), ("out\n", "err\n"), language)

    def test_output_of_children_is_the_calls(self):
        self.assertEqual(self.eval("import os; print('a'); os.system('echo b; echo c >&2'); print('d')")["stdout"], "a\nb\nd\n")

    def test_an_exception_is_a_result_and_the_session_lives_on(self):
        self.eval("x = 1")
        done = self.eval("print('before')\n1 / 0\nprint('after')")
        self.assertEqual((done["end"], done["exit_code"], done["stdout"], done["notes"]), ("exited", 1, "before\n", []))
        self.assertTrue(done["stderr"].endswith("ZeroDivisionError: division by zero\n"), done)
        self.assertIn("SyntaxError", self.eval("x = = 1")["stderr"])
        self.assertEqual(self.value("x"), "1")
        thrown = self.eval("throw new Error('oh')", "javascript")
        self.assertEqual((thrown["exit_code"], "Error: oh" in thrown["stderr"]), (1, True))
        self.assertEqual(self.eval("nonesuch", "bash")["exit_code"], 127)

    def test_output_over_the_limit_is_cut_names_its_log_and_the_value_still_arrives(self):
        done = self.eval("for i in range(100_000): print(i)\n'the value'")
        self.assertEqual((done["value"], done["truncated"]), ("'the value'", True))
        self.assertLess(len(done["stdout"]), 11_000)
        self.assertIn("of 588890 bytes cut here; all of it: " + done["log"], done["stdout"])
        self.assertTrue(done["stdout"].startswith("0\n1\n") and done["stdout"].endswith("\n99999\n"))
        # The mark that ends stderr may stand in the middle of a line.
        self.assertGreaterEqual(int(self.sh(f"grep -ac '^[0-9]*$' {done['log']}")), 99_999)
        again = self.eval("print('short')")
        self.assertEqual((again["stdout"], again["truncated"]), ("short\n", False))

    def test_a_flood_is_bounded_and_the_session_goes_on(self):
        for language, code in (("python", "for _ in range(100): print('y' * 1_000_000)\n'value'"),
                               ("bash", "yes | head -c 100000000")):
            done = self.eval(code, language)
            self.assertLess(len(done["stdout"]), 11_000)
            self.assertTrue(done["truncated"])
            self.assertEqual(self.eval("echo on" if language == "bash" else "print('on')", language)["stdout"], "on\n")

    def test_code_of_a_megabyte_runs(self):
        text = "é" * 500_000
        self.assertEqual(self.value(f"x = '{text}'\nlen(x)"), "500000")
        self.assertEqual(self.value(f"x = '{text}'; x.length", "javascript"), "500000")
        self.assertEqual(self.eval(f"x='{text}'\necho ${{#x}}", "bash")["stdout"], "500000\n")

    def test_unicode_passes_through_code_output_value_and_names(self):
        for _ in range(2):
            done = self.eval("print('é€😀\\u2028')\n'日本'", session="säßion 😀")
            self.assertEqual((done["stdout"], done["value"], done["session"]), ("é€😀\u2028\n", "'日本'", "säßion 😀"))
        self.assertEqual(self.eval("import os; os.write(1, b'a\\xff\\xe2\\x82b\\n')")["stdout"], "a\ufffd\ufffd\ufffdb\n")
        self.assertEqual(self.eval("console.log('é😀')", "javascript")["stdout"], "é😀\n")
        self.assertEqual(self.eval("echo é😀", "bash")["stdout"], "é😀\n")

    def test_marks_that_code_prints_are_its_output(self):
        for printed in ("\x1e", "a\x1eb", "\x1e\x1e\x1e", "\x1e0123456789abcdef"):
            done = self.eval(f"import sys; sys.stdout.write({printed!r}); 'value'")
            self.assertEqual((done["stdout"], done["value"]), (printed, "'value'"))
        self.assertEqual(self.eval("printf 'a\\036b'", "bash")["stdout"], "a\x1eb")

    def test_a_forged_answer_with_a_wrong_token_is_output(self):
        forged = "\x1e" + "0" * 32 + '{"exit_code":9,"value":"forged"}\x1e'
        done = self.eval(f"print({forged!r})\n'true'")
        self.assertEqual((done["exit_code"], done["value"], done["stdout"]), (0, "'true'", forged + "\n"))

    def test_a_forged_answer_with_the_right_token_harms_only_the_session_that_forged_it(self):
        for fields in ('{"exit_code":-1,"value":"forged","images":["/etc/hostname","/none","x\\\\u0000","/",7]}',
                       "{", "[" * 3000, '{"value":["not text"]}', "\\xff"):
            self.ok("sandbox_eval", code=TOKEN + f"forge('{fields}')", language="python", session=self.session)
            wait_for("the true answers have passed", lambda: self.value("1 + 1") == "2")
        done = self.ok("sandbox_eval", code=TOKEN + "forge('{\"images\":[\"/etc/hostname\",\"/none\",\"rel\"]}')",
                       language="python", session=self.session)
        self.assertIn("The image /etc/hostname is left out: it is no PNG.", done["notes"])
        self.assertIn("The image /none cannot be read", notes(done))
        self.assertNotIn("rel", notes(done))

    def test_output_of_threads_between_calls_comes_with_the_next_one_and_nothing_twice(self):
        go, done = self.gate(), self.gate()
        self.eval(f"""
            import threading
            def late():
                open('{go}').read()
                print('late')
                open('{done}', 'w').close()
            threading.Thread(target=late).start()
            print('early')""")
        self.sh(f": > {go}; cat {done}")
        second = self.eval("print('second')")["stdout"]
        self.assertRegex(second, r"\A(\[printed since the last call\]\n)?late\n+second\n\Z")
        self.assertEqual(self.eval("print('third')")["stdout"], "third\n")

    def test_much_output_between_calls_is_cut_and_says_so(self):
        go, done = self.gate(), self.gate()
        self.eval(f"""
            import threading
            def late():
                open('{go}').read()
                print('é' * 500_000, flush=True)
                open('{done}', 'w').close()
            threading.Thread(target=late).start()""")
        self.sh(f": > {go}; cat {done}")
        second = self.eval("print('second')")
        self.assertTrue(second["truncated"], second["stdout"][-300:])
        self.assertRegex(second["stdout"], r"\[\.\.\. \d+ of \d+ bytes cut here; all of it: /var/log/hutch/\d+\.log \.\.\.\]\n")
        self.assertTrue(second["stdout"].endswith("second\n"))
        self.assertNotIn("\ufffd", second["stdout"])
        self.assertLess(len(second["stdout"]), 20_000)
        self.assertEqual(self.eval("print('third')")["stdout"], "third\n")

    def test_two_hundred_small_calls_lose_and_repeat_nothing(self):
        for i in range(200):
            done = self.eval(f"print({i}); {i}")
            self.assertEqual((done["stdout"], done["stderr"], done["value"], done["exit_code"]), (f"{i}\n", "", str(i), 0))


class FreshProcess(SessionCase):
    """Without a session: what the process prints until its end belongs to the call."""

    def fresh(self, code, language="python"):
        return self.ok("sandbox_eval", code=textwrap.dedent(code), language=language)

    def test_output_of_threads_and_exit_handlers_after_the_code_is_the_calls(self):
        done = self.fresh("""
            import atexit, sys, threading
            def late():
                threading.main_thread().join()
                print('late'); print('err', file=sys.stderr)
            threading.Thread(target=late).start()
            atexit.register(print, 'bye')
            print('hi')
            7""")
        self.assertEqual((done["stdout"], done["stderr"], done["value"]), ("hi\nlate\nbye\n", "err\n", "7"))

    def test_output_of_timers_after_the_code_is_the_calls(self):
        done = self.fresh("setTimeout(() => { console.log('late'); console.error('err'); }, 20)\nconsole.log('hi')\n7", "javascript")
        self.assertEqual((done["stdout"], done["stderr"], done["value"], done["exit_code"]), ("hi\nlate\n", "err\n", "7", 0))

    def test_marks_and_forged_answers_change_nothing(self):
        forged = "\x1e" + "0" * 32 + '{"exit_code":9,"value":"forged"}\x1e'
        done = self.fresh(f"print({forged!r})\n'true'")
        self.assertEqual((done["exit_code"], done["value"], done["stdout"]), (0, "'true'", forged + "\n"))


class Text(SessionCase):
    """What models see: one stream, in order."""
    results = "text"

    def text(self, code, language="python", **arguments):
        return self.ok("sandbox_eval", code=code, language=language, **arguments)

    def test_both_streams_come_in_order_and_then_the_value(self):
        code = "import sys\nfor i in range(3): print('out', i); print('err', i, file=sys.stderr)\n6 * 7"
        for arguments in ({}, {"session": self.session}, {"session": self.session}):
            lines = self.text(code, **arguments).splitlines()
            self.assertRegex(lines[0], r"^exit 0 in [0-9.]+ m?s · sbx-")
            self.assertEqual(lines[1:8], ["out 0", "err 0", "out 1", "err 1", "out 2", "err 2", "=> 42"])

    def test_the_first_line_tells_how_it_ended_and_the_last_what_became_of_the_session(self):
        self.text("x = 1", session=self.session)
        text = self.text(ENDLESS["python"], session=self.session, timeout_s=0.3)
        self.assertRegex(text.splitlines()[0], "^timed out: interrupted after ")
        self.assertTrue(text.endswith(f"The code was interrupted; session '{self.session}' lives on with what it knows."), text)
        text = self.text("import os; os._exit(3)", session=self.session)
        self.assertRegex(text.splitlines()[0], "^exit 3 in ")
        self.assertIn("(no output)", text)
        self.assertIn(f"Session '{self.session}' has ended, and what it knew is gone", text)

    def test_late_output_of_a_fresh_process_stands_before_the_value(self):
        lines = self.text("import atexit; atexit.register(print, 'bye'); print('hi'); 7").splitlines()
        self.assertEqual(lines[1:4], ["hi", "bye", "=> 7"])


class Ends(SessionCase):
    def test_sys_exit_ends_the_call_and_not_the_session(self):
        self.eval("x = 1")
        done = self.eval("import sys; print('a'); sys.exit(3)")
        self.assertEqual((done["end"], done["exit_code"], done["stdout"], done["notes"]), ("exited", 3, "a\n", []))
        self.assertEqual(self.value("x"), "1")

    def test_a_process_that_leaves_is_said_with_its_exit_code_and_the_next_call_begins_anew(self):
        for language, code, known in (("python", "import os; print('bye', flush=True); os._exit(7)", "x"),
                                      ("javascript", "console.log('bye'); process.exit(7)", "x"),
                                      ("bash", "echo bye; exit 7", "echo ${x?}")):
            self.eval("x=1", language)
            done = self.eval(code, language)
            self.assertEqual((done["end"], done["exit_code"], done["stdout"]), ("exited", 7, "bye\n"), done)
            self.assertIn(f"Session '{self.session}' has ended, and what it knew is gone", notes(done))
            anew = self.eval(known, language)
            self.began_anew(anew)
            self.assertNotEqual(anew["exit_code"], 0, anew)

    def test_a_process_that_kills_itself_is_said_with_its_signal_and_the_next_call_begins_anew(self):
        for language, code in (("python", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"),
                               ("javascript", "process.kill(process.pid, 'SIGKILL'); for (;;);"), ("bash", "kill -9 $$")):
            self.eval("x=1", language)
            done = self.eval(code, language)
            self.assertEqual((done["end"], done["signal"]), ("signaled", "SIGKILL"), done)
            self.assertIn("has ended, and what it knew is gone", notes(done))
            self.began_anew(self.eval("x=2", language))

    def test_what_a_dead_session_left_running_is_named(self):
        done = self.eval("import os, subprocess; subprocess.Popen(['sleep', '1000']); os._exit(0)")
        self.assertIn("that it started still run", notes(done))
        self.ok("sandbox_process", action="signal", process_id=done["process_id"], signal="KILL")
        self.began_anew(self.eval("1"))

    def test_a_session_that_died_between_two_calls_is_an_error_once_that_says_what_to_do(self):
        go = self.gate()
        self.eval(f"import os, threading\nthreading.Thread(target=lambda: (open('{go}').read(), os._exit(5))).start()")
        number = self.process_of()
        self.sh(f": > {go}")
        self.assertEqual(self.ok("sandbox_process", action="wait", process_id=number)["processes"][0]["exit_code"], 5)
        text = self.refused("sandbox_eval", code="1", language="python", session=self.session)
        self.assertIn(f"session '{self.session}' has ended since its last call (exit code 5): what it knew is gone", text)
        self.assertIn("the next call with this `session` starts a new one", text)
        self.began_anew(self.eval("1"))

    def test_restart_begins_anew(self):
        self.began_anew(self.eval("x = 1", restart=True))
        pid = self.value("import os; os.getpid()")
        done = self.eval("x", restart=True)
        self.began_anew(done)
        self.assertIn("NameError", done["stderr"])
        self.assertNotEqual(self.value("import os; os.getpid()"), pid)

    def test_restart_of_a_session_that_died_is_no_error(self):
        self.eval("x = 1")
        self.ok("sandbox_process", action="signal", process_id=self.process_of(), signal="KILL")
        self.began_anew(self.eval("1", restart=True))

    def test_restart_begins_anew_while_the_old_one_hangs_in_another_call(self):
        here = self.gate()
        hangs = self.submit(f"{IGNORING}\nopen('{here}', 'w').close()\nwhile True: pass")
        self.sh(f"cat {here}")
        self.began_anew(self.eval("x = 2", restart=True))
        old = unpack(hangs.result(20 * SLOW)).structured
        self.assertEqual((old["end"], old["signal"]), ("signaled", "SIGKILL"))
        self.assertIn("has ended", notes(old))
        self.assertEqual(self.value("x"), "2")  # what became of the old one takes nothing of the new one

    def test_a_call_that_waits_for_a_session_that_ends_does_not_take_its_end_for_its_own(self):
        here = self.gate()
        self.submit(f"""
            import os, time
            open('{here}', 'w').close()
            while not os.path.exists('/tmp/{self.session}'): time.sleep(0.01)
            time.sleep(0.1)
            os._exit(3)""")
        self.sh(f"cat {here}")
        waiting = unpack(self.submit("6 * 7", path=f"/tmp/{self.session}").result(20 * SLOW))
        if waiting.is_error:
            self.assertIn("has ended since its last call (exit code 3)", waiting.text)
            self.began_anew(self.eval("1"))
        else:  # it came when the other one was gone
            self.assertEqual(waiting.structured["value"], "42")

    def test_a_deadline_interrupts_and_what_is_known_lives_on(self):
        for language, read in (("python", "print(x)"), ("javascript", "console.log(x)"), ("bash", "echo $x")):
            self.eval("x=5", language)
            done = self.eval(ENDLESS[language], language, timeout_s=0.3)
            self.assertEqual(done["end"], "timed_out", done)
            self.assertIn(f"The code was interrupted; session '{self.session}' lives on", notes(done))
            again = self.eval(read, language)
            self.assertEqual((again["stdout"], again["notes"]), ("5\n", []), language)

    def test_a_deadline_is_a_keyboard_interrupt_with_the_output_so_far(self):
        self.eval("import time")
        done = self.eval("print('so far')\ntry:\n    time.sleep(100)\nfinally:\n    kept = 'cleaned up'", timeout_s=0.3)
        self.assertEqual(done["stdout"], "so far\n")
        self.assertTrue(done["stderr"].endswith("KeyboardInterrupt\n"), done)
        self.assertEqual(self.value("kept"), "'cleaned up'")

    def test_a_deadline_ends_a_child_that_the_code_waits_for(self):
        self.eval("x=5", "bash")
        self.assertEqual(self.eval("sleep 7654", "bash", timeout_s=0.3)["end"], "timed_out")
        self.assertEqual(self.eval("echo $x; pgrep -fx 'sleep 7654'", "bash")["stdout"], "5\n")

    def test_code_that_ignores_interrupts_is_ended_after_the_grace_and_the_sandbox_lives_on(self):
        self.sh("echo kept > /tmp/kept")
        self.eval("x = 1")
        done = self.eval(IGNORING + "\nprint('busy')\nwhile True: pass", timeout_s=0.3)
        self.assertEqual((done["end"], done["stdout"]), ("timed_out", "busy\n"))
        self.assertIn("has ended, and what it knew is gone", notes(done))
        self.assertEqual(self.sh("cat /tmp/kept"), "kept\n")
        self.began_anew(self.eval("1"))

    def test_cancellation_interrupts_sends_no_answer_and_keeps_what_is_known(self):
        for language, mark in (("python", "open('{}', 'w').close()"), ("bash", ": > {}"),
                               ("javascript", "require('fs').closeSync(require('fs').openSync('{}', 'w'))")):
            self.eval("x=5", language)
            here = self.gate()
            hangs = self.submit(mark.format(here) + "\n" + ENDLESS[language], language)
            self.sh(f"cat {here}")
            hangs.cancel()
            again = self.eval("echo $x" if language == "bash" else "x", language)
            self.assertEqual(again.get("value", again["stdout"].strip()), "5", again)
            self.assertEqual(again["notes"], [])
            self.client.ping()
            self.assertFalse(hangs.answered_within(0.1))

    def test_cancellation_of_a_call_that_waits_for_a_session_leaves_the_other_one_alone(self):
        holds, release = self.hold(after="'done'")
        waits = self.submit("1")
        waits.cancel()
        release()
        self.assertEqual(unpack(holds.result(20 * SLOW)).structured["value"], "'done'")
        self.assertEqual(self.value("1 + 1"), "2")
        self.assertFalse(waits.answered_within(0.1))

    def test_two_calls_at_once_run_one_after_the_other(self):
        first, release = self.hold("order = []", "order.append('first')\nprint('first')")
        others = [self.submit(f"order.append({i})\nprint({i})\nlen(order)") for i in range(4)]
        release()
        self.assertEqual(unpack(first.result(20 * SLOW)).structured["stdout"], "first\n")
        done = [unpack(other.result(20 * SLOW)).structured for other in others]
        self.assertEqual([d["stdout"] for d in done], [f"{i}\n" for i in range(4)])
        self.assertEqual(sorted(d["value"] for d in done), ["2", "3", "4", "5"])
        self.assertEqual(self.value("order[0]"), "'first'")

    def test_two_first_calls_at_once_make_one_session(self):
        calls = [self.submit("import os; os.getpid()") for _ in range(4)]
        self.assertEqual(len({unpack(c.result(20 * SLOW)).structured["value"] for c in calls}), 1)

    def test_a_call_that_waits_for_a_busy_session_gives_up_at_its_deadline(self):
        holds, release = self.hold(after="'done'")
        text = self.refused("sandbox_eval", code="1", language="python", session=self.session, timeout_s=0.2)
        self.assertIn(f"session '{self.session}' still runs the code of another call", text)
        self.assertIn("wait for it, or take another `session`", text)
        release()
        self.assertEqual(unpack(holds.result(20 * SLOW)).structured["value"], "'done'")

    def test_a_busy_session_holds_up_nothing_else(self):
        holds, release = self.hold()
        self.client.ping()
        self.assertEqual(self.value("1", session=self.session + "b"), "1")
        self.assertEqual(self.sh("echo on"), "on\n")
        release()
        holds.result(20 * SLOW)

    def test_the_memory_limit_is_named_and_nothing_else_is_blamed_for_it(self):
        box = self.ok("sandbox_create", memory="64m")["sandbox_id"]
        self.eval("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", sandbox_id=box, session="own doing")
        done = self.eval("data = bytearray(200 << 20)", sandbox_id=box)
        self.assertEqual((done["end"], done["signal"]), ("oom_killed", "SIGKILL"), done)
        self.assertIn("at the sandbox's memory limit of 64m", notes(done))
        self.assertIn("has ended, and what it knew is gone", notes(done))
        self.assertEqual(self.ok("sandbox_exec", command="exit 1", sandbox_id=box)["notes"], [])
        self.assertEqual([(p["command"], p["end"]) for p in self.processes(sandbox_id=box)],
                         [("python session 'own doing'", "signaled"), (f"python session '{self.session}'", "oom_killed")])
        self.began_anew(self.eval("1", sandbox_id=box))
        self.ok("sandbox_destroy", sandbox_id=box)


class Processes(SessionCase):
    def test_a_session_is_listed_and_can_be_ended(self):
        box = self.ok("sandbox_create")["sandbox_id"]
        self.eval("x = 1", sandbox_id=box)
        listed = self.processes(sandbox_id=box)
        self.assertEqual([(p["command"], p["state"]) for p in listed], [(f"python session '{self.session}'", "running")])
        ended = self.ok("sandbox_process", sandbox_id=box, action="signal", signal="KILL", process_id=listed[0]["process_id"])
        self.assertEqual((ended["processes"][0]["state"], ended["processes"][0]["signal"]), ("ended", "SIGKILL"))
        self.assertIn("(signal 9)",
                      self.refused("sandbox_eval", sandbox_id=box, code="x", language="python", session=self.session))
        self.began_anew(self.eval("x", sandbox_id=box))
        self.ok("sandbox_destroy", sandbox_id=box)

    def test_destroying_the_sandbox_ends_its_sessions_and_a_call_in_one(self):
        box = self.ok("sandbox_create", name="to-end")["sandbox_id"]
        self.eval("x = 1", sandbox_id=box)
        here = self.gate(sandbox_id=box)
        hangs = self.submit(f"open('{here}', 'w').close()\nwhile True: pass", sandbox_id=box)
        self.sh(f"cat {here}", sandbox_id=box)
        self.ok("sandbox_destroy", sandbox_id=box)
        self.assertTrue(unpack(hangs.result(20 * SLOW)).is_error)
        self.refused("sandbox_eval", code="x", language="python", session=self.session, sandbox_id=box)
        self.ok("sandbox_create", name="to-end")
        self.began_anew(self.eval("1", sandbox_id="to-end"))
        self.ok("sandbox_destroy", sandbox_id="to-end")

    def test_the_thirty_third_session_is_refused_until_one_of_the_others_is_ended(self):
        box = self.ok("sandbox_create")["sandbox_id"]
        for i in range(32):
            self.eval(f"x={i}", "bash", session=f"n{i}", sandbox_id=box)
        text = self.refused("sandbox_eval", code="x=32", language="bash", session="n32", sandbox_id=box)
        self.assertIn("this sandbox has 32 sessions", text)
        self.assertIn("sandbox_process", text)
        self.assertEqual(self.eval("echo $x", "bash", session="n31", sandbox_id=box)["stdout"], "31\n")
        self.ok("sandbox_process", sandbox_id=box, action="signal", signal="KILL",
                process_id=self.process_of("n7", sandbox_id=box))
        self.began_anew(self.eval("x=32", "bash", session="n32", sandbox_id=box))
        self.refused("sandbox_eval", code="x=33", language="bash", session="n33", sandbox_id=box)
        self.ok("sandbox_destroy", sandbox_id=box)

    def test_an_idle_session_does_not_keep_its_sandbox_from_being_idle(self):
        idle = self.ok("sandbox_create", idle_timeout_s=1)["sandbox_id"]
        self.eval("x = 1", sandbox_id=idle)
        wait_for("the idle one is gone", lambda: idle not in str(self.ok("sandbox_list")["sandboxes"]))

    def test_a_session_that_works_does(self):
        busy = self.ok("sandbox_create", idle_timeout_s=1)["sandbox_id"]
        self.assertEqual(self.value("import time; time.sleep(1.6); 7", sandbox_id=busy), "7")
        self.ok("sandbox_destroy", sandbox_id=busy)

    def test_progress_shows_the_last_line_of_a_session(self):
        go = self.gate()
        call = self.client.submit_tool("sandbox_eval", {
            "code": f"print('step 1'); open('{go}').read()", "language": "python", "session": self.session}, progress=True)
        self.assertEqual(call.progress.get(timeout=20 * SLOW)["message"], "step 1")
        self.sh(f": > {go}")
        call.result(20 * SLOW)


class Arguments(SessionCase):
    def refuse(self, **arguments):
        return self.refused("sandbox_eval", **{"code": "1", "language": "python", **arguments})

    def test_languages_without_sessions_are_refused_and_those_with_them_named(self):
        for language in ("ruby", "typescript", "sh", "perl"):
            text = self.refuse(language=language, session=self.session)
            self.assertIn(f"there are no sessions for {language}", text)
            self.assertIn("python, javascript and bash have them", text)

    def test_restart_without_a_session_is_refused(self):
        self.assertIn("'restart' is given without 'session'", self.refuse(restart=True))

    def test_wrong_values_are_named(self):
        for name, value, word in (("session", "x" * 65, "session"), ("session", 5, "session"), ("restart", "yes", "restart"),
                                  ("timeout_s", 0, "timeout_s"), ("timeout_s", 3601, "timeout_s"), ("code", "", "code"),
                                  ("code", 7, "code"), ("language", "cobol", "cobol"), ("sesion", "a", "session"),
                                  ("sandbox_id", "sbx-000000000000", "sbx-000000000000")):
            with self.subTest(name=name, value=value):
                self.assertIn(word, self.refuse(**{"session": self.session, name: value}))

    def test_bash_code_with_a_nul_byte_is_refused_and_the_session_lives_on(self):
        self.eval("x=1", "bash")
        self.assertIn("NUL", self.refuse(code="echo a\0b", language="bash", session=self.session))
        self.assertEqual(self.eval("echo $x", "bash")["stdout"], "1\n")

    def test_a_path_that_cannot_be_written_is_an_error_and_nothing_runs(self):
        self.eval("x = 1")
        self.refuse(code="x = 2", session=self.session, path="/proc/none/x.py")
        self.assertEqual(self.value("x"), "1")


class Images(SessionCase):
    def images(self, code, **arguments):
        """The pictures, and the text of the result."""
        result = self.client.call_tool("sandbox_eval", {"code": textwrap.dedent(code), "language": "python", **arguments},
                                       timeout=60 * SLOW)
        self.assertFalse(result.get("isError"), result)
        found = [c for c in result["content"] if c["type"] == "image"]
        self.assertEqual({c["mimeType"] for c in found} - {"image/png"}, set())
        return [base64.b64decode(c["data"]) for c in found], result["structuredContent"]

    def is_png(self, data, width=None, height=None):
        self.assertTrue(data.startswith(b"\x89PNG\r\n\x1a\n"))
        self.assertIn(b"IEND", data[-12:])
        if width:
            self.assertEqual((int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")), (width, height))

    def fresh(self, code):
        """In a sandbox of its own, in which nothing must be left."""
        box = self.ok("sandbox_create")["sandbox_id"]
        pictures, done = self.images(code, sandbox_id=box)
        self.assertEqual(self.sh("find / -xdev -path /usr -prune -o -name '*.png' -print -o -name 'images-*' -print 2>/dev/null; true",
                                 sandbox_id=box), "")
        self.ok("sandbox_destroy", sandbox_id=box)
        return pictures, done

    @unittest.skipUnless(has_module("matplotlib"), "python3-matplotlib is not installed")
    def test_plots_arrive_as_images_from_a_session_and_from_a_fresh_process(self):
        plot = "import matplotlib.pyplot as plt\nplt.plot([1, 3, 2]); plt.title('one')"
        plots = plot + "\nplt.figure(); plt.bar([1, 2], [3, 4])\nprint('drawn')"
        for pictures, done in (self.fresh(plots), self.images(plots, session=self.session)):
            self.assertEqual((len(pictures), done["stdout"], done["stderr"]), (2, "drawn\n", ""), done)
            for picture in pictures:
                self.is_png(picture)
        self.assertEqual(self.images("1 + 1", session=self.session)[0], [])
        pictures, _ = self.images("plt.plot([5, 6])\nplt.show()", session=self.session)
        self.assertEqual(len(pictures), 1)

    @unittest.skipUnless(has_module("PIL"), "python3-pil is not installed")
    def test_a_pil_image_arrives_and_leaves_no_file_behind(self):
        code = "from PIL import Image\nImage.new('RGB', (31, 17), 'red')"
        for pictures, done in (self.fresh(code), self.images(code, session=self.session)):
            self.assertEqual(len(pictures), 1, done)
            self.is_png(pictures[0], 31, 17)

    def test_an_image_that_is_no_png_is_left_out_and_named(self):
        code = "class P:\n    def _repr_png_(self): return b'GIF89a'\nP()"
        for pictures, done in (self.fresh(code), self.images(code, session=self.session)):
            self.assertEqual(pictures, [])
            self.assertRegex(notes(done), r"The image /tmp/images-\w+/1\.png is left out: it is no PNG\.")

    def test_an_image_that_is_too_large_is_left_out_and_named(self):
        pictures, done = self.images("""
            class P:
                def _repr_png_(self): return b'\\x89PNG\\r\\n\\x1a\\n' + bytes(6 << 20)
            P()""", session=self.session)
        self.assertEqual(pictures, [])
        self.assertIn("[the value is not shown: 6291464 bytes of PNG are more than 5242880]", done["stderr"])
        pictures, done = self.images(TOKEN + """
for name in 'ab': open('/tmp/%s.png' % name, 'wb').write(b'\\x89PNG\\r\\n\\x1a\\n' + bytes(4 << 20))
forge('{"images":["/tmp/a.png","/tmp/b.png"]}')""", session=self.session)
        self.assertEqual(len(pictures), 1)
        self.assertIn("The image /tmp/b.png is left out: more than 7 MiB in all.", notes(done))

    def test_an_image_that_is_no_file_does_not_hang(self):
        pictures, done = self.images(TOKEN + """
os.mkfifo('/tmp/fifo.png')
forge('{"images":["/tmp/fifo.png","/dev/zero","/tmp"]}')""", session=self.session)
        self.assertEqual(pictures, [])
        for path in ("/tmp/fifo.png", "/dev/zero", "/tmp"):
            self.assertIn(f"The image {path} ", notes(done))


class Warm(SessionCase):
    """Interpreters that are started ahead in warm sandboxes."""
    server_settings = {"HUTCH_POOL__INTERPRETERS": "python,javascript"}

    def pool(self):
        done = self.hutch("pool", "status", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        return next((kind for server in json.loads(done.stdout) for kind in server["kinds"]), {})

    def create(self, **arguments):
        """A sandbox that was warm, and the pids of the interpreters in it."""
        self.call("sandbox_list")  # any call begins the pool
        wait_for("a warm sandbox", lambda: self.pool().get("ready", 0) >= 1)
        made = self.ok("sandbox_create", **arguments)
        self.addCleanup(self.call, "sandbox_destroy", sandbox_id=made["sandbox_id"])
        self.assertTrue(made["warm"], made)
        self.box = made["sandbox_id"]
        found = {name: self.sh(f"pgrep -x {name}; true", sandbox_id=self.box).split() for name in ("python3", "node")}
        self.assertEqual([len(pids) for pids in found.values()], [1, 1], found)
        return found["python3"][0], found["node"][0]

    def pids(self, session):
        return (self.value("import os; os.getpid()", sandbox_id=self.box, session=session),
                self.value("process.pid", "javascript", sandbox_id=self.box, session=session))

    def test_the_first_session_takes_the_one_that_was_started_ahead_and_the_second_starts_its_own(self):
        ahead = self.create()
        self.assertEqual(self.processes(sandbox_id=self.box), [])
        self.assertEqual(self.pids("first"), ahead)
        self.assertEqual([p["command"] for p in self.processes(sandbox_id=self.box)],
                         ["python session 'first'", "javascript session 'first'"])
        second = self.pids("second")
        self.assertEqual(set(second) & set(ahead), set())
        self.eval("x = 'second'", sandbox_id=self.box, session="second")
        self.assertIn("NameError", self.eval("x", sandbox_id=self.box, session="first")["stderr"])
        self.assertEqual(self.pids("first"), ahead)

    def test_environment_and_folder_of_sandbox_create_hold_in_it(self):
        ahead = self.create(env={"GREETING": "hé \"x\"", "LOGNAME": "me"}, workdir="/tmp/deep")
        self.sh("echo 'y = 8' > mod.py; echo 'exports.y = 9' > mod.js", sandbox_id=self.box)
        self.assertEqual(self.value("""
            import os, mod
            os.environ['GREETING'], os.environ['LOGNAME'], os.getcwd(), mod.y, os.popen('echo $GREETING').read()""",
                                    sandbox_id=self.box), "('hé \"x\"', 'me', '/tmp/deep', 8, 'hé \"x\"\\n')")
        self.assertEqual(self.value("[process.env.GREETING, process.cwd(), require('./mod.js').y]", "javascript",
                                    sandbox_id=self.box), "[ 'hé \"x\"', '/tmp/deep', 9 ]")
        self.assertEqual(self.pids(self.session), ahead)

    def test_an_environment_that_is_read_at_the_start_holds_too(self):
        self.create(env={"PYTHONPATH": "/tmp/lib", "NODE_PATH": "/tmp/lib"})
        self.sh("mkdir /tmp/lib; echo 'y = 8' > /tmp/lib/far.py; echo 'exports.y = 9' > /tmp/lib/far.js", sandbox_id=self.box)
        self.assertEqual(self.value("import far; far.y", sandbox_id=self.box), "8")
        self.assertEqual(self.value("require('far').y", "javascript", sandbox_id=self.box), "9")
        # Nobody can use those that were there.
        self.assertEqual(len(self.sh("pgrep -x python3; pgrep -x node", sandbox_id=self.box).split()), 2)
        self.assertEqual(len(self.processes(sandbox_id=self.box)), 2)

    def test_one_that_was_killed_means_a_start_as_without_it(self):
        ahead = self.create()
        for pid in ahead:
            self.sh(f"kill -9 {pid}; while kill -0 {pid} 2>/dev/null; do sleep 0.01; done", sandbox_id=self.box)
        self.processes(sandbox_id=self.box)  # asks the agent: it has heard of their ends
        done = self.eval("1 + 1", sandbox_id=self.box)
        self.assertEqual((done["end"], done.get("value")), ("exited", "2"), done)
        self.assertEqual(set(self.pids(self.session)) & set(ahead), set())

    def test_a_fresh_process_leaves_it_to_the_session(self):
        ahead = self.create()
        done = self.ok("sandbox_eval", code="import os; os.getpid()", language="python", sandbox_id=self.box)
        self.assertNotEqual(done["value"], ahead[0])
        self.assertEqual(self.value("import os; os.getpid()", sandbox_id=self.box), ahead[0])

    def test_it_can_be_interrupted_in_its_first_call(self):
        self.create()
        done = self.eval("x = 5\nwhile True: pass", sandbox_id=self.box, timeout_s=0.5)
        self.assertEqual(done["end"], "timed_out")
        self.assertEqual(self.value("x", sandbox_id=self.box), "5")

    def test_a_sandbox_with_little_memory_can_be_claimed_and_used(self):
        self.call("sandbox_list")
        wait_for("a warm sandbox", lambda: self.pool().get("ready", 0) >= 1)
        made = self.ok("sandbox_create", memory="24m")
        self.addCleanup(self.call, "sandbox_destroy", sandbox_id=made["sandbox_id"])
        self.assertEqual(self.value("1 + 1", sandbox_id=made["sandbox_id"]), "2")

    def test_claims_and_health_checks_go_on_as_before(self):
        for _ in range(3):
            self.create()
            self.assertEqual(self.value("1 + 1", sandbox_id=self.box), "2")
            self.ok("sandbox_destroy", sandbox_id=self.box)
        status = wait_for("the memory of idle ones", lambda: (k := self.pool()).get("idle_memory_bytes") and k)
        self.assertEqual(status["failures"], 0, status)
        self.assertGreaterEqual(status["hits"], 3)
