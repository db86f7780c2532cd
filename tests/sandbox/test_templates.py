"""Templates and forks hold every file that a sandbox had, and nobody sees what another one writes."""
import glob
import signal
import tempfile
import time

from sandbox_case import SLOW, SandboxCase, call, wait_for

# What a file is, for comparison; read inside, so that owners are those that a sandbox sees.
FACTS = """
import hashlib, os, stat, sys
top = sys.argv[1]
def facts(path):
    st = os.lstat(path)
    out = [os.fsencode(path), oct(st.st_mode), st.st_uid, st.st_gid, st.st_mtime_ns]
    if not stat.S_ISDIR(st.st_mode): out.append(st.st_nlink)
    if stat.S_ISLNK(st.st_mode): out.append(os.readlink(os.fsencode(path)))
    if stat.S_ISREG(st.st_mode):
        out += [st.st_size, hashlib.sha256(open(path, 'rb').read()).hexdigest()]
    for name in sorted(os.listxattr(path, follow_symlinks=False)):
        out.append((name, os.getxattr(path, name, follow_symlinks=False)))
    return out
print(hashlib.sha256(b'', usedforsecurity=False).name)
for folder, folders, files in os.walk(top):
    folders.sort()
    print(facts(folder))
    for name in sorted(files) + [f for f in folders if os.path.islink(os.path.join(folder, f))]:
        print(facts(os.path.join(folder, name)))
"""

# Every kind of file, in every place that can be written to.
MAKE = r"""
import os, random, socket, stat, sys
count = int(sys.argv[1])
random.seed(7)
os.makedirs('/workspace/tree', exist_ok=True)
os.chdir('/workspace/tree')
def put(path, data=b'', mode=0o644):
    os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
    with open(path, 'wb') as f: f.write(data)
    os.chmod(path, mode)
for i in range(count):
    put(f'd{i % 97}/s{i % 7}/f{i}', random.randbytes(i % 600), random.choice([0o644, 0o600, 0o755, 0o4755, 0o2711, 0o000]))
os.makedirs('empty/deeper'); os.chmod('empty/deeper', 0o1777)
os.symlink('/etc/passwd', 'absolute'); os.symlink('nowhere', 'dangling'); os.symlink('d1', 'to-folder')
put('hard/a', b'linked'); os.link('hard/a', 'hard/b'); os.link('hard/a', 'd1/c')
put('owned', b'x'); os.chown('owned', 1000, 33); os.lchown('dangling', 5, 6)
put('attributes', b'x'); os.setxattr('attributes', 'user.one', b'1\0\xff'); os.setxattr('empty', 'user.on-folder', b'')
os.mkfifo('fifo', 0o640)
socket.socket(socket.AF_UNIX).bind('socket')
with open('sparse', 'wb') as f: f.truncate(50 << 20); f.seek(30 << 20); f.write(b'in the middle')
put(b'not utf-8 \xff\xfe', b'1'); put('line\nbreak', b'2'); put('n' * 250, b'3')
os.utime('owned', ns=(1, 123456789)); os.utime('attributes', ns=(-5_000_000_123, -3_000_000_456))
put('/root/.cache/x', b'home'); put('/tmp/in-tmp', b't'); put('/var/tmp/y', b'v'); put('/etc/made-here', b'e', 0o600)
put('/usr/local/bin/tool', b'#!/bin/sh\necho a tool\n', 0o755); put('/home/user/h', b'h')
os.remove('/etc/shells'); os.remove('/usr/share/common-licenses/GPL-3')
import shutil
shutil.rmtree('/usr/share/base-files'); os.makedirs('/usr/share/base-files'); put('/usr/share/base-files/only', b'1')
put('/usr/share/common-licenses/BSD', b'changed')
"""


