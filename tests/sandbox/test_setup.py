"""Setup commands of profiles: run once, and every sandbox of the profile begins with what they have written."""
import contextlib
import glob
import json
import os
import signal
import subprocess
import time
import unittest

import leaks
from crash_case import CrashCase, contents, spread
from image_case import busybox_entries, tar_of
from mcp_client import Closed
from sandbox_case import HUTCH, SLOW, HutchCase, call, skip_when_impossible, unpack, wait_for

DAY = 86_400
# Of the volume `counter` that the tests' profiles have at /count: how often the commands have run is seen outside.
COUNT = "echo run >> /count/runs"
COUNTED = {"volumes": [{"name": "counter", "target": "/count"}]}


class SetupCase(HutchCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        skip_when_impossible()

    def setUp(self):
        super().setUp()
        self.config_path = f"{self.home}/{self._testMethodName}.yaml"
        self.addCleanup(self.clean)

    def clean(self):
        self.wait_for_the_end_of_servers()
        for name in self.names(all_of_them=True):
            self.assertEqual(self.hutch("template", "rm", name).returncode, 0)
        self.hutch("volume", "rm", "counter")
        self.assertEqual(self.loose_layers(), [])

    def wait_for_the_end_of_servers(self):
        wait_for("what ended servers had is removed", lambda: not glob.glob(f"{self.home}/servers/*"), 30)

    def loose_layers(self):
        self.hutch("gc")
        return glob.glob(f"{self.home}/layers/*") + glob.glob(f"{self.home}/layers/.*")

    def start(self, profile, *, results="structured", pool=None, **more):
        """A server with these settings of profile `p`."""
        with open(self.config_path, "w") as file:
            json.dump({"profiles": {"p": profile, "plain": {}, **more.pop("profiles", {})}, "pool": pool or {"min": 0, "max": 0},
                       "volumes": {"default_size": "16m"}, **more}, file)
        server = self.server("--results", results, "--config", self.config_path)
        self.addCleanup(self.end, server)
        return server

    @staticmethod
    def end(server):
        with contextlib.suppress(OSError, ValueError):
            server.close()

    def create(self, server, profile="p", **arguments):
        made = call(server, "sandbox_create", profile=profile, **arguments)
        self.assertFalse(made.is_error, made.text)
        return made.structured

    def sh(self, server, box, command):
        done = call(server, "sandbox_exec", sandbox_id=box["sandbox_id"], command=command)
        self.assertFalse(done.is_error, done.text)
        self.assertEqual((done.structured["end"], done.structured.get("exit_code")), ("exited", 0), done.text)
        return done.structured["stdout"]

    def refused(self, server, **arguments):
        made = call(server, "sandbox_create", **{"profile": "p", **arguments})
        self.assertTrue(made.is_error, made.text)
        return made.text

    def runs(self, server):
        """How often COUNT has run."""
        box = self.create(server, "plain", volumes=[{"name": "counter", "target": "/count", "read_only": True}])
        count = self.sh(server, box, "wc -l < /count/runs")
        call(server, "sandbox_destroy", sandbox_id=box["sandbox_id"])
        return int(count)

    def templates(self, all_of_them=False):
        done = self.hutch("template", "ls", "--json", *(["--all"] if all_of_them else []))
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)["templates"]

    def names(self, all_of_them=False):
        return [one["name"] for one in self.templates(all_of_them)]


