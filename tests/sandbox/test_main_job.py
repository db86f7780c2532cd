"""The main job: make sandboxes, run and edit programs in them, leave nothing behind."""
import concurrent.futures
import glob
import os
import re
import signal
import subprocess
import unittest

from sandbox_case import HUTCH, SLOW, HutchCase, SandboxCase, call, leaks, skip_when_impossible, slow, unpack, wait_for

ID = r"sbx-[0-9a-f]{12}"


class WhatModelsSee(SandboxCase):
    """Text results: the first line says what happened, the payload follows as it is."""
    results = "text"

    def test_exec_says_exit_time_and_sandbox_then_the_output_as_it_is(self):
        text = self.ok("sandbox_exec", command="printf 'a \"quoted\" line\\n'; exit 3")
        first, _, rest = text.partition("\n")
        self.assertRegex(first, rf"^exit 3 in [0-9.]+ m?s · {ID}")
        self.assertIn('a "quoted" line', rest)

    def test_text_mode_sends_no_structured_content_and_declares_no_output_schema(self):
        self.assertNotIn("structuredContent", self.client.call_tool("sandbox_list", {}))
        for tool in self.client.list_tools():
            self.assertNotIn("outputSchema", tool, tool["name"])

    def test_stdout_and_stderr_come_in_the_order_they_were_written(self):
        text = self.ok("sandbox_exec", command="for i in 1 2 3; do echo out$i; echo err$i >&2; sleep 0.05; done")
        self.assertEqual(re.findall(r"(?:out|err)\d", text), ["out1", "err1", "out2", "err2", "out3", "err3"])

    def test_every_result_names_its_sandbox(self):
        made = re.search(ID, self.ok("sandbox_create"))
        self.assertTrue(made)
        for tool, arguments in (("sandbox_exec", {"command": "true"}), ("sandbox_eval", {"code": "1+1"}),
                                ("sandbox_write_file", {"path": "f", "content": "x\n"}),
                                ("sandbox_read_file", {"path": "f"}), ("sandbox_list_files", {}),
                                ("sandbox_edit_file", {"path": "f", "edits": [{"old_str": "x", "new_str": "y"}]}),
                                ("sandbox_info", {}), ("sandbox_destroy", {})):
            with self.subTest(tool):
                self.assertIn(made[0], self.ok(tool, sandbox_id=made[0], **arguments))

    def test_a_cut_output_says_how_much_is_missing_and_where_it_is(self):
        text = self.ok("sandbox_exec", command="seq 1 100000")
        self.assertLess(len(text), 12_000)
        where = re.search(r"/var/log/hutch/\S+?\.log", text)
        self.assertTrue(where, text[-500:])
        self.assertIn("\n1\n2\n3\n", text)
        self.assertIn("\n100000", text)
        self.assertIn("588895", self.ok("sandbox_exec", command=f"wc -c < {where[0]}"))


