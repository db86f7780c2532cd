"""Commands that run as another user than root inside, as a profile says."""
import os
import shutil
import signal
import subprocess
import unittest

from mcp_client import Client
from sandbox_case import HUTCH, SLOW, HutchCase, SandboxCase, call, skip_when_impossible, wait_for

CONFIG = """
default_profile: user
profiles:
  user: {user: user}
  mixed: {user: "1000:users", workdir: /srv/work, env: {HOME: /tmp}}
  number: {user: "4321"}
  rooted: {user: root}
  nobody-knows: {user: mallory}
"""
WHO = "id -u; id -g; id -G; echo $HOME $USER $LOGNAME; pwd"


class UserCase(SandboxCase):
    @classmethod
    def setUpClass(cls):
        if os.geteuid() != 0:
            raise unittest.SkipTest("the server needs ids to give")
        cls.config = os.path.join(cls.data_folder(), "hutch.yaml")
        with open(cls.config, "w") as file:
            file.write(CONFIG)
        cls.server_args = ("--config", cls.config)
        super().setUpClass()


class Users(UserCase):
    def test_who_commands_are_and_what_they_find(self):
        self.assertEqual(self.sh(WHO), "1000\n1000\n1000\n/home/user user user\n/workspace\n")
        for profile, expected in (("mixed", "1000\n100\n100\n/tmp user user\n/srv/work\n"),
                                  ("number", "4321\n0\n0\n/ 4321 4321\n/workspace\n"),
                                  ("rooted", "0\n0\n0\n/root root root\n/workspace\n")):
            box = self.ok("sandbox_create", profile=profile)
            self.assertEqual(self.sh(WHO, sandbox_id=box["sandbox_id"]), expected)
            self.assertEqual(self.ok("sandbox_info", sandbox_id=box["sandbox_id"])["user"], box["user"])
            self.ok("sandbox_destroy", sandbox_id=box["sandbox_id"])

    def test_results_name_the_user_and_where_it_can_write(self):
        box = self.ok("sandbox_info")
        self.assertEqual((box["user"], box["writable_paths"][0]), ("user", "/workspace"))
        for path in box["writable_paths"]:
            self.sh(f"touch {path}/mine && rm {path}/mine")
        for path in ("/etc", "/usr", "/var/log/hutch", "/root"):
            self.assertNotEqual(self.ok("sandbox_exec", command=f"touch {path}/mine")["exit_code"], 0, path)

    def test_the_environment_of_the_call_wins(self):
        self.assertEqual(self.sh("echo $HOME $USER", env={"HOME": "/x", "USER": "me"}), "/x me\n")
        box = self.ok("sandbox_create", env={"HOME": "/y"})["sandbox_id"]
        self.assertEqual(self.sh("echo $HOME $USER", sandbox_id=box), "/y user\n")
        self.ok("sandbox_destroy", sandbox_id=box)

    def test_a_user_that_does_not_exist_is_a_clear_error(self):
        text = self.refused("sandbox_create", profile="nobody-knows")
        self.assertIn("'mallory' in /etc/passwd", text)

    def test_a_folder_of_the_callers_choice_is_the_users(self):
        box = self.ok("sandbox_create", workdir="/data/new")
        self.assertEqual(self.sh("touch x; stat -c '%u %n' . x", sandbox_id=box["sandbox_id"]), "1000 .\n1000 x\n")
        self.ok("sandbox_destroy", sandbox_id=box["sandbox_id"])
        box = self.ok("sandbox_create", workdir="/etc")["sandbox_id"]
        self.assertEqual(self.sh("stat -c %u .", sandbox_id=box), "0\n")
        self.ok("sandbox_destroy", sandbox_id=box)

    def test_written_files_are_the_users_and_existing_ones_stay_whose_they_are(self):
        self.ok("sandbox_write_file", path="deep/down/new.txt", content="one\n")
        self.sh("echo two >>deep/down/new.txt; mkdir deep/more")
        self.assertEqual(self.sh("stat -c %u:%g deep deep/down deep/down/new.txt"), "1000:1000\n" * 3)
        self.ok("sandbox_edit_file", path="deep/down/new.txt", edits=[{"old_str": "two", "new_str": "three"}])
        self.assertEqual(self.sh("cat deep/down/new.txt; stat -c %u deep/down/new.txt"), "one\nthree\n1000\n")
        self.ok("sandbox_write_file", path="/etc/hosts", content="127.0.0.1 localhost\n")
        self.assertEqual(self.sh("stat -c %u /etc/hosts"), "0\n")

    def test_sessions_code_background_and_terminals_are_the_users_too(self):
        self.assertEqual(self.ok("sandbox_eval", code="import os; os.getuid(), os.environ['HOME']", language="python",
                                 session="s")["value"], "(1000, '/home/user')")
        self.assertEqual(self.ok("sandbox_eval", code="import os; os.getuid()", language="python")["value"], "1000")
        number = self.ok("sandbox_exec", command="id -u; cat", background=True)["process_id"]
        self.ok("sandbox_process", action="write", process_id=number, input="typed\n", eof=True)
        self.ok("sandbox_process", action="wait", process_id=number, wait_s=20 * SLOW)
        self.assertEqual(self.sh(f"cat /var/log/hutch/{number}.log; stat -c %u /var/log/hutch/{number}.log"), "1000\ntyped\n0\n")
        screen = self.ok("sandbox_exec", command="id -u; echo again >$(tty)", tty=True)
        self.assertEqual(screen["stdout"].split(), ["1000", "again"])

    def test_a_person_at_the_command_line_is_that_user(self):
        box = self.ok("sandbox_info")["sandbox_id"]
        self.assertEqual(self.hutch("exec", box, "id", "-u").stdout, "1000\n")
        done = self.hutch("run", "--config", self.config, "--", "sh", "-c", "id -u; touch mine; stat -c %u mine")
        self.assertEqual((done.stdout, done.returncode), ("1000\n1000\n", 0), done.stderr)

    def test_a_whole_tree_ends_at_its_deadline(self):
        done = self.ok("sandbox_exec", command="setsid sh -c 'trap \"\" TERM; while :; do sleep 1; done' & exec sleep 1000",
                       timeout_s=1)
        self.assertEqual(done["end"], "timed_out")
        self.assertEqual(self.sh("pgrep -x sleep | wc -l"), "0\n")

    def test_it_has_no_power_over_what_watches_it(self):
        done = self.ok("sandbox_exec", command="""
            for pid in 1 $PPID $(pgrep hutch-spare); do
                kill -STOP $pid 2>/dev/null && echo stopped $pid
                head -c1 /proc/$pid/mem 2>/dev/null && echo read $pid
                readlink /proc/$pid/exe && echo saw $pid
                ls /proc/$pid/fd/ 2>/dev/null && echo listed $pid
            done
            grep -h '^Cap[IPEA]' /proc/self/status | sort -u -k2; exit 3""")
        self.assertEqual((done["end"], done["exit_code"]), ("exited", 3))
        self.assertEqual(done["stdout"].split()[1:], ["0000000000000000"], done["stdout"])
        self.assertIn("Operation not permitted", self.ok("sandbox_exec", command="chroot / true")["stderr"])