class Setup(SetupCase):
    def test_commands_run_once_in_order_and_every_sandbox_of_every_server_begins_with_what_they_wrote(self):
        profile = {**COUNTED, "setup": [COUNT, "mkdir -p /opt/tool && echo $COLOUR > /opt/tool/colour; pwd > here", "cp /opt/tool/colour /root/copy"],
                   "env": {"COLOUR": "red"}, "workdir": "/srv/place"}
        server = self.start(profile)
        boxes = [self.create(server) for _ in range(3)]
        for box in boxes:
            self.assertEqual(self.sh(server, box, "cat /opt/tool/colour /root/copy /srv/place/here"), "red\nred\n/srv/place\n")
        self.sh(server, boxes[0], "rm -r /opt/tool")
        self.assertEqual(self.sh(server, boxes[1], "cat /opt/tool/colour"), "red\n")
        second = self.start(profile)
        self.assertEqual(self.sh(second, self.create(second), "cat /root/copy"), "red\n")
        self.assertEqual(self.runs(second), 1)

    def test_nothing_runs_before_the_profile_is_used_and_then_the_pool_builds_from_it(self):
        server = self.start({**COUNTED, "setup": [COUNT, "echo ready > /root/ready"]}, pool={"min": 1, "max": 2}, default_profile="p")
        call(server, "sandbox_list")
        self.assertFalse(self.create(server, "plain")["warm"])
        self.assertEqual(self.names(all_of_them=True), [])
        done = call(server, "sandbox_exec", command="cat /root/ready")  # the default sandbox
        self.assertEqual(done.structured["stdout"], "ready\n", done.text)

        def warm():
            profiles = call(server, "sandbox_list_profiles").structured["profiles"]
            return next(p["warm"]["ready"] for p in profiles if p["name"] == "p")
        wait_for("a warm one", warm, 30)
        box = self.create(server)
        self.assertTrue(box["warm"], box)
        self.assertEqual(self.sh(server, box, "cat /root/ready"), "ready\n")
        self.assertEqual(self.runs(server), 1)

    def test_other_commands_or_another_environment_run_anew_and_the_same_ones_of_another_profile_do_not(self):
        profile = {**COUNTED, "setup": [COUNT, "echo $WHAT > /root/what"], "env": {"WHAT": "one"}}
        other = {**profile, "description": "with the same setup", "memory": "256m"}
        server = self.start(profile, profiles={"other": other})
        for name in ("p", "other"):
            self.assertEqual(self.sh(server, self.create(server, name), "cat /root/what"), "one\n")
        self.assertEqual(self.runs(server), 1)
        server.close()
        for more in ({"env": {"WHAT": "two"}}, {"setup": [*profile["setup"], "true"]}):
            server = self.start({**profile, **more})
            self.assertEqual(self.sh(server, self.create(server), "cat /root/what"), f"{more.get('env', profile['env'])['WHAT']}\n")
        self.assertEqual(self.runs(server), 3)

    def test_a_command_that_fails_is_named_with_its_output_and_nothing_is_kept_of_it(self):
        server = self.start({**COUNTED, "setup": [COUNT, "echo early; seq 1 5000; echo this is why >&2; exit 3", "echo never > /count/never"]},
                            results="text")
        text = self.refused(server)
        for words in ("setup 2 of 3 of profile 'p' ended with exit code 3", "`echo early;", "\n5000\nthis is why", "profiles.p.setup"):
            self.assertIn(words, text)
        self.assertLess(len(text), 6000)
        log = text.rsplit("printed is in ", 1)[1].strip()
        with open(log) as file:
            printed = file.read()
        self.assertTrue(printed.startswith(f"$ {COUNT}\n$ echo early;"), printed[:200])
        self.assertIn("\n2500\n2501\n", printed)
        self.assertEqual(self.names(all_of_them=True), [])
        self.assertNotIn("sbx-", call(server, "sandbox_list").text)
        self.refused(server)
        server.close()
        server = self.start({})
        self.assertEqual(self.runs(server), 2)  # by the two calls, and not by the pool

    def test_one_that_fails_is_not_tried_again_by_the_pool(self):
        server = self.start({**COUNTED, "setup": [COUNT, "false"]}, pool={"min": 1, "max": 2}, default_profile="p")
        self.assertIn("It printed nothing", self.refused(server))
        status = json.loads(self.hutch("pool", "status", "--json").stdout)
        self.assertEqual([k for s in status for k in s["kinds"] if k["builds"] or k["failures"] or k["target"]], [])
        self.assertEqual(self.runs(server), 1)

    def test_one_that_takes_too_long_is_ended(self):
        server = self.start({"setup": ["echo begun; sleep 1234567"], "setup_timeout_s": 1})
        text = self.refused(server)
        self.assertIn("did not get done", text)
        self.assertIn("profiles.p.setup_timeout_s", text)
        self.assertIn("begun", text)

    def test_a_signal_and_a_want_of_memory_are_told_apart(self):
        server = self.start({"setup": ["kill -9 $$"]})
        self.assertIn("ended with signal 9", self.refused(server))
        server = self.start({"setup": ["python3 -c 'x = b\"1\" * (200 << 20)'"], "memory": "64m"})
        self.assertIn("profiles.p.memory", self.refused(server))

    def test_the_caller_hears_what_is_going_on(self):
        server = self.start({"setup": ["true", "for i in 1 2 3; do echo line $i; sleep 1; done"]})
        under_way = server.submit_tool("sandbox_create", {"profile": "p"}, progress=True)
        heard = []
        while not any("line" in message for message in heard):
            heard.append(under_way.progress.get(timeout=30 * SLOW)["message"])
        self.assertRegex(heard[0], "^setup [12] of 2: ")
        self.assertRegex(heard[-1], "^setup 2 of 2: line [123]")
        self.assertFalse(unpack(under_way.result(60 * SLOW)).is_error)

    def test_while_it_runs_its_sandbox_is_nobodys(self):
        server = self.start({**COUNTED, "setup": [COUNT, "sleep 1234567"]})
        under_way = server.submit_tool("sandbox_create", {"profile": "p"}, progress=True)
        self.assertIn("setup 1 of 2", under_way.progress.get(timeout=30 * SLOW)["message"])
        self.assertEqual(call(server, "sandbox_list").structured["sandboxes"], [])
        self.assertFalse(call(server, "sandbox_destroy", sandbox_id="*", confirm=True).is_error)
        under_way.cancel()
        wait_for("nothing of it is left", lambda: not glob.glob(f"{self.home}/servers/*/sandboxes/*"))
        self.assertEqual(self.names(all_of_them=True), [])

    def test_it_is_a_template_that_only_ls_all_shows_and_rm_gives_its_space_back(self):
        server = self.start({"setup": ["head -c 5M /dev/urandom > /root/big"]})
        box = self.create(server)
        self.assertEqual(call(server, "sandbox_list_templates").structured["templates"], [])
        self.assertEqual(self.names(), [])
        [one] = self.templates(all_of_them=True)
        self.assertEqual((one["description"], len(one["layers"])), ("setup of profile p", 1))
        self.assertGreaterEqual(one["size_bytes"], 5 << 20)
        self.assertEqual(self.hutch("template", "rm", one["name"]).returncode, 0)
        self.assertEqual(self.sh(server, box, "wc -c < /root/big"), f"{5 << 20}\n")  # who has it keeps it
        call(server, "sandbox_destroy", sandbox_id=box["sandbox_id"])
        wait_for("its layer is gone", lambda: not glob.glob(f"{self.home}/layers/*"))
        self.assertEqual(self.sh(server, self.create(server), "wc -c < /root/big"), f"{5 << 20}\n")

    def test_a_template_of_such_a_sandbox_has_all_and_one_that_is_asked_for_has_no_setup_below(self):
        server = self.start({**COUNTED, "setup": [COUNT, "echo setup > /root/setup"]})
        box = self.create(server)
        self.sh(server, box, "echo mine > /root/mine")
        self.assertFalse(call(server, "sandbox_create_template", sandbox_id=box["sandbox_id"], name="mine").is_error)
        plain = self.create(server, "plain")
        self.assertFalse(call(server, "sandbox_create_template", sandbox_id=plain["sandbox_id"], name="bare").is_error)
        self.assertEqual(self.sh(server, self.create(server, template="bare"), "ls /root"), "")
        [setup] = set(self.names(all_of_them=True)) - {"mine", "bare"}
        self.assertEqual(self.hutch("template", "rm", setup).returncode, 0)
        self.assertEqual(self.sh(server, self.create(server, template="mine"), "cat /root/setup /root/mine"), "setup\nmine\n")
        self.assertEqual(self.runs(server), 1)

    def test_one_that_nobody_used_for_a_month_goes_and_one_that_was_used_stays(self):
        profile = {**COUNTED, "setup": [COUNT]}
        server = self.start(profile)
        call(server, "sandbox_destroy", sandbox_id=self.create(server)["sandbox_id"])
        [file] = glob.glob(f"{self.home}/setups/*.json")
        os.utime(file, (time.time() - 40 * DAY,) * 2)
        call(server, "sandbox_destroy", sandbox_id=self.create(server)["sandbox_id"])
        self.hutch("gc")
        self.assertEqual(len(self.names(all_of_them=True)), 1)
        os.utime(file, (time.time() - 31 * DAY,) * 2)
        self.hutch("gc")
        self.assertEqual(self.names(all_of_them=True), [])
        self.assertFalse(os.path.exists(file.replace(".json", ".log")), "its log goes with it")
        self.create(server)
        self.assertEqual(self.runs(server), 2)

    def test_with_the_template_below_it_goes_what_was_set_up_on_it(self):
        server = self.start({"template": "below", "setup": ["cat /root/below > /root/above"]})
        box = self.create(server, "plain")
        self.sh(server, box, "echo below > /root/below")
        self.assertFalse(call(server, "sandbox_create_template", sandbox_id=box["sandbox_id"], name="below").is_error)
        made = self.create(server)
        self.assertEqual((self.sh(server, made, "cat /root/above"), made["template"]), ("below\n", "below"))
        call(server, "sandbox_destroy", sandbox_id=made["sandbox_id"])
        self.assertFalse(call(server, "sandbox_delete_template", name="below").is_error)
        call(server, "sandbox_destroy", sandbox_id=box["sandbox_id"])
        wait_for("both layers are gone", lambda: not glob.glob(f"{self.home}/layers/*"))
        self.assertEqual(self.names(all_of_them=True), [])

    def test_what_is_written_to_memory_is_kept_too(self):
        server = self.start({"setup": ["echo kept > /root/kept"], "storage": "memory"})
        self.create(server)
        self.assertEqual(self.sh(server, self.create(server), "cat /root/kept"), "kept\n")

    def test_in_an_image_and_as_the_profiles_user(self):
        with open(f"{self.home}/root.tar", "wb") as file:
            file.write(tar_of(busybox_entries()))
        self.assertEqual(self.hutch("image", "import", f"{self.home}/root.tar", "--name", "box").returncode, 0)
        self.addCleanup(self.hutch, "image", "rm", "box")
        user = {"user": "app"} if os.geteuid() == 0 else {}
        server = self.start({**user, "image": "box", "setup": ["id -u > /tmp/who"]})
        self.assertEqual(self.sh(server, self.create(server), "cat /tmp/who"), "1234\n" if user else "0\n")
        [one] = self.templates(all_of_them=True)
        self.assertEqual(len(one["layers"]), 2)
        server.close()
        self.wait_for_the_end_of_servers()
        done = self.hutch("image", "rm", "box")
        self.assertEqual((done.returncode, self.names(all_of_them=True)), (0, []), done.stderr)

    def test_hutch_run_does_it_ahead_and_says_so(self):
        self.start({"setup": ["echo ready > /root/ready"]}).close()
        done = self.hutch("run", "--config", self.config_path, "--profile", "p", "--", "cat", "/root/ready")
        self.assertEqual((done.returncode, done.stdout), (0, "ready\n"), done.stderr)
        self.assertIn("setup 1 of 1: echo ready", done.stderr)

    def test_what_is_no_command_is_refused_at_the_start(self):
        with open(self.config_path, "w") as file:
            json.dump({"profiles": {"p": {"setup": ["true", ""]}}}, file)
        done = self.hutch("config", "--config", self.config_path)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("profiles.p.setup[1]", done.stderr)