class TemplateCase(SandboxCase):
    def tearDown(self):
        self.ok("sandbox_destroy", sandbox_id="*", confirm=True)
        templates = self.ok("sandbox_list_templates")["templates"]
        while templates:  # those that nothing builds on first
            for one in templates:
                if not one["in_use"]:
                    self.ok("sandbox_delete_template", name=one["name"])
            templates = self.ok("sandbox_list_templates")["templates"]
        super().tearDown()

    def make(self, box, count=300):
        self.script(box, MAKE, str(count))

    def script(self, box, code, *args):
        self.ok("sandbox_write_file", sandbox_id=box, path="/run/script.py", content=code)
        done = self.ok("sandbox_exec", sandbox_id=box, argv=["python3", "/run/script.py", *args], timeout_s=100 * SLOW,
                       output_limit=1000)
        self.assertEqual((done["end"], done.get("exit_code")), ("exited", 0), done)
        return done

    def facts(self, box, top="/workspace"):
        self.ok("sandbox_write_file", sandbox_id=box, path="/run/facts.py", content=FACTS)
        return self.sh(f"python3 /run/facts.py {top} > /run/facts; sha256sum < /run/facts; wc -l < /run/facts", sandbox_id=box)

    def create(self, **arguments):
        return self.ok("sandbox_create", **arguments)["sandbox_id"]

    def destroy(self, *boxes):
        for box in boxes:
            self.ok("sandbox_destroy", sandbox_id=box)

    def layers(self):
        return glob.glob(f"{self.home}/layers/layer-*")