class Warm(UserCase):
    server_settings = {"HUTCH_POOL__INTERPRETERS": "python"}

    def test_what_was_made_ahead_is_the_users(self):
        self.ok("sandbox_list")  # the first call begins the pool
        def warm():
            return next(p["warm"] for p in self.ok("sandbox_list_profiles")["profiles"] if p["name"] == "user")
        try:
            wait_for("a warm one", lambda: warm()["ready"], timeout=60)
        except AssertionError as e:
            raise AssertionError(f"{e}: {warm()}") from None
        box = self.ok("sandbox_create")
        self.assertTrue(box["warm"])
        self.assertEqual(self.sh("id -u; stat -c %u /workspace; pgrep -u user -c python3", sandbox_id=box["sandbox_id"]),
                         "1000\n1000\n1\n")
        self.assertEqual(self.ok("sandbox_eval", code="import os; os.getuid()", language="python", session="s",
                                 sandbox_id=box["sandbox_id"])["value"], "1000")
        self.ok("sandbox_destroy", sandbox_id=box["sandbox_id"])


class Adopted(HutchCase):
    def test_the_next_server_goes_on_as_that_user(self):
        if os.geteuid() != 0:
            self.skipTest("the server needs ids to give")
        skip_when_impossible()
        config = os.path.join(self.data_folder(), "hutch.yaml")
        with open(config, "w") as file:
            file.write(CONFIG)
        first = self.server("--results", "structured", "--config", config, env={"HUTCH_POOL__MAX": 0})
        call(first, "sandbox_create", name="box")
        first.kill(signal.SIGKILL)
        first.wait()
        first.close()
        with self.server("--results", "structured", env={"HUTCH_POOL__MAX": 0}) as second:
            self.assertEqual(call(second, "sandbox_info", sandbox_id="box").structured["user"], "user")
            call(second, "sandbox_write_file", sandbox_id="box", path="new", content="")
            done = call(second, "sandbox_exec", sandbox_id="box", command="id -u; stat -c %u new; echo $HOME").structured
            self.assertEqual(done["stdout"], "1000\n1000\n/home/user\n")
            call(second, "sandbox_destroy", sandbox_id="box")


class NotRoot(HutchCase):
    def test_an_ordinary_users_server_says_that_it_has_no_other_user(self):
        if os.geteuid() != 0 or not shutil.which("setpriv"):
            self.skipTest("changes the user")
        config = os.path.join(self.data_folder(), "hutch.yaml")
        with open(config, "w") as file:
            file.write(CONFIG)
        for path in (os.path.dirname(config), self.home):
            os.chmod(path, 0o755)
        os.chown(self.home, 65533, 65533)
        nobody = ["setpriv", "--reuid", "65533", "--regid", "65533", "--clear-groups"]
        if subprocess.run([*nobody, HUTCH, "version"], capture_output=True).returncode != 0:
            self.skipTest("the program cannot be started as somebody else")
        with Client([*nobody, HUTCH, "mcp", "--config", config], env=self.env(HUTCH_POOL__MAX=0)) as server:
            done = call(server, "sandbox_create")
            self.assertTrue(done.is_error)
            self.assertIn("cannot run as 'user': hutch does not run as root", done.text)


class Refused(HutchCase):
    def test_what_can_be_no_user_stops_the_start(self):
        for value in ("a:b:c", ":group", "user:", "two words"):
            done = self.hutch("config", env=self.env(HUTCH_PROFILES__DEFAULT__USER=value))
            self.assertNotEqual(done.returncode, 0, value)
            self.assertIn("profiles.default.user", done.stderr)


if __name__ == "__main__":
    unittest.main()