class SeveralServers(SetupCase):
    # It goes on when the file is there.
    WAITS = {**COUNTED, "setup": [COUNT + "; echo begun; until test -e /count/go; do sleep 0.05; done; echo done > /root/done"]}

    def begin(self, server):
        """A create that is in the middle of the setup."""
        under_way = server.submit_tool("sandbox_create", {"profile": "p"}, progress=True)
        while not under_way.progress.get(timeout=30 * SLOW)["message"].endswith(": begun"):
            pass
        return under_way

    def let_go_on(self, server):
        box = self.create(server, "plain", volumes=[{"name": "counter", "target": "/count"}])
        self.sh(server, box, "touch /count/go")

    def test_of_two_that_want_the_same_one_runs_it_and_the_other_waits(self):
        first, second = self.start(self.WAITS), self.start(self.WAITS)
        one = self.begin(first)
        other = second.submit_tool("sandbox_create", {"profile": "p"}, progress=True)
        self.assertIn("waiting for another", other.progress.get(timeout=30 * SLOW)["message"])
        self.let_go_on(second)
        for under_way, server in ((one, first), (other, second)):
            box = unpack(under_way.result(60 * SLOW))
            self.assertFalse(box.is_error, box.text)
            self.assertEqual(self.sh(server, box.structured, "cat /root/done"), "done\n")
        self.assertEqual(self.runs(first), 1)

    def test_when_the_first_of_two_is_killed_in_the_middle_nothing_is_seen_of_it_and_the_other_runs_it(self):
        first, second = self.start(self.WAITS), self.start(self.WAITS)
        one = self.begin(first)
        other = second.submit_tool("sandbox_create", {"profile": "p"}, progress=True)
        self.assertIn("waiting for another", other.progress.get(timeout=30 * SLOW)["message"])
        os.kill(first.pid, signal.SIGKILL)
        with self.assertRaises(Closed):
            one.result(30 * SLOW)
        self.let_go_on(second)
        box = unpack(other.result(60 * SLOW))
        self.assertFalse(box.is_error, box.text)
        self.assertEqual(self.runs(second), 2)
        self.assertEqual(len(self.names(all_of_them=True)), 1)
        third = self.start(self.WAITS)
        call(third, "sandbox_list")
        self.assertEqual(call(third, "sandbox_list").structured["sandboxes"], [], "it is taken up by nobody")

    def test_a_cancelled_create_ends_the_commands_and_gives_way_to_the_next(self):
        first, second = self.start(self.WAITS), self.start(self.WAITS)
        one = self.begin(first)
        other = second.submit_tool("sandbox_create", {"profile": "p"}, progress=True)
        self.assertIn("waiting for another", other.progress.get(timeout=30 * SLOW)["message"])
        one.cancel()
        self.let_go_on(second)
        self.assertFalse(unpack(other.result(60 * SLOW)).is_error)
        self.assertEqual(self.runs(second), 2)
        self.assertFalse(one.answered_within(0))

    def test_a_server_that_ends_in_the_middle_leaves_nothing(self):
        server = self.start(self.WAITS)
        self.begin(server)
        self.assertEqual(server.close()[0], 0)
        wait_for("nothing is left", lambda: not glob.glob(f"{self.home}/servers/*/sandboxes/*"))
        self.assertEqual(self.names(all_of_them=True), [])