class Templates(TemplateCase):
    def test_a_sandbox_from_a_template_has_every_file_as_it_was(self):
        box = self.create()
        self.make(box)
        before = self.facts(box)
        made = self.ok("sandbox_create_template", sandbox_id=box, name="every")
        self.assertEqual((made["template"], made["layers"]), ("every", 1), made)
        self.assertEqual(self.facts(box), before)  # the sandbox goes on
        copy = self.create(template="every")
        self.assertEqual(self.facts(copy), before)
        self.assertEqual(self.sh("tool; cat /root/.cache/x /tmp/in-tmp /var/tmp/y /etc/made-here /home/user/h", sandbox_id=copy),
                         "a tool\nhometveh")
        self.assertEqual(self.sh("ls /usr/share/base-files; cat /usr/share/common-licenses/BSD; "
                                 "ls /etc/shells /usr/share/common-licenses/GPL-3 2>&1 | grep -c 'No such'", sandbox_id=copy),
                         "only\nchanged2\n")
        self.destroy(box, copy)
        self.ok("sandbox_delete_template", name="every")

    def test_what_is_written_in_one_is_seen_in_no_other(self):
        box = self.create()
        self.sh("echo first > /workspace/f; mkdir /workspace/d; echo x > /workspace/d/x", sandbox_id=box)
        self.ok("sandbox_create_template", sandbox_id=box, name="apart")
        one, two = self.create(template="apart"), self.create(template="apart")
        self.sh("echo one > f; rm -r d; echo new > /etc/new", sandbox_id=one)
        self.sh("echo parent > f", sandbox_id=box)
        self.assertEqual(self.sh("cat f d/x; ls /etc/new 2>&1 | grep -c such", sandbox_id=two), "first\nx\n1\n")
        self.destroy(box, one, two)
        self.ok("sandbox_delete_template", name="apart")

    def test_templates_build_on_each_other(self):
        box = self.create()
        self.sh("echo 1 > one; echo gone > gone", sandbox_id=box)
        self.ok("sandbox_create_template", sandbox_id=box, name="base")
        second = self.create(template="base")
        self.sh("echo 2 > two; rm gone; echo 11 > one", sandbox_id=second)
        made = self.ok("sandbox_create_template", sandbox_id=second, name="upper")
        self.assertEqual((made["parent"], made["layers"]), ("base", 2))
        third = self.create(template="upper")
        self.assertEqual(self.sh("cat one two; ls", sandbox_id=third), "11\n2\none\ntwo\n")
        self.assertIn("template upper", self.refused("sandbox_delete_template", name="base")) 
        self.destroy(box, second, third)
        self.ok("sandbox_delete_template", name="upper")
        self.ok("sandbox_delete_template", name="base")

    def test_one_that_is_in_use_is_not_deleted(self):
        box = self.create()
        self.ok("sandbox_create_template", sandbox_id=box, name="used", description="for the test")
        self.destroy(box)
        user = self.create(template="used")
        listed, = self.ok("sandbox_list_templates")["templates"]
        self.assertEqual((listed["name"], listed["description"], listed["in_use"]), ("used", "for the test", [user]))
        self.assertIn(user, self.refused("sandbox_delete_template", name="used"))
        self.assertEqual(self.sh("echo still here", sandbox_id=user), "still here\n")
        self.destroy(user)
        self.ok("sandbox_delete_template", name="used")
        self.assertEqual(self.ok("sandbox_list_templates")["templates"], [])
        wait_for("its layer is gone", lambda: not self.layers())
        self.assertIn("there is no template 'used'", self.refused("sandbox_create", template="used"))

    def test_who_is_destroyed_uses_nothing_any_more_when_that_is_answered(self):
        box = self.create()
        self.ok("sandbox_create_template", sandbox_id=box, name="held")
        for _ in range(15):
            # Files that take a moment to remove, while the housekeeper hears of the end as well.
            user = self.create(template="held")
            self.sh("mkdir d; cd d; seq 2000 | xargs touch", sandbox_id=user)
            self.destroy(user)
            self.assertEqual(self.ok("sandbox_list_templates")["templates"][0].get("in_use", []), [])
        self.ok("sandbox_delete_template", name="held")

    def test_a_name_is_taken_once_unless_it_is_replaced(self):
        box = self.create()
        self.sh("echo 1 > version", sandbox_id=box)
        self.ok("sandbox_create_template", sandbox_id=box, name="again")
        self.assertIn("overwrite", self.refused("sandbox_create_template", sandbox_id=box, name="again")) 
        old = self.create(template="again")
        self.sh("echo 2 > version", sandbox_id=box)
        self.ok("sandbox_create_template", sandbox_id=box, name="again", overwrite=True)
        new = self.create(template="again")
        self.assertEqual((self.sh("cat version", sandbox_id=old), self.sh("cat version", sandbox_id=new)), ("1\n", "2\n"))
        self.destroy(box, old, new)
        self.ok("sandbox_delete_template", name="again")
        for name in ("", "../x", "a/b", ".hidden", "sbx-1", "n" * 65):
            self.assertIn("name", self.refused("sandbox_create_template", name=name)) 

    def test_one_that_is_asked_for_often_is_warm(self):
        box = self.create()
        self.sh("echo here > f", sandbox_id=box)
        self.ok("sandbox_create_template", sandbox_id=box, name="often")
        self.destroy(box)
        boxes = []

        def warm():
            made = self.ok("sandbox_create", template="often")
            boxes.append(made["sandbox_id"])
            self.assertEqual(self.sh("cat f", sandbox_id=boxes[-1]), "here\n")
            self.destroy(boxes[-1])
            return made["warm"]
        wait_for("a warm one of the template", warm, timeout=30)
        self.ok("sandbox_delete_template", name="often")
        wait_for("its layer is gone", lambda: not self.layers())

    def test_files_that_are_being_written_are_whole_lines(self):
        """A copy of a sandbox whose processes run on would catch the two files at different states."""
        box = self.create()
        self.ok("sandbox_exec", sandbox_id=box, background=True,
                command="i=0; while :; do i=$((i+1)); echo $i > a; echo $i > b; done")
        for number in range(5):
            self.ok("sandbox_create_template", sandbox_id=box, name=f"moving{number}")
        for number in range(5):
            copy = self.create(template=f"moving{number}")
            a, b = (self.sh(f"cat {name} || :", sandbox_id=copy).strip() for name in "ab")
            self.assertTrue(int(a or 0) - int(b or 0) in (0, 1) or "" in (a, b), (a, b))
            self.destroy(copy)
            self.ok("sandbox_delete_template", name=f"moving{number}")
        self.destroy(box)


    def test_one_whose_sandbox_is_destroyed_meanwhile_is_whole_or_not_made(self):
        for delay_ms in (0, 2, 10, 30, 60):
            box = self.create()
            self.sh("head -c 40M /dev/urandom > f; sha256sum f > sum", sandbox_id=box, timeout_s=100 * SLOW)
            saving = self.client.submit_tool("sandbox_create_template", {"sandbox_id": box, "name": f"torn{delay_ms}"})
            time.sleep(delay_ms / 1000)  # any moment will do
            self.destroy(box)
            if saving.result(60 * SLOW).get("isError"):
                self.assertIn("there is no template", self.refused("sandbox_create", template=f"torn{delay_ms}"))
                continue
            self.assertEqual(self.sh("sha256sum -c sum", sandbox_id=self.create(template=f"torn{delay_ms}")), "f: OK\n")


