"""The command line that looks after sandboxes: `hutch ls info rm stats`, by the sockets of running servers."""
import glob
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import unittest

from sandbox_case import HUTCH, SLOW, HutchCase, call, skip_when_impossible, slow, wait_for


def create(client, **arguments):
    return call(client, "sandbox_create", **arguments).structured["sandbox_id"]


class ControlCase(HutchCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        skip_when_impossible()

    def tearDown(self):
        # What a killed server leaves alive would be the next test's.
        self.addCleanup(lambda: self.run_ok("gc", "--all"))

    def start(self, **options):
        client = self.server("--results", "structured", **options)
        self.addCleanup(lambda: client.process.poll() is None and client.close())
        return client

    def server_id(self, client):
        status = client.request("resources/read", {"uri": "hutch://status"})["contents"][0]["text"]
        return json.loads(status)["server"]["id"]

    def run_ok(self, *args, **options):
        done = self.hutch(*args, **options)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def run_json(self, *args):
        return json.loads(self.run_ok(*args, "--json"))

    def run_failing(self, *args):
        done = self.hutch(*args)
        self.assertEqual(done.returncode, 125, done.stdout + done.stderr)
        self.assertEqual(done.stdout, "")
        return done.stderr

    def listed(self, *args):
        return {s["id"]: s for s in self.run_json("ls", *args)}


class WithoutServers(ControlCase):
    def test_lists_are_empty_and_the_host_is_still_described(self):
        self.assertIn("no sandboxes", self.run_ok("ls"))
        self.assertEqual(self.run_json("ls", "--all"), [])
        self.assertIn("no server is running", self.run_ok("stats"))
        stats = self.run_json("stats")
        self.assertEqual(stats["servers"], [])
        self.assertGreater(stats["host"]["memory_available_bytes"], 0)
        self.assertIn("no running server has a sandbox 'x'", self.run_failing("info", "x"))
        self.assertIn("no running server has a sandbox 'x'", self.run_failing("rm", "x"))
        self.assertEqual(self.run_json("rm", "-f", "x"), {"destroyed": []})
        self.assertEqual(self.run_ok("rm", "--all"), "there is no sandbox\n")
        self.assertIn("no server 'none' answers", self.run_failing("ls", "--server", "none"))
        self.assertEqual(os.listdir(self.home), [])

    def test_what_is_not_understood_is_an_error_with_the_usage(self):
        self.assertIn("hutch rm --all", self.run_failing("rm"))
        self.assertIn("--all goes with no name", self.run_failing("rm", "--all", "x"))
        self.assertIn("hutch ls", self.run_failing("info"))
        self.assertEqual(self.hutch("ls", "--everything").returncode, 2)


class OneServer(ControlCase):
    def setUp(self):
        self.client = self.start()
        self.box = create(self.client, name="box", memory="100m")

    def test_ls_shows_each_sandbox_in_columns(self):
        other = create(self.client)
        lines = self.run_ok("ls").splitlines()
        self.assertEqual(lines[0].split(), ["ID", "NAME", "STATE", "AGE", "IDLE", "MEMORY", "PROFILE", "SERVER"])
        self.assertEqual({line.split()[0] for line in lines[1:]}, {self.box, other})
        row = next(line for line in lines if line.startswith(self.box))
        for column, text in (("NAME", "box"), ("STATE", "running"), ("PROFILE", "default"), ("SERVER", self.server_id(self.client))):
            self.assertTrue(row[lines[0].index(column):].startswith(text), (column, row))
        self.assertIn("of 100.0 MB", row)
        found = self.listed()[self.box]
        self.assertEqual((found["name"], found["server"], found["memory_limit_bytes"]), ("box", self.server_id(self.client), 100 << 20))

    def test_ls_all_shows_the_ended_ones_and_why(self):
        call(self.client, "sandbox_destroy", sandbox_id=self.box)
        self.assertEqual(self.listed(), {})
        self.assertEqual((self.listed("--all")[self.box]["state"], self.listed("--all")[self.box]["cause"]), ("ended", "it was destroyed"))
        self.assertRegex(self.run_ok("ls", "--all"), rf"{self.box} +box +ended .* it was destroyed \(\d+ s ago\)")

    def test_a_sandbox_is_in_use_while_a_command_runs_also_in_the_background(self):
        self.assertFalse(self.listed()[self.box]["in_use"])
        self.assertNotIn("in use", self.run_ok("ls"))
        running = self.client.submit_tool("sandbox_exec", {"sandbox_id": "box", "command": "touch on; sleep 1000"})
        wait_for("the command", lambda: call(self.client, "sandbox_exec", sandbox_id="box", command="test -e on").structured["exit_code"] == 0)
        self.assertTrue(self.listed()[self.box]["in_use"])
        self.assertIn("in use", self.run_ok("ls"))
        running.cancel()
        wait_for("its end", lambda: not self.listed()[self.box]["in_use"])
        number = call(self.client, "sandbox_exec", sandbox_id="box", command="sleep 1000", background=True).structured["process_id"]
        self.assertTrue(self.listed()[self.box]["in_use"])
        call(self.client, "sandbox_process", sandbox_id="box", action="signal", process_id=number, signal="KILL")
        wait_for("its end", lambda: not self.listed()[self.box]["in_use"])

    def test_info_describes_one_by_id_or_name_live_or_ended(self):
        for word in ("box", self.box):
            text = self.run_ok("info", word)
            self.assertIn(f"{self.box} (box) · running", text)
            self.assertIn("limits: memory 100m", text)
            self.assertEqual(self.run_json("info", word)["sandbox_id"], self.box)
        call(self.client, "sandbox_destroy", sandbox_id=self.box)
        self.assertIn("ended because it was destroyed", self.run_ok("info", "box"))
        new = create(self.client, name="box")
        self.assertEqual(self.run_json("info", "box")["sandbox_id"], new)
        self.assertEqual(self.run_json("info", self.box)["state"], "ended")

    def test_rm_ends_by_id_and_name_and_the_server_tells_its_caller_why(self):
        other, third = create(self.client), create(self.client, name="third")
        self.assertEqual(self.run_ok("rm", other, "third"), "".join(f"removed {i}{n}\n" for i, n in sorted([(other, ""), (third, " (third)")])))
        self.assertEqual(set(self.listed()), {self.box})
        told = call(self.client, "sandbox_exec", sandbox_id="third", command="true")
        self.assertIn("it was destroyed", told.text)

    def test_rm_removes_nothing_when_a_name_is_unknown_unless_forced(self):
        error = self.run_failing("rm", "box", "bax")
        self.assertIn("'bax'", error)
        self.assertIn(f"{self.box} (box)", error)
        self.assertEqual(set(self.listed()), {self.box})
        self.assertEqual(self.run_json("rm", "-f", "box", "bax"), {"destroyed": [self.box]})
        self.assertIn("any more", self.run_failing("rm", "box"))

    def test_rm_all_takes_everything(self):
        made = {self.box, create(self.client), create(self.client)}
        self.assertEqual(set(self.run_json("rm", "--all")["destroyed"]), made)
        self.assertEqual(self.listed(), {})

    def test_rm_of_a_sandbox_with_a_busy_command_returns_soon(self):
        command = "trap '' TERM; (setsid sleep 1000 &); touch on; while :; do :; done"
        running = self.client.submit_tool("sandbox_exec", {"sandbox_id": "box", "command": command})
        wait_for("the command", lambda: call(self.client, "sandbox_exec", sandbox_id="box", command="test -e on").structured["exit_code"] == 0)
        start = time.monotonic()
        self.run_ok("rm", "box")
        self.assertLess(time.monotonic() - start, 5 * SLOW)
        result = running.result()
        self.assertTrue(result["isError"], result)
        self.assertIn("it was destroyed", result["content"][0]["text"])

    def test_stats_shows_host_server_pool_and_what_each_sandbox_uses(self):
        running = self.client.submit_tool("sandbox_exec", {"sandbox_id": "box", "command": "while :; do :; done"})
        wait_for("processor time", lambda: self.run_json("stats")["servers"][0]["sandboxes"][0]["cpu_s"] > 0.2)
        text = self.run_ok("stats")
        self.assertRegex(text, r"(?m)^host: .* memory free, load .* on \d+ processors, .* disk free, cgroup v\d$")
        self.assertRegex(text, r"(?m)^pressure: ")
        self.assertIn(f"server {self.server_id(self.client)}: process {self.client.pid}, up ", text)
        self.assertIn("1 of 64 sandboxes", text)
        self.assertIn("pool default: ready ", text)
        row = next(line for line in text.splitlines() if self.box in line)
        self.assertGreater(int(row.split()[3]), 1, row)  # per cent of a processor
        self.assertIn("of 100.0 MB", row)
        running.cancel()
        stats = self.run_json("stats")
        self.assertEqual([s["server"]["pid"] for s in stats["servers"]], [self.client.pid])
        self.assertEqual(stats["servers"][0]["totals"]["sandboxes"], 1)

    def test_stats_watch_goes_on_until_it_is_interrupted(self):
        with subprocess.Popen([HUTCH, "stats", "--watch", "--json"], stdout=subprocess.PIPE, env=self.env()) as watching:
            seen = [json.loads(watching.stdout.readline()) for _ in range(2)]
            watching.send_signal(signal.SIGINT)
            self.assertEqual(watching.wait(10 * SLOW), -signal.SIGINT)
        up = [look["servers"][0]["server"]["uptime_s"] for look in seen]
        self.assertGreaterEqual(up[1] - up[0], 1)

    def test_what_a_sandbox_is_called_cannot_draw_on_the_terminal(self):
        folder = tempfile.mkdtemp(prefix="hutch-\x1b[31m")
        self.addCleanup(os.rmdir, folder)
        with self.server("--results", "structured", cwd=folder) as client:
            create(client)
            for verb in ("ls", "stats"):
                self.assertNotIn("\x1b", self.run_ok(verb))


class TwoServers(ControlCase):
    def setUp(self):
        self.one, self.two = self.start(), self.start()
        self.boxes = [create(self.one, name="twin"), create(self.two, name="twin")]
        self.ids = [self.server_id(self.one), self.server_id(self.two)]

    def test_all_sandboxes_are_listed_with_their_servers(self):
        self.assertEqual({i: s["server"] for i, s in self.listed().items()}, dict(zip(self.boxes, self.ids)))
        self.assertEqual(set(self.listed("--server", self.ids[1])), {self.boxes[1]})
        self.assertEqual(len(self.run_json("stats")["servers"]), 2)
        self.assertEqual([s["server"]["id"] for s in self.run_json("stats", "--server", self.ids[0])["servers"]], [self.ids[0]])

    def test_a_name_that_both_have_is_an_error_that_names_both(self):
        for verb in ("info", "rm"):
            error = self.run_failing(verb, "twin")
            for box, server in zip(self.boxes, self.ids):
                self.assertIn(f"{box} (--server {server})", error)
        self.assertEqual(self.run_json("info", "twin", "--server", self.ids[1])["sandbox_id"], self.boxes[1])
        self.assertEqual(self.run_json("rm", "twin", "--server", self.ids[0]), {"destroyed": [self.boxes[0]]})
        self.assertEqual(set(self.listed()), {self.boxes[1]})
        self.assertEqual(self.run_json("info", "twin")["sandbox_id"], self.boxes[1])  # now it has one meaning

    def test_rm_goes_to_the_server_that_has_it_and_all_to_every_server(self):
        self.run_ok("rm", self.boxes[1])
        self.assertEqual(set(self.listed()), {self.boxes[0]})
        more = create(self.two)
        self.assertEqual(set(self.run_json("rm", "--all")["destroyed"]), {self.boxes[0], more})

    def test_a_server_that_was_killed_is_skipped(self):
        self.two.kill(signal.SIGKILL)
        self.two.wait()
        self.assertTrue(os.path.exists(f"{self.home}/servers/{self.ids[1]}/control"))
        states = {box: one["state"] for box, one in self.listed().items()}
        self.assertEqual(states, {self.boxes[0]: "running", self.boxes[1]: "left"}, "the next server takes it up")
        self.assertEqual(self.run_json("info", "twin")["sandbox_id"], self.boxes[0])
        self.assertEqual(len(self.run_json("stats")["servers"]), 1)
        self.assertIn("no server", self.run_failing("ls", "--server", self.ids[1]))
        self.two.close()
        with self.server() as third:  # it clears up, so that nothing is left of this test
            call(third, "sandbox_list")

    @slow
    def test_a_server_that_hangs_is_named_and_the_others_still_answer(self):
        self.two.kill(signal.SIGSTOP)
        self.addCleanup(self.two.kill, signal.SIGCONT)
        done = self.hutch("ls", "--json")
        self.assertEqual(set(s["id"] for s in json.loads(done.stdout)), {self.boxes[0]})
        self.assertIn("does not answer", done.stderr)
        self.assertIn(self.ids[1], done.stderr)
        self.two.kill(signal.SIGCONT)


class Socket(ControlCase):
    def setUp(self):
        self.client = self.start()
        self.box = create(self.client, name="box")
        self.path = glob.glob(f"{self.home}/servers/*/control")[0]

    def connect(self):
        connection = socket.socket(socket.AF_UNIX)
        self.addCleanup(connection.close)
        connection.settimeout(20 * SLOW)
        connection.connect(self.path)
        return connection

    def ask(self, connection, method, params=None, request_id=1):
        message = {"jsonrpc": "2.0", "id": request_id, "method": method}
        connection.sendall(json.dumps(message if params is None else {**message, "params": params}).encode() + b"\n")
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
        return json.loads(answer)

    def test_a_client_that_says_nothing_does_not_block_others(self):
        silent = [self.connect() for _ in range(50)]
        silent[0].sendall(b'{"jsonrpc": "2.0", "id": 1, "meth')
        self.assertEqual(set(self.listed()), {self.box})
        self.assertEqual(call(self.client, "sandbox_exec", sandbox_id="box", command="echo on").structured["stdout"], "on\n")

    def test_a_client_that_goes_before_its_answer_does_no_harm(self):
        for _ in range(20):
            connection = self.connect()
            connection.sendall(b'{"jsonrpc": "2.0", "id": 1, "method": "status"}\n')
            connection.close()
        self.assertEqual(set(self.listed()), {self.box})

    def test_many_requests_at_once_are_all_answered(self):
        waiting = [self.connect() for _ in range(60)]
        for connection in waiting:
            connection.sendall(b'{"jsonrpc": "2.0", "id": 1, "method": "status"}\n')
        for connection in waiting:
            with connection.makefile() as lines:
                self.assertEqual(json.loads(lines.readline())["result"]["sandboxes"][0]["id"], self.box)

    def test_wrong_requests_are_errors(self):
        self.assertEqual(self.ask(self.connect(), "no/such")["error"]["code"], -32601)
        for method, params in (("sandbox/destroy", {}), ("sandbox/destroy", {"sandboxes": 5}), ("sandbox/info", {"sandbox_id": ""}),
                               ("sandbox/info", None), ("status", {"disk": []}), ("sandbox/destroy", None), ("status", [])):
            self.assertIn("error", self.ask(self.connect(), method, params), (method, params))
        self.assertEqual(self.ask(self.connect(), "sandbox/info", {"sandbox_id": "none"})["error"]["data"]["code"], "not_found")
        self.assertEqual(set(self.listed()), {self.box})

    def test_the_end_of_the_server_is_not_held_up_by_answers_under_way(self):
        for _ in range(40):
            self.connect().sendall(b'{"jsonrpc": "2.0", "id": 1, "method": "status"}\n')
        status, took = self.client.close("SIGTERM")
        self.assertEqual(status, 0)
        self.assertLess(took, 2 * SLOW)

    def test_only_its_owner_may_open_the_socket(self):
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)

    @unittest.skipUnless(os.geteuid() == 0, "only root can be another user")
    def test_another_user_is_refused_even_where_the_modes_let_them_through(self):
        self.assertEqual(self.as_nobody(), "refused PermissionError")
        folders = [os.path.dirname(self.path)]
        while folders[-1] != "/tmp" and folders[-1] != "/":
            folders.append(os.path.dirname(folders[-1]))
        modes = {f: stat.S_IMODE(os.stat(f).st_mode) for f in [self.path, *folders[:-1]]}
        try:
            for path in folders[:-1]:
                os.chmod(path, 0o755)
            self.assertEqual(self.as_nobody(), "refused PermissionError")
            os.chmod(self.path, 0o777)
            self.assertEqual(self.as_nobody(), "connected, answer b''")
        finally:
            for path, mode in modes.items():
                os.chmod(path, mode)

    def as_nobody(self):
        """What another user gets, who asks to remove everything."""
        code = """
import contextlib, os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
connection = socket.socket(socket.AF_UNIX)
connection.settimeout(20)
try:
    connection.connect(sys.argv[1])
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(b'{"jsonrpc": "2.0", "id": 1, "method": "sandbox/list"}\\n')
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        answer = connection.recv(1000)
    print("connected, answer", answer)
except OSError as error:
    print("refused", type(error).__name__)
"""
        done = subprocess.run([sys.executable, "-c", code, self.path], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.strip()


if __name__ == "__main__":
    unittest.main()
