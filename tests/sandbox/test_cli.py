"""The command line, as a person meets it."""
import json
import os
import pathlib
import re
import unittest

from sandbox_case import HutchCase, leaks, skip_when_impossible


class Run(HutchCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        skip_when_impossible()

    def test_run_prints_what_the_command_prints_and_exits_zero(self):
        done = self.hutch("run", "--", "python3", "-c", "print(2+2)")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "4\n", ""))

    def test_run_passes_the_exit_code_on(self):
        self.assertEqual(self.hutch("run", "--", "sh", "-c", "exit 7").returncode, 7)

    def test_run_passes_stdout_and_stderr_apart(self):
        done = self.hutch("run", "--", "sh", "-c", "echo out; echo err >&2")
        self.assertEqual((done.stdout, done.stderr), ("out\n", "err\n"))

    def test_run_passes_stdin_through_byte_for_byte(self):
        for size in (0, 1, 65_536, 65_537, 256_000, 3_000_000):
            with self.subTest(size):
                data = (bytes(range(256)) * (size // 256 + 1))[:size]
                done = self.hutch("run", "--", "cat", input=data, text=False)
                self.assertEqual((done.returncode, len(done.stdout)), (0, size))
                self.assertTrue(done.stdout == data, "other bytes came back")

    def test_run_prints_all_of_a_long_output(self):
        done = self.hutch("run", "--", "seq", "1", "200000")
        self.assertEqual(done.stdout.splitlines()[-1], "200000")
        self.assertEqual(len(done.stdout.splitlines()), 200_000)

    def test_run_of_a_missing_command_is_127_and_named(self):
        done = self.hutch("run", "--", "no-such-program-at-all")
        self.assertEqual(done.returncode, 127)
        self.assertIn("no-such-program-at-all", done.stderr)

    def test_run_of_a_killed_command_is_128_and_the_signal(self):
        self.assertEqual(self.hutch("run", "--", "sh", "-c", "kill -KILL $$").returncode, 137)

    def test_run_of_an_unknown_profile_is_refused_by_name(self):
        done = self.hutch("run", "--profile", "nope", "--", "true")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("nope", done.stderr)

    def test_run_leaves_nothing(self):
        self.hutch("run", "--", "sh", "-c", "(setsid sleep 1000 &); true")
        leaks.wait_clean(self.before, self.home)

    def test_run_without_a_command_explains_itself(self):
        done = self.hutch("run")
        self.assertIn(done.returncode, (2, 125))  # 125: no exit code that a command of the user's would give
        self.assertIn("hutch run", done.stdout + done.stderr)


class Verbs(HutchCase):
    def test_hutch_alone_prints_a_help_of_one_screen(self):
        done = self.hutch()
        self.assertEqual(done.returncode, 0)
        for verb in ("mcp", "run", "doctor", "config", "version"):
            self.assertIn(verb, done.stdout)
        self.assertLessEqual(len(done.stdout.splitlines()), 40)

    def test_help_options_do_the_same(self):
        for way in ("-h", "--help", "help"):
            done = self.hutch(way)
            self.assertEqual((done.returncode, "doctor" in done.stdout), (0, True), way)

    def test_an_unknown_verb_is_exit_2_with_help_and_the_nearest_verb(self):
        done = self.hutch("docter")
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertIn("doctor", done.stderr)

    def test_an_unknown_option_is_exit_2_and_named(self):
        done = self.hutch("mcp", "--resluts", "text")
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertIn("--resluts", done.stderr)

    def test_version_is_the_one_of_the_build(self):
        done = self.hutch("version")
        meson = (pathlib.Path(__file__).parents[2] / "meson.build").read_text()
        self.assertEqual(done.returncode, 0)
        self.assertIn(re.search(r"version: '([^']+)'", meson)[1], done.stdout)

    def test_doctor_says_the_truth_about_this_host(self):
        said = self.hutch("doctor")
        ran = self.hutch("run", "--", "true")
        self.assertEqual(said.returncode == 0, ran.returncode == 0, said.stdout + ran.stderr)
        self.assertRegex(said.stdout, "crun|runc")
        self.assertIn("cgroup", said.stdout)

    def test_doctor_speaks_json_for_programs(self):
        done = self.hutch("doctor", "--json")
        json.loads(done.stdout)

    def test_errors_go_to_stderr_so_that_stdout_stays_clean(self):
        done = self.hutch("mcp", "--config", "/nowhere.yaml")
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(done.stdout, "")
        self.assertIn("/nowhere.yaml", done.stderr)


class Configuration(HutchCase):
    def write(self, text):
        path = os.path.join(self.home, "c.yaml")
        with open(path, "w") as f:
            f.write(text)
        return path

    def refused(self, text, *words, verb="config"):
        path = self.write(text)
        done = self.hutch(verb, "--config", path)
        self.assertNotEqual(done.returncode, 0, done.stdout)
        for word in words:
            self.assertIn(word, done.stderr)
        return done.stderr

    def test_config_shows_values_and_where_they_come_from(self):
        path = self.write("sandbox:\n  memory: 300m\n")
        done = self.hutch("config", "--config", path, env=self.env(HUTCH_SANDBOX__PIDS="99"))
        self.assertEqual(done.returncode, 0, done.stderr)
        for word in ("memory", "c.yaml", "HUTCH_SANDBOX__PIDS", "99"):
            self.assertIn(word, done.stdout)

    def test_an_unknown_key_is_refused_with_place_and_the_nearest_key(self):
        self.refused("sandbox:\n  memroy: 1g\n", "c.yaml:2:3", "memroy", "memory")

    def test_a_repeated_key_is_refused_with_its_place(self):
        self.refused("sandbox:\n  pids: 5\n  pids: 6\n", "c.yaml:3:3", "pids")

    def test_a_wrong_type_is_refused_with_its_place(self):
        self.refused("sandbox:\n  pids: many\n", "c.yaml:2:", "pids")
        self.refused("sandbox: 5\n", "c.yaml:1:", "sandbox")

    def test_a_value_out_of_range_is_refused_with_its_place(self):
        self.refused("sandbox:\n  exec_timeout_s: -5\n", "c.yaml:2:", "exec_timeout_s")

    def test_broken_yaml_is_refused_with_its_place(self):
        self.assertRegex(self.refused("sandbox:\n  - [a\n"), r"c\.yaml:\d+:\d+")

    def test_a_bad_environment_variable_is_named(self):
        done = self.hutch("config", env=self.env(HUTCH_SANDBOX__PIDS="many"))
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("HUTCH_SANDBOX__PIDS", done.stderr)

    def test_an_unknown_environment_variable_of_ours_is_named(self):
        done = self.hutch("config", env=self.env(HUTCH_SANDBOX__MEMROY="1g"))
        self.assertIn("HUTCH_SANDBOX__MEMROY", done.stderr)

    def test_the_server_does_not_start_with_a_broken_configuration(self):
        self.refused("nope: 1\n", "c.yaml:1:1", "nope", verb="mcp")

    def test_the_variable_names_a_configuration_file(self):
        path = self.write("sandbox:\n  pids: 123\n")
        done = self.hutch("config", env=self.env(HUTCH_CONFIG=path))
        self.assertIn("123", done.stdout)


if __name__ == "__main__":
    unittest.main()