class Forks(TemplateCase):
    def test_a_fork_has_all_files_and_a_life_of_its_own(self):
        box = self.create(env={"KEPT": "yes"}, labels={"a": "b"}, memory="300m")
        self.make(box, 100)
        before = self.facts(box)
        made = self.ok("sandbox_fork", sandbox_id=box, count=3, name="try")
        self.assertEqual(len(made["sandboxes"]), 3)
        for number, fork in enumerate(made["sandboxes"], 1):
            info = self.ok("sandbox_info", sandbox_id=f"try-{number}")
            self.assertEqual((info["sandbox_id"], info["limits"]["memory"], info["labels"]), (fork, "300m", {"a": "b"}))
            self.assertEqual(self.facts(fork), before)
            self.assertEqual(self.sh(f"echo $KEPT; echo {number} > mine", sandbox_id=fork), "yes\n")
        self.destroy(box)  # a fork does not need its parent
        for number, fork in enumerate(made["sandboxes"], 1):
            self.assertEqual(self.sh("cat mine; ls /workspace", sandbox_id=fork), f"{number}\nmine\ntree\n")
        self.destroy(*made["sandboxes"])
        wait_for("the layer that they shared is gone", lambda: not self.layers())

    def test_a_fork_of_a_fork_has_the_files_of_both(self):
        box = self.create()
        self.sh("echo 1 > one", sandbox_id=box)
        boxes = [box]
        for number in range(2, 6):
            fork, = self.ok("sandbox_fork", sandbox_id=boxes[-1])["sandboxes"]
            self.sh(f"echo {number} > n{number}", sandbox_id=fork)
            boxes.append(fork)
        self.assertEqual(self.sh("cat one n2 n3 n4 n5", sandbox_id=boxes[-1]), "1\n2\n3\n4\n5\n")
        self.destroy(*boxes)
        wait_for("no layer is left", lambda: not self.layers())

    def test_a_name_that_is_taken_makes_no_fork_at_all(self):
        box = self.create()
        taken = self.create(name="clash-2")
        self.assertIn("clash-2", self.refused("sandbox_fork", sandbox_id=box, count=3, name="clash")) 
        self.assertIn("clash-1 has ended", self.refused("sandbox_exec", sandbox_id="clash-1", command="true"))
        self.destroy(box, taken)
        wait_for("no layer is left", lambda: not self.layers())


class InMemory(TemplateCase):
    server_settings = {"HUTCH_POOL__MAX": 0}

    @classmethod
    def setUpClass(cls):
        cls.config = cls.enterClassContext(tempfile.NamedTemporaryFile("w", suffix=".yaml"))
        cls.config.write("profiles:\n  quick: {storage: memory, disk: 100m}\n  tools: {template: tools}\n")
        cls.config.flush()
        cls.server_args = ("--config", cls.config.name)
        super().setUpClass()

    def test_files_in_memory_can_be_kept_and_forked_too(self):
        box = self.create(profile="quick")
        disk = {i["name"]: i for i in self.ok("sandbox_info", sandbox_id=box)["isolation"]}["disk"]
        self.assertIn("counted as memory", disk["detail"])
        self.assertIn("No space left", self.ok("sandbox_exec", sandbox_id=box, command="head -c 120M /dev/zero > f; rm f")["stderr"])
        self.make(box, 100)
        before = self.facts(box)
        self.ok("sandbox_create_template", sandbox_id=box, name="memory")
        fork, = self.ok("sandbox_fork", sandbox_id=box)["sandboxes"]
        for copy in (fork, self.create(template="memory"), self.create(template="memory", profile="quick")):
            self.assertEqual(self.facts(copy), before)

    def test_a_profile_can_begin_with_a_template(self):
        self.assertIn("there is no template 'tools'", self.refused("sandbox_create", profile="tools"))
        box = self.create()
        self.sh("echo '#!/bin/sh\necho a tool' > /usr/local/bin/own-tool; chmod +x /usr/local/bin/own-tool", sandbox_id=box)
        self.ok("sandbox_create_template", sandbox_id=box, name="tools")
        made = self.ok("sandbox_create", profile="tools")
        self.assertEqual((made["template"], self.sh("own-tool", sandbox_id=made["sandbox_id"])), ("tools", "a tool\n"))