class KilledAtAnyStep(CrashCase):
    """kill -9 of the server that runs it."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.config_path = f"{cls.home}.yaml"
        cls.addClassCleanup(os.unlink, cls.config_path)
        with open(cls.config_path, "w") as file:
            json.dump({"profiles": {"p": {"setup": ["echo one > /root/one", "echo two > /root/two"]}}, "pool": {"max": 0, "min": 0}}, file)
        with cls.serve() as server:
            cls.script(server)
        cls.forget()
        leaks.wait_clean(cls.before, cls.home)
        cls.shared = contents(cls.home)

    @classmethod
    def serve(cls, *under):
        return cls.server("--results", "structured", "--config", cls.config_path, under=under)

    @staticmethod
    def script(client):
        made = call(client, "sandbox_create", profile="p")
        assert not made.is_error, made.text
        done = call(client, "sandbox_exec", sandbox_id=made.structured["sandbox_id"], command="cat /root/one /root/two")
        assert done.structured["stdout"] == "one\ntwo\n", done.text

    @classmethod
    def forget(cls):
        """Removes what the setup has made; how many there were."""
        names = [one["name"] for one in json.loads(cls.hutch("template", "ls", "--all", "--json").stdout)["templates"]]
        for name in names:
            assert cls.hutch("template", "rm", name).returncode == 0
        return len(names)

    def test_it_is_there_whole_or_not_at_all(self):
        self.play(self.serve(*self.under("--list")), self.script)
        steps = len(self.steps())
        self.assertEqual(self.forget(), 1)
        for step, when in spread(12, steps, self.rng):
            with self.naming(f"killed {when} step {step} of {steps}"):
                self.play(self.serve(*self.under(when, step)), self.script)
                with self.serve() as server:
                    self.script(server)
                    call(server, "sandbox_destroy", sandbox_id="*", confirm=True)
                self.assertEqual(self.forget(), 1)
                self.finish()


class Build(SetupCase):
    """hutch template build: from a Dockerfile."""

    def setUp(self):
        super().setUp()
        self.context = f"{self.home}/{self._testMethodName}"
        os.mkdir(self.context)
        subprocess.run(["cp", "/bin/busybox", self.context], check=True)

    def dockerfile(self, *lines, name="Dockerfile"):
        applets = ("RUN", ["/bin/busybox", "sh", "-c", "/bin/busybox --install -s /bin"])
        with open(f"{self.context}/{name}", "w") as file:
            file.write("\n".join(("FROM scratch", "COPY busybox /bin/busybox", f"{applets[0]} {json.dumps(applets[1])}", *lines, "")))

    def build(self, *words, name="built", **options):
        return self.hutch("template", "build", "--name", name, *words, self.context, timeout=120, **options)

    def need_buildah(self):
        if subprocess.run(["which", "buildah"], capture_output=True).returncode != 0:
            self.skipTest("buildah is not installed")

    def test_sandboxes_and_templates_are_made_from_one_that_was_built(self):
        self.need_buildah()
        self.dockerfile("RUN echo made > /made", "ENV COLOUR=red", "WORKDIR /srv")
        done = self.build()
        self.assertEqual(done.returncode, 0, done.stderr)
        server = self.start({})
        [one] = call(server, "sandbox_list_templates").structured["templates"]
        self.assertEqual(one["name"], "built")
        self.assertEqual(json.loads(self.hutch("image", "ls", "--json").stdout)["images"], [])
        for _ in range(2):
            self.hutch("gc")  # it stays as long as the template does
            self.hutch("image", "gc")
            box = self.create(server, template="built")
            self.assertEqual(self.sh(server, box, "cat /made; echo $COLOUR; pwd"), "made\nred\n/srv\n")
            self.sh(server, box, "echo more > /more")
        self.assertFalse(call(server, "sandbox_create_template", sandbox_id=box["sandbox_id"], name="more").is_error)
        call(server, "sandbox_destroy", sandbox_id="*", confirm=True)
        refused = self.hutch("template", "rm", "built")
        self.assertIn("template more", refused.stderr)
        box = self.create(server, template="more")
        self.assertEqual(self.sh(server, box, "cat /made /more"), "made\nmore\n")
        call(server, "sandbox_destroy", sandbox_id="*", confirm=True)
        for name in ("more", "built"):
            self.assertFalse(call(server, "sandbox_delete_template", name=name).is_error)

    def test_another_dockerfile_and_a_name_that_is_taken(self):
        self.need_buildah()
        self.dockerfile("RUN echo other > /made", name="Other")
        self.assertEqual(self.build("-f", f"{self.context}/Other").returncode, 0)
        said = self.build("-f", f"{self.context}/Other")
        self.assertEqual(said.returncode, 125)
        self.assertIn("a template named 'built' exists", said.stderr)
        layers = glob.glob(f"{self.home}/layers/*")
        done = self.build("-f", f"{self.context}/Other", "--overwrite")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(len(glob.glob(f"{self.home}/layers/*")), 1)
        self.assertNotEqual(glob.glob(f"{self.home}/layers/*"), layers)

    def test_a_command_that_fails_fails_the_build_and_leaves_nothing(self):
        self.need_buildah()
        self.dockerfile("RUN echo this is why; exit 3")
        said = self.build()
        self.assertEqual((said.returncode, self.names()), (125, []))
        self.assertIn("this is why", said.stderr)
        self.assertEqual(self.loose_layers(), [])

    @unittest.skipUnless(os.geteuid() == 0, "needs root")
    def test_without_buildah_its_package_is_named(self):
        self.dockerfile()
        # The program looks in the usual folders whatever PATH says: there they are hidden.
        said = subprocess.run(["unshare", "--mount", "sh", "-c", 'for b in /usr/bin/buildah /bin/buildah; do test -e $b && mount --bind /dev/null $b; '
                               'done; exec "$@"', "sh", HUTCH, "template", "build", "--name", "x", self.context],
                              capture_output=True, text=True, timeout=60 * SLOW, env=self.env())
        self.assertEqual(said.returncode, 125)
        self.assertIn("buildah is not installed", said.stderr)
        self.assertIn("apt-get install buildah", said.stderr)

    def test_the_name_is_needed(self):
        said = self.hutch("template", "build", self.context)
        self.assertEqual(said.returncode, 125)
        self.assertIn("--name NAME", said.stderr)


if __name__ == "__main__":
    unittest.main()