class Work(SandboxCase):
    """What an agent does all day."""

    def test_create_tells_what_the_sandbox_is(self):
        made = self.ok("sandbox_create", name="told", memory="256m", cpus=1, pids=64, labels={"a": "b"})
        self.assertRegex(made["sandbox_id"], f"^{ID}$")
        for field in ("name", "state", "profile", "runtime", "isolation", "limits", "workdir", "user",
                      "writable_paths", "idle_timeout_s", "warm", "create_ms"):
            self.assertIn(field, made)
        self.assertEqual((made["name"], made["profile"], made["workdir"]), ("told", "default", "/workspace"))

    def test_a_program_is_written_run_edited_and_run_again(self):
        box = self.ok("sandbox_create")["sandbox_id"]
        wrote = self.ok("sandbox_write_file", sandbox_id=box, path="hello.py", content="print('hello')\n")
        self.assertEqual((wrote["path"], wrote["bytes_written"], wrote["created"]), ("/workspace/hello.py", 15, True))
        self.assertEqual(self.sh("python3 hello.py", sandbox_id=box), "hello\n")
        edited = self.ok("sandbox_edit_file", sandbox_id=box, path="hello.py",
                         edits=[{"old_str": "hello", "new_str": "good bye"}])
        self.assertEqual(edited["replacements"], 1)
        self.assertIn("+print('good bye')", edited["diff"])
        self.assertEqual(self.sh("python3 hello.py", sandbox_id=box), "good bye\n")

    def test_exec_reports_exit_code_stdout_and_stderr_apart(self):
        done = self.ok("sandbox_exec", command="echo out; echo err >&2; exit 3")
        self.assertEqual([done[k] for k in ("end", "exit_code", "stdout", "stderr", "truncated")],
                         ["exited", 3, "out\n", "err\n", False])

    def test_exec_takes_argv_without_a_shell(self):
        done = self.ok("sandbox_exec", argv=["printf", "%s|", "a b", "$HOME", "*"])
        self.assertEqual(done["stdout"], "a b|$HOME|*|")

    def test_exec_passes_stdin_env_and_workdir(self):
        done = self.ok("sandbox_exec", command="cat; echo $X; pwd", stdin="given\n", env={"X": "y z"}, workdir="/tmp")
        self.assertEqual(done["stdout"], "given\ny z\n/tmp\n")

    def test_exec_reports_a_signal(self):
        done = self.ok("sandbox_exec", command="kill -SEGV $$")
        self.assertEqual(done["end"], "signaled")
        self.assertIn("SEGV", str(done["signal"]))

    def test_each_exec_starts_in_the_working_folder_and_only_files_persist(self):
        self.sh("cd /tmp; export KEPT=1; echo kept > /workspace/kept")
        self.assertEqual(self.sh("pwd; echo [$KEPT]; cat kept"), "/workspace\n[]\nkept\n")

    def test_eval_gives_the_value_of_the_last_expression(self):
        done = self.ok("sandbox_eval", code="x = 6\nprint('working')\nx * 7", language="python")
        self.assertIn("working\n", done["stdout"])
        self.assertIn("42", str(done["value"]))

    def test_eval_knows_bash_and_javascript(self):
        self.assertIn("5\n", self.ok("sandbox_eval", code="echo $((2+3))", language="bash")["stdout"])
        if self.ok("sandbox_exec", command="command -v node")["exit_code"] == 0:
            done = self.ok("sandbox_eval", code="console.log([1,2].map(x => x * 2).join())", language="javascript")
            self.assertIn("2,4\n", done["stdout"])

    def test_eval_of_broken_code_is_a_result_not_an_error(self):
        done = self.ok("sandbox_eval", code="1/0", language="python")
        self.assertNotEqual(done["exit_code"], 0)
        self.assertIn("ZeroDivisionError", done["stderr"])

    def test_read_numbers_lines_and_takes_a_range(self):
        self.sh("seq 10 19 > numbers")
        whole = self.ok("sandbox_read_file", path="numbers")
        self.assertEqual((whole["total_lines"], whole["size"], whole["truncated"]), (10, 30, False))
        part = self.ok("sandbox_read_file", path="numbers", line_range=[3, 4])
        self.assertEqual((part["first_line"], part["last_line"]), (3, 4))
        last = self.ok("sandbox_read_file", path="numbers", line_range=[9, -1])
        self.assertEqual((last["first_line"], last["last_line"]), (9, 10))

    def test_write_appends_creates_new_and_guards_with_a_hash(self):
        first = self.ok("sandbox_write_file", path="w", content="one\n")
        self.ok("sandbox_write_file", path="w", content="two\n", mode="append")
        self.assertEqual(self.sh("cat w"), "one\ntwo\n")
        self.refused("sandbox_write_file", path="w", content="", mode="create_new")
        self.refused("sandbox_write_file", path="w", content="lost", if_sha256=first["sha256"])
        self.assertEqual(self.sh("cat w"), "one\ntwo\n")

    def test_write_makes_folders_and_executables_and_takes_base64(self):
        self.ok("sandbox_write_file", path="/workspace/a/b/c.sh", content="#!/bin/sh\necho ran\n", executable=True)
        self.assertEqual(self.sh("a/b/c.sh"), "ran\n")
        self.ok("sandbox_write_file", path="bytes", content="AP8KAQ==", encoding="base64")
        self.assertEqual(self.sh("od -An -tx1 bytes").split(), ["00", "ff", "0a", "01"])

    def test_edit_does_all_or_nothing_and_wants_one_match(self):
        self.ok("sandbox_write_file", path="e", content="a\nb\na\n")
        self.refused("sandbox_edit_file", path="e", edits=[{"old_str": "b", "new_str": "B"},
                                                           {"old_str": "nowhere", "new_str": "x"}])
        text = self.refused("sandbox_edit_file", path="e", edits=[{"old_str": "a", "new_str": "A"}])
        self.assertIn("2", text)
        self.assertEqual(self.sh("cat e"), "a\nb\na\n")
        done = self.ok("sandbox_edit_file", path="e", edits=[{"old_str": "a", "new_str": "A", "replace_all": True}])
        self.assertEqual(done["replacements"], 2)
        self.ok("sandbox_edit_file", path="e", insert_line=1, new_str="between\n")
        self.assertEqual(self.sh("cat e"), "A\nbetween\nb\nA\n")

    def test_a_missed_edit_shows_the_nearest_lines(self):
        self.ok("sandbox_write_file", path="m", content="def total(items):\n    return sum(items)\n")
        text = self.refused("sandbox_edit_file", path="m", edits=[{"old_str": "  return sum(item)", "new_str": ""}])
        self.assertIn("return sum(items)", text)

    def test_edit_keeps_mode_and_line_ends(self):
        self.sh("printf 'a\\r\\nb\\r\\n' > crlf; chmod 751 crlf")
        self.ok("sandbox_edit_file", path="crlf", edits=[{"old_str": "b", "new_str": "c"}])
        self.assertEqual(self.sh("stat -c %a crlf; od -An -c crlf | tr -d ' \\n'"), "751\na\\r\\nc\\r\\n")

    def test_list_files_tells_types_and_goes_as_deep_as_asked(self):
        self.sh("mkdir -p t/u && echo 1 > t/f.py && echo 1 > t/u/g.txt && ln -s f.py t/l")
        one = {e["path"].split("/")[-1]: e["type"] for e in self.ok("sandbox_list_files", path="t")["entries"]}
        self.assertEqual(set(one), {"u", "f.py", "l"})
        deep = [e["path"] for e in self.ok("sandbox_list_files", path="t", depth=3)["entries"]]
        self.assertTrue(any(p.endswith("u/g.txt") for p in deep), deep)
        match = self.ok("sandbox_list_files", path="t", depth=3, glob="*.py")["entries"]
        self.assertEqual([e["path"].split("/")[-1] for e in match if e["type"] != "directory"], ["f.py"])
        link = [e for e in self.ok("sandbox_list_files", path="t")["entries"] if e["path"].endswith("l")]
        self.assertEqual(link[0]["target"], "f.py")

    def test_left_out_id_means_one_default_sandbox(self):
        self.sh("echo mine > /tmp/default-sandbox")
        self.assertEqual(self.sh("cat /tmp/default-sandbox"), "mine\n")
        ids = {self.ok("sandbox_exec", command="true")["sandbox_id"] for _ in range(3)}
        self.assertEqual(len(ids), 1)

    def test_a_name_does_as_well_as_an_id(self):
        made = self.ok("sandbox_create", name="worker")
        self.assertEqual(self.ok("sandbox_exec", sandbox_id="worker", command="true")["sandbox_id"],
                         made["sandbox_id"])
        self.assertEqual(self.ok("sandbox_destroy", sandbox_id="worker")["destroyed"], [made["sandbox_id"]])

    def test_create_with_env_and_workdir_holds_for_every_command(self):
        box = self.ok("sandbox_create", env={"GREETING": "hi"}, workdir="/tmp")["sandbox_id"]
        self.assertEqual(self.sh("echo $GREETING; pwd", sandbox_id=box), "hi\n/tmp\n")

    def test_list_shows_what_lives_and_filters_by_label(self):
        box = self.ok("sandbox_create", labels={"task": "list"})["sandbox_id"]
        shown = self.ok("sandbox_list", label={"task": "list"})["sandboxes"]
        self.assertEqual([s["sandbox_id"] for s in shown], [box])
        self.ok("sandbox_destroy", sandbox_id=box)
        self.assertNotIn(box, str(self.ok("sandbox_list", label={"task": "list"})["sandboxes"]))

    def test_destroy_of_a_sandbox_that_is_gone_is_a_success(self):
        box = self.ok("sandbox_create")["sandbox_id"]
        self.assertEqual(self.ok("sandbox_destroy", sandbox_id=box)["destroyed"], [box])
        self.ok("sandbox_destroy", sandbox_id=box)

    def test_destroying_all_needs_confirm(self):
        self.ok("sandbox_create")
        self.refused("sandbox_destroy", sandbox_id="*")
        self.ok("sandbox_destroy", sandbox_id="*", confirm=True)
        self.assertEqual(self.ok("sandbox_list")["sandboxes"], [])

    def test_profiles_list_has_the_default_one(self):
        profiles = {p["name"]: p for p in self.ok("sandbox_list_profiles")["profiles"]}
        self.assertIn("default", profiles)
        self.assertIn("limits", profiles["default"])

    def test_files_of_one_sandbox_are_not_in_another(self):
        one, two = (self.ok("sandbox_create")["sandbox_id"] for _ in range(2))
        self.sh("echo secret > /tmp/only-one", sandbox_id=one)
        done = self.ok("sandbox_exec", sandbox_id=two, command="cat /tmp/only-one")
        self.assertEqual(done["exit_code"], 1)

    def test_ten_sandboxes_at_once_give_ten_right_answers(self):
        def job(i):
            box = self.ok("sandbox_create", name=f"ten-{i}")["sandbox_id"]
            self.ok("sandbox_write_file", sandbox_id=box, path="n", content=str(i))
            answer = self.sh("python3 -c 'n = int(open(\"n\").read()); print(n * n)'", sandbox_id=box)
            return box, int(answer)

        with concurrent.futures.ThreadPoolExecutor(10) as pool:
            done = list(pool.map(job, range(10)))
        self.assertEqual([answer for _, answer in done], [i * i for i in range(10)])
        self.assertEqual(len({box for box, _ in done}), 10)
        for box, _ in done:
            self.ok("sandbox_destroy", sandbox_id=box)

    def test_a_long_call_delays_neither_ping_nor_other_calls(self):
        box = self.ok("sandbox_create")["sandbox_id"]
        self.sh("mkfifo gate", sandbox_id=box)
        long = self.client.submit_tool("sandbox_exec", {"command": "cat gate", "sandbox_id": box})
        self.client.ping()
        self.sh("echo opened > gate", sandbox_id=box)  # would hang if calls were run one after another
        self.assertEqual(unpack(long.result(30 * SLOW)).structured["stdout"], "opened\n")

    def test_a_cancelled_call_ends_its_tree_and_sends_nothing(self):
        box = self.ok("sandbox_create")["sandbox_id"]
        call_ = self.client.submit_tool("sandbox_exec", {
            "command": "(setsid sleep 1000 &) ; touch started; sleep 1000", "sandbox_id": box})
        wait_for("the command has started",
                 lambda: self.ok("sandbox_exec", command="test -e started", sandbox_id=box)["exit_code"] == 0)
        call_.cancel()
        wait_for("no sleep is left",
                 lambda: self.ok("sandbox_exec", command="pgrep -x sleep", sandbox_id=box)["exit_code"] == 1)
        self.client.ping()
        self.assertFalse(call_.answered_within(0.2))

    def test_progress_comes_with_a_message_while_a_command_works(self):
        call_ = self.client.submit_tool(
            "sandbox_exec", {"command": "for i in 1 2 3 4 5 6; do echo step $i; sleep 1; done"}, progress=True)
        call_.result(60 * SLOW)
        seen = [call_.progress.get_nowait() for _ in range(call_.progress.qsize())]
        self.assertGreater(len(seen), 0)
        values = [p["progress"] for p in seen]
        self.assertEqual(values, sorted(set(values)), "progress must grow")
        self.assertTrue(any("step" in p.get("message", "") for p in seen), seen)


