"""Sandboxes that are made from images: the agent runs in any of them."""
import glob
import json
import os
import shutil
import unittest

from image_case import ImageCase, MadeUpRegistry, busybox_entries, entry, folder, link, oci_layout, tar_of
from sandbox_case import SLOW, SandboxCase, wait_for


class InImages(SandboxCase, ImageCase):
    @classmethod
    def env(cls, **extra):
        config = f"{cls.home}/config.yaml"
        return {**super().env(**extra), **({"HUTCH_CONFIG": config} if os.path.exists(config) else {})}

    @classmethod
    def setUpClass(cls):
        cls.source = cls.data_folder() + "/source"
        cls.digest = oci_layout(cls.source, [tar_of(busybox_entries([folder("srv")]))], {"WorkingDir": "/srv"}, compress=True)
        cls.registry = MadeUpRegistry(cls.source)
        cls.registry.__enter__()
        cls.addClassCleanup(cls.registry.__exit__)
        super().setUpClass()

    @classmethod
    def data_folder(cls):
        home = super().data_folder()
        if hasattr(cls, "registry"):
            with open(f"{home}/config.yaml", "w") as file:
                json.dump({"images": {"insecure_registries": [cls.registry.host]}}, file)
        return home

    def tearDown(self):
        self.call("sandbox_destroy", sandbox_id="*", confirm=True)
        for image in self.images():
            self.image("rm", image["digest"])

    def sandbox_of(self, entries, name, **config):
        path, _ = self.layout(entries, name, config=config)
        self.made("import", path, "--name", name)
        return self.ok("sandbox_create", image=name)["sandbox_id"]

    def run_in(self, box, *argv, **arguments):
        done = self.ok("sandbox_exec", sandbox_id=box, argv=list(argv), **arguments)
        self.assertEqual((done["end"], done["exit_code"]), ("exited", 0), done)
        return done["stdout"]

    def test_a_command_runs_in_an_image_without_bash(self):
        box = self.sandbox_of(busybox_entries(), "box")
        self.assertEqual(self.sh("echo $((6*7)); test -e /bin/bash || echo none", sandbox_id=box), "42\nnone\n")

    def test_a_pull_that_its_caller_cancels_leaves_nothing_and_the_next_one_pulls(self):
        blobs = f"{self.source}/blobs/sha256"
        layer = "sha256:" + max(os.listdir(blobs), key=lambda blob: os.path.getsize(f"{blobs}/{blob}"))
        self.registry.stuck.add(layer)
        image = f"{self.registry.host}/cancelled:1"
        under_way = self.client.submit_tool("sandbox_create", {"image": image}, progress=True)
        self.assertIn("asking", under_way.progress.get(timeout=30 * SLOW)["message"])
        self.assertTrue(self.registry.asked.wait(30 * SLOW))
        under_way.cancel()
        wait_for("what was begun is removed", lambda: not glob.glob(f"{self.home}/images/.work-*"))
        self.assert_nothing_half_made()
        self.assertEqual(self.images(), [])
        self.registry.stuck.clear()
        self.registry.go_on.set()
        self.assertEqual(self.ok("sandbox_create", image=image)["image"], self.digest)
        self.assertFalse(under_way.answered_within(0))

    def test_without_a_shell_argv_runs_and_command_says_what_is_missing(self):
        box = self.sandbox_of(busybox_entries(shell=False), "distroless")
        self.assertEqual(self.run_in(box, "/bin/busybox", "echo", "runs"), "runs\n")
        done = self.call("sandbox_exec", sandbox_id=box, command="echo x")
        self.assertIn("/bin/sh", done.text)

    @unittest.skipUnless(os.geteuid() == 0 and shutil.which("runsc") and shutil.which("crun"), "needs root, runsc and crun")
    def test_the_same_image_and_templates_of_it_are_used_by_crun_and_by_gvisor(self):
        self.sandbox_of(busybox_entries(), "both")
        for one, other in (("crun", "runsc"), ("runsc", "crun")):
            box = self.ok("sandbox_create", image="both", runtime=one)
            self.assertEqual(box["runtime"], one)
            self.sh(f"echo by {one} > /workspace/made", sandbox_id=box["sandbox_id"])
            self.ok("sandbox_create_template", sandbox_id=box["sandbox_id"], name=f"by-{one}")
            copy = self.ok("sandbox_create", template=f"by-{one}", runtime=other)
            self.assertEqual((copy["runtime"], self.sh("cat /workspace/made", sandbox_id=copy["sandbox_id"])), (other, f"by {one}\n"))
        self.ok("sandbox_destroy", sandbox_id="*", confirm=True)
        for one in ("crun", "runsc"):
            self.ok("sandbox_delete_template", name=f"by-{one}")

    def test_links_in_the_place_of_etc_proc_and_dev_do_no_harm(self):
        odd = [folder("usr"), folder("usr/etc"), link("etc", "usr/etc"), link("proc", "/etc"), link("dev", "/tmp"), link("run", "usr"),
               *(e for e in busybox_entries() if not e[0].name.startswith("etc"))]
        box = self.sandbox_of(odd, "odd")
        self.assertEqual(self.sh("cat /proc/1/comm >/dev/null && echo x > /dev/null && cat /usr/etc/hostname", sandbox_id=box), "sandbox\n")

    def test_what_an_image_says_of_commands_holds(self):
        box = self.sandbox_of([*busybox_entries(), folder("srv", uid=1234, gid=1234)], "says", User="app", WorkingDir="/srv",
                              Env=["GREETING=hello you", "PATH=/bin"])
        self.assertEqual(self.sh('id -u; id -g; pwd; echo "$GREETING"', sandbox_id=box), "1234\n1234\n/srv\nhello you\n")

    def test_two_sandboxes_of_one_image_do_not_see_what_the_other_writes(self):
        one = self.sandbox_of([*busybox_entries(), entry("shared", b"as it was")], "shared")
        two = self.ok("sandbox_create", image="shared")["sandbox_id"]
        self.sh("echo changed > /shared; mkdir /mine", sandbox_id=one)
        self.assertEqual(self.sh("cat /shared; test -e /mine || echo none", sandbox_id=two), "as it wasnone\n")

    def test_an_image_that_is_in_use_is_not_removed(self):
        box = self.sandbox_of(busybox_entries(), "used")
        done = self.image("rm", "used")
        self.assertEqual(done.returncode, 125)
        self.assertIn(box, done.stderr)
        self.made("gc")
        self.assertEqual(self.sh("echo still", sandbox_id=box), "still\n")

    def test_what_is_not_here_is_pulled_when_it_is_first_asked_for(self):
        name = f"{self.registry.host}/box:1"
        box = self.ok("sandbox_create", image=name)
        self.assertEqual(self.sh("pwd", sandbox_id=box["sandbox_id"]), "/srv\n")
        asked = len(self.registry.requests)
        self.ok("sandbox_create", image=name)
        self.assertEqual(len(self.registry.requests), asked)