class Killed(TemplateCase):
    """The server, in the middle of it or right after."""
    server_settings = {"HUTCH_POOL__MAX": 0}

    def tearDown(self):
        pass  # its own servers

    def serve(self):
        server = self.server("--results", "structured", env=self.server_settings)
        self.addCleanup(lambda: server.process.poll() is None and server.close())
        return server

    def kill(self, server):
        server.kill(signal.SIGKILL)
        server.wait()
        server.close()

    def clean(self):
        server = self.serve()
        call(server, "sandbox_destroy", sandbox_id="*", confirm=True)
        for one in call(server, "sandbox_list_templates").structured["templates"]:
            self.assertFalse(call(server, "sandbox_delete_template", name=one["name"]).is_error)
        wait_for("no layer is left", lambda: not glob.glob(f"{self.home}/layers/*"))
        server.close()

    def test_a_template_outlives_a_kill_right_after_it_was_made(self):
        server = self.serve()
        box = call(server, "sandbox_create").structured["sandbox_id"]
        call(server, "sandbox_exec", sandbox_id=box, command="seq 100000 > numbers; mkdir -m 700 d; ln numbers d/same")
        self.assertFalse(call(server, "sandbox_create_template", sandbox_id=box, name="lasting").is_error)
        self.kill(server)
        server = self.serve()
        copy = call(server, "sandbox_create", template="lasting").structured["sandbox_id"]
        seen = call(server, "sandbox_exec", sandbox_id=copy, command="cmp numbers d/same && tail -n 1 numbers && stat -c '%a %h' d numbers").structured
        self.assertEqual(seen["stdout"], "100000\n700 2\n644 2\n")
        # One that was made from it is taken up with it, and can be forked again.
        self.kill(server)
        server = self.serve()
        fork, = call(server, "sandbox_fork", sandbox_id=copy).structured["sandboxes"]
        self.assertEqual(call(server, "sandbox_exec", sandbox_id=fork, command="tail -n 1 numbers").structured["stdout"], "100000\n")
        server.close()
        self.clean()

    def test_nothing_half_made_is_ever_seen_and_its_space_comes_back(self):
        for delay_ms in (0, 15, 60):
            with self.subTest(delay_ms):
                server = self.serve()
                box = call(server, "sandbox_create").structured["sandbox_id"]
                call(server, "sandbox_exec", sandbox_id=box, command="head -c 60M /dev/urandom > f; sha256sum f > sum")
                server.submit_tool("sandbox_create_template", {"sandbox_id": box, "name": "half"})
                time.sleep(delay_ms / 1000)  # any moment will do
                self.kill(server)
                server = self.serve()
                made = call(server, "sandbox_create", template="half")
                if not made.is_error:  # then it is whole
                    copy = made.structured["sandbox_id"]
                    self.assertEqual(call(server, "sandbox_exec", sandbox_id=copy, command="sha256sum -c sum").structured["exit_code"], 0)
                # The one that it was made from was held still, and goes on.
                alive = call(server, "sandbox_exec", sandbox_id=box, command="sha256sum -c sum")
                self.assertEqual((alive.is_error, alive.structured.get("exit_code")), (False, 0), alive.text)
                server.close()
                self.clean()