class ModernEra(SandboxCase):
    """The same job in revision 2026-07-28."""
    revision = "2026-07-28"

    def test_a_program_runs_and_the_result_is_complete(self):
        raw = self.client.call_tool("sandbox_exec", {"command": "echo modern"})
        self.assertEqual(raw["resultType"], "complete")
        self.assertEqual(raw["structuredContent"]["stdout"], "modern\n")


class Ending(HutchCase):
    """However the server ends: within 300 ms, and nothing stays."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        skip_when_impossible()

    def setUp(self):
        self.before = leaks.snapshot(self.home)  # what an earlier test left is not blamed on this one

    def busy_server(self, boxes=2, **options):
        client = self.server("--results", "structured", **options)
        self.addCleanup(lambda: client.process.poll() is None and client.close("SIGKILL"))
        for i in range(boxes):
            box = call(client, "sandbox_create", name=f"b{i}")
            self.assertFalse(box.is_error, box.text)
            call(client, "sandbox_exec", sandbox_id=f"b{i}", command="(setsid sleep 1000 &); true")
            client.submit_tool("sandbox_exec", {"sandbox_id": f"b{i}", "command": "touch /tmp/on; sleep 1000"})
            wait_for("the long command runs", lambda: call(  # noqa: B023
                client, "sandbox_exec", sandbox_id=f"b{i}", command="test -e /tmp/on").structured["exit_code"] == 0)
        return client

    def assert_ends(self, client, how):
        status, took = client.close(how, timeout=10 * SLOW)
        self.assertEqual(status, 0, client.command)
        self.assertLess(took, 0.3 * SLOW)
        leaks.wait_clean(self.before, self.home)

    def test_end_of_stdin(self):
        self.assert_ends(self.busy_server(), "eof")

    def test_sigterm(self):
        self.assert_ends(self.busy_server(), "SIGTERM")

    def test_sigint(self):
        self.assert_ends(self.busy_server(), "SIGINT")

    def test_sighup(self):
        self.assert_ends(self.busy_server(), "SIGHUP")

    def test_an_idle_server_ends_at_once(self):
        self.assert_ends(self.server(), "eof")

    def test_end_of_stdin_before_anything_was_asked(self):
        done = self.hutch("mcp", timeout=5)
        self.assertEqual((done.returncode, done.stdout), (0, ""))

    @slow
    def test_a_gigabyte_of_unwritten_data_does_not_delay_the_end(self):
        client = self.server("--results", "structured")
        self.addCleanup(lambda: client.process.poll() is None and client.close("SIGKILL"))
        box = call(client, "sandbox_create", memory="2g")
        self.assertFalse(box.is_error, box.text)
        done = call(client, "sandbox_exec", sandbox_id=box.structured["sandbox_id"], _timeout=120,
                    command="head -c 1G /dev/zero > /workspace/big && stat -c %s /workspace/big")
        self.assertEqual(done.structured["stdout"], f"{1 << 30}\n", done.text)
        status, took = client.close("eof", timeout=30)
        self.assertEqual(status, 0)
        self.assertLess(took, 0.3 * SLOW)
        leaks.wait_clean(self.before, self.home, 30)

    def test_after_kill_9_sandboxes_end_by_themselves_and_the_next_server_removes_the_rest(self):
        # Without a pool: what is half made when the server dies waits a minute for its first one.
        client = self.busy_server(env={"HUTCH_SANDBOX__ORPHAN_TTL_S": 1, "HUTCH_POOL__MAX": 0})
        client.close("SIGKILL")
        # By themselves: nobody is there to help.
        wait_for("all processes of the sandboxes have ended",
                 lambda: not leaks.processes().keys() - self.before.keys(), 15)
        with self.server("--results", "structured", env={"HUTCH_POOL__MAX": 0}) as after:
            listed = call(after, "sandbox_list")
            self.assertFalse(listed.is_error, listed.text)
            self.assertEqual(listed.structured["sandboxes"], [])
            wait_for("cgroups of the dead server's sandboxes are removed",
                     lambda: not [c for c in leaks.cgroups() if c not in self.before and re.search(ID, c)])
            wait_for("the dead server's folder is removed",
                     lambda: len(glob.glob(os.path.join(self.home, "servers", "*"))) <= 1)
        leaks.wait_clean(self.before, self.home)

    def test_two_servers_share_a_data_folder_and_end_apart(self):
        one, two = self.busy_server(1), self.busy_server(1)
        one.close("SIGTERM")
        done = call(two, "sandbox_exec", sandbox_id="b0", command="echo alive")
        self.assertEqual(done.structured["stdout"], "alive\n")
        self.assert_ends(two, "eof")

    def test_a_host_that_stopped_listening_ends_the_server(self):
        read_end, write_end = os.pipe()
        process = subprocess.Popen([HUTCH, "mcp"], env=self.env(), stdin=subprocess.PIPE, stdout=write_end,
                                   stderr=subprocess.DEVNULL)
        os.close(write_end)
        os.close(read_end)
        with process:
            process.stdin.write(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
            process.stdin.flush()
            process.wait(5 * SLOW)  # stdin is still open: only the broken pipe tells it
        leaks.wait_clean(self.before, self.home)


class Lifetimes(SandboxCase):
    def test_ttl_ends_a_sandbox(self):
        box = self.ok("sandbox_create", ttl_s=1)["sandbox_id"]
        wait_for("the sandbox is gone", lambda: box not in str(self.ok("sandbox_list")["sandboxes"]))
        self.assertIn(box, self.refused("sandbox_exec", sandbox_id=box, command="true"))

    def test_idle_timeout_ends_an_unused_sandbox_but_not_a_working_one(self):
        idle = self.ok("sandbox_create", idle_timeout_s=1)["sandbox_id"]
        busy = self.ok("sandbox_create", idle_timeout_s=1)["sandbox_id"]
        work = self.client.submit_tool("sandbox_exec", {"sandbox_id": busy, "command": "sleep 4; echo done"})
        wait_for("the idle one is gone", lambda: idle not in str(self.ok("sandbox_list")["sandboxes"]))
        self.assertEqual(unpack(work.result(30 * SLOW)).structured["stdout"], "done\n")

    def test_a_dead_agent_is_an_error_that_says_so_and_the_server_goes_on(self):
        box = self.ok("sandbox_create")["sandbox_id"]
        if os.geteuid() != 0:
            self.skipTest("needs root to kill another user's process")
        pid = wait_for("the sandbox's first process is found", lambda: first_process(self.client.pid, box))
        os.kill(pid, signal.SIGKILL)
        text = self.refused("sandbox_exec", sandbox_id=box, command="true")
        self.assertIn(box, text)
        self.assertEqual(self.sh("echo on"), "on\n")


def first_process(server, box):
    """Host pid of PID 1 of a sandbox, by its cgroup's name."""
    for status in glob.glob("/proc/[0-9]*/status"):
        try:
            pid = int(status.split("/")[2])
            if box in open(f"/proc/{pid}/cgroup").read() and re.search(r"^NSpid:\s+\d+\s+1$", open(status).read(), re.M):
                return pid
        except OSError:
            continue
    return None


if __name__ == "__main__":
    unittest.main()
