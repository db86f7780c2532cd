"""Images: brought from registries, archives and folders, whole and checked or not at all."""
import gzip
import io
import json
import os
import shutil
import stat
import subprocess
import tarfile
import unittest

import leaks
from crash_case import KILL_AT, REACHED, contents
from image_case import (ImageCase, MadeUpRegistry, busybox_entries, docker_registry, entry, folder, free_port, link, oci_layout,
                        skopeo, tar_of)
from sandbox_case import HUTCH, SLOW, wait_for

BCRYPT_OF_SECRET = b"$2b$04$oH6jqrzlWfM0oLROmoNMm.IRtU2Y.JTi8pVPV60necF5awt3lKOg."
ABOUT = {"User": "app", "WorkingDir": "/srv", "Env": ["PATH=/bin", "GREETING=hello = you", "broken"]}


class Pull(ImageCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        registry = docker_registry(cls.work)
        cls.host = registry.__enter__()
        cls.addClassCleanup(registry.__exit__, None, None, None)
        cls.before = leaks.snapshot(cls.home)
        cls.source = os.path.join(cls.work, "source")
        cls.digest = oci_layout(cls.source, [tar_of(busybox_entries()), tar_of([folder("srv"), entry("srv/second", b"2")])], ABOUT,
                                compress=True)
        skopeo("copy", "--dest-tls-verify=false", f"oci:{cls.source}:latest", f"docker://{cls.host}/tests/box:1")

    def test_an_image_is_pulled_by_its_name_with_all_of_its_layers_and_what_it_says_of_commands(self):
        done = self.image("pull", f"{self.host}/tests/box:1", config=self.config(self.host))
        self.assertEqual(done.returncode, 0, done.stderr)
        image = json.loads(done.stdout)
        self.assertEqual((image["digest"], image["names"]), (self.digest, [f"{self.host}/tests/box:1"]))
        self.assertEqual((image["user"], image["workdir"]), ("app", "/srv"))
        self.assertEqual(image["env"], {"PATH": "/bin", "GREETING": "hello = you"})
        self.assertIn("copying layer 2", done.stderr)
        self.assertIn("unpacking 2 layers", done.stderr)
        with self.files_of(image) as root:
            self.assertEqual(os.readlink(f"{root}/bin/sh"), "busybox")
            with open(f"{root}/srv/second") as file:
                self.assertEqual(file.read(), "2")
            for name in ("proc", "sys", "dev", "run", "tmp", "workspace"):
                self.assertTrue(stat.S_ISDIR(os.lstat(f"{root}/{name}").st_mode), name)
            self.assertEqual(stat.S_IMODE(os.stat(f"{root}/tmp").st_mode), 0o1777)
            with open(f"{root}/etc/hosts") as file:
                self.assertIn("127.0.0.1 localhost", file.read())

    def test_an_image_is_pulled_by_digest_and_found_by_it(self):
        name = f"{self.host}/tests/box@{self.digest}"
        self.assertEqual(self.made("pull", name, config=self.config(self.host))["names"], [name])
        self.assertEqual(self.made("rm", self.digest[7:19])["digests"], [self.digest])

    def test_what_is_here_is_not_asked_for_again_unless_anew(self):
        with MadeUpRegistry(self.source) as registry:
            config, name = self.config(registry.host), f"{registry.host}/box:1"
            first = self.made("pull", name, config=config)
            asked = len(registry.requests)
            self.assertGreater(asked, 0)
            self.assertEqual(self.made("pull", name, config=config), first)
            self.assertEqual(len(registry.requests), asked)
            self.assertEqual(self.made("pull", "-f", name, config=config), first)
            self.assertGreater(len(registry.requests), asked)

    def test_two_names_of_one_image_share_its_files(self):
        config = self.config(self.host)
        one = self.made("pull", f"{self.host}/tests/box:1", config=config)
        skopeo("copy", "--dest-tls-verify=false", f"oci:{self.source}:latest", f"docker://{self.host}/tests/box:2")
        two = self.made("pull", f"{self.host}/tests/box:2", config=config)
        self.assertEqual((two["layer"], len(two["names"])), (one["layer"], 2))
        self.assertEqual(self.made("rm", f"{self.host}/tests/box:1")["digests"], [])
        self.assertEqual([i["names"] for i in self.images()], [[f"{self.host}/tests/box:2"]])

    def test_a_name_that_moves_leaves_an_image_that_gc_removes(self):
        config, name = self.config(self.host), f"{self.host}/tests/moves:1"
        for number in ("1", "2"):
            path, digest = self.layout(busybox_entries([entry("number", number.encode())]), number, compress=True)
            skopeo("copy", "--dest-tls-verify=false", f"oci:{path}:latest", f"docker://{name}")
            self.assertEqual(self.made("pull", "-f", name, config=config)["digest"], digest)
        self.assertEqual(sorted(i["names"] for i in self.images()), [[], [name]])
        self.assertEqual(len(self.made("gc")["digests"]), 1)
        self.assertEqual([i["names"] for i in self.images()], [[name]])

    def test_what_the_registry_does_not_have_is_named(self):
        said = self.refused("pull", f"{self.host}/tests/none:1", config=self.config(self.host))
        self.assertIn(f"{self.host}/tests/none:1", said)
        self.assertIn("unknown", said)
        self.assertIn("skopeo list-tags", said)

    def test_a_registry_without_tls_is_an_error_that_names_the_setting(self):
        self.assertIn("images.insecure_registries", self.refused("pull", f"{self.host}/tests/box:1"))

    def test_a_registry_that_is_down_is_an_error_that_names_it(self):
        host = f"127.0.0.1:{free_port()}"
        said = self.refused("pull", f"{host}/box", config=self.config(host))
        self.assertIn(host, said)
        self.assertIn("connection refused", said)

    def test_credentials_are_those_of_the_usual_file_and_their_want_is_said(self):
        users = self.write("users", b"me:" + BCRYPT_OF_SECRET + b"\n")
        folder_of_it = self.place("registry")
        os.mkdir(folder_of_it)
        with docker_registry(folder_of_it, users) as host:
            skopeo("copy", "--dest-tls-verify=false", "--dest-creds=me:secret", f"oci:{self.source}:latest", f"docker://{host}/box:1")
            said = self.refused("pull", f"{host}/box:1", config=self.config(host))
            self.assertIn(f"skopeo login {host}", said)
            auth = self.place("auth.json")
            subprocess.run(["skopeo", "login", "--tls-verify=false", "--authfile", auth, "-u", "me", "-p", "secret", host], check=True,
                           capture_output=True, timeout=60)
            env = self.env(REGISTRY_AUTH_FILE=auth)
            self.assertEqual(self.made("pull", f"{host}/box:1", config=self.config(host), env=env)["digest"], self.digest)

    def test_no_name_of_an_image_is_an_error_that_shows_one(self):
        for name in ("", "UPPER/case", "a b", "../x", "-x", "x:", "x@sha256:12", "a//b", "x:y:z/", "$(id)"):
            with self.subTest(name):
                self.assertIn("python:3.12", self.refused("pull", "--", name))


class LyingRegistry(ImageCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.source = os.path.join(cls.work, "source")
        cls.digest = oci_layout(cls.source, [tar_of(busybox_entries())], ABOUT, compress=True)
        blobs = os.path.join(cls.source, "blobs/sha256")
        cls.biggest = "sha256:" + max(os.listdir(blobs), key=lambda b: os.path.getsize(os.path.join(blobs, b)))

    def setUp(self):
        context = MadeUpRegistry(self.source)
        self.registry = context.__enter__()
        self.addCleanup(context.__exit__)
        self.name = f"{self.registry.host}/box:1"

    def test_a_layer_with_another_digest_is_refused(self):
        self.registry.lies[self.biggest] = b"something else"
        self.assertIn("igest", self.refused("pull", self.name, config=self.config(self.registry.host)))

    def test_another_manifest_than_the_digest_that_was_asked_for_is_refused(self):
        with open(os.path.join(self.source, "blobs/sha256", self.digest[7:]), "rb") as file:
            self.registry.lies[self.digest] = file.read().replace(b"}", b" }", 1)
        said = self.refused("pull", f"{self.registry.host}/box@{self.digest}", config=self.config(self.registry.host))
        self.assertIn("igest", said)

    def test_a_blob_without_end_is_cut_off_at_the_size_that_an_image_may_have(self):
        self.registry.endless.add(self.biggest)
        said = self.refused("pull", self.name, config=self.config(self.registry.host, max_size="16m"))
        self.assertIn("images.max_size", said)

    def test_a_registry_that_is_too_slow_is_given_up(self):
        self.registry.stuck.add(self.biggest)
        said = self.refused("pull", self.name, config=self.config(self.registry.host, pull_timeout_s=1))
        self.assertIn("images.pull_timeout_s", said)

    def background(self, config):
        return subprocess.Popen([HUTCH, "image", "pull", self.name, "--json", "--config", config], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, env=self.env())

    def test_of_two_that_want_the_same_one_pulls_and_the_other_finds_it(self):
        self.registry.stuck.add(self.biggest)
        config = self.config(self.registry.host)
        first = self.background(config)
        self.assertTrue(self.registry.asked.wait(30 * SLOW))
        second = self.background(config)
        self.assertIn("waiting for another", second.stderr.readline())
        self.registry.go_on.set()
        done = [json.loads(p.communicate(timeout=60 * SLOW)[0]) for p in (first, second)]
        self.assertEqual(done[0], done[1])
        self.assertEqual(len([path for path in self.registry.requests if "/manifests/" in path]), 1)

    def test_when_the_first_of_two_is_killed_the_other_pulls(self):
        self.registry.stuck.add(self.biggest)
        config = self.config(self.registry.host)
        first = self.background(config)
        self.assertTrue(self.registry.asked.wait(30 * SLOW))
        second = self.background(config)
        self.assertIn("waiting for another", second.stderr.readline())
        self.registry.stuck.clear()
        first.kill()
        first.communicate()
        out, said = second.communicate(timeout=60 * SLOW)
        self.assertEqual(json.loads(out)["digest"], self.digest, said)
        self.assert_nothing_half_made()

    def test_what_works_for_a_server_that_is_killed_ends_with_it(self):
        self.registry.stuck.add(self.biggest)
        first = self.background(self.config(self.registry.host))
        self.assertTrue(self.registry.asked.wait(30 * SLOW))
        helpers = subprocess.run(["pgrep", "-P", str(first.pid)], capture_output=True, text=True).stdout.split()
        self.assertEqual(len(helpers), 1)
        first.kill()
        first.communicate()
        wait_for("skopeo has ended", lambda: not os.path.exists(f"/proc/{helpers[0]}/root/."))
        self.assertEqual(self.images(), [])
        self.made("gc")
        self.assert_nothing_half_made()


class Import(ImageCase):
    def test_each_form_is_recognised_and_has_the_same_files(self):
        layout, digest = self.layout(busybox_entries(), config=ABOUT)
        forms = {"an OCI layout": layout}
        for form, words in (("oci-archive", "an archive of an OCI layout"), ("docker-archive", "an archive of `docker save`")):
            forms[words] = self.place(form)
            skopeo("copy", f"oci:{layout}:latest", f"{form}:{forms[words]}:box:1")
        forms["a tar of a root file system"] = self.write("root.tar", tar_of(busybox_entries()))
        for words, path in forms.items():
            for packed in (False, True):
                if packed and os.path.isdir(path):
                    continue
                with self.subTest(words, packed=packed):
                    if packed:
                        with open(path, "rb") as file:
                            path = self.write("packed.gz", gzip.compress(file.read(), 1))
                    done = self.image("import", path, "--name", "mine")
                    self.assertEqual(done.returncode, 0, done.stderr)
                    self.assertIn(f"{path} is {words}", done.stderr)
                    image = json.loads(done.stdout)
                    self.assertIn("docker.io/library/mine:latest", image["names"])
                    if not words.startswith("a tar"):
                        self.assertEqual(image["user"], "app")
                    with self.files_of(image) as root:
                        self.assertEqual(sorted(os.listdir(f"{root}/bin"))[:2], ["busybox", "cat"])
                        self.assertEqual(os.stat(f"{root}/bin/busybox").st_size, os.stat("/bin/busybox").st_size)
        self.made("gc")  # all that the name was taken from
        self.assertEqual([i["names"] for i in self.images()], [["docker.io/library/mine:latest"]])

    def test_the_digest_of_a_tar_is_that_of_what_it_contains(self):
        data = tar_of(busybox_entries())
        plain = self.made("import", self.write("a.tar", data), "--name", "a")
        packed = self.made("import", self.write("b.tgz", gzip.compress(data, 9)), "--name", "b")
        self.assertEqual((packed["digest"], packed["layer"]), (plain["digest"], plain["layer"]))

    def test_layers_that_are_compressed_by_zstd_are_unpacked_too(self):
        layout, _ = self.layout(busybox_entries())
        path = self.place("zstd")
        skopeo("copy", "--dest-compress", "--dest-compress-format", "zstd", f"oci:{layout}:latest", f"oci:{path}:latest")
        with open(f"{path}/index.json") as file:
            digest = json.load(file)["manifests"][0]["digest"]
        image = self.made("import", path, "--name", "zstd")
        self.assertEqual(image["digest"], digest, "the image's own, whatever it was unpacked from")
        with self.files_of(image) as root:
            self.assertEqual(os.readlink(f"{root}/bin/sh"), "busybox")

    def test_a_path_with_a_colon_is_a_path(self):
        layout, _ = self.layout(busybox_entries(), "a:b:c")
        self.made("import", layout, "--name", "colon")

    def test_what_is_no_image_is_said(self):
        for name, data in (("text", b"hello\n"), ("empty", b""), ("packed", gzip.compress(b"hello")), ("broken.gz", b"\x1f\x8bnonsense")):
            with self.subTest(name):
                self.assertIn(self.place(name), self.refused("import", self.write(name, data), "--name", "x"))
        os.mkdir(self.place("folder"))
        for path in (self.place("folder"), self.place("none"), "/dev/null"):
            with self.subTest(path):
                self.assertIn(path, self.refused("import", path, "--name", "x"))

    def test_ls_shows_names_as_people_write_them(self):
        self.made("import", self.write("a.tar", tar_of(busybox_entries())), "--name", "mine:2")
        self.assertRegex(self.hutch("image", "ls").stdout, r"(?m)^mine:2 +[0-9a-f]{12} ")
        for name in ("mine:2", "library/mine:2", "docker.io/mine:2", "docker.io/library/mine:2"):
            self.assertEqual(self.made("pull", name)["names"], ["docker.io/library/mine:2"])

    def test_an_image_that_a_template_needs_is_not_removed(self):
        image = self.made("import", self.write("a.tar", tar_of(busybox_entries())), "--name", "mine")
        os.makedirs(f"{self.home}/templates", exist_ok=True)
        template = f"{self.home}/templates/needs.json"
        with open(template, "w") as file:
            json.dump({"name": "needs", "base": {"image": image["digest"], "layers": [image["layer"], "layer-1"]}}, file)
        try:
            said = self.image("rm", "mine")
            self.assertEqual(said.returncode, 125)
            self.assertIn("in use", said.stderr)
            self.made("gc")
            self.assertEqual(len(self.images()), 1)
        finally:
            os.unlink(template)

    def test_rm_of_what_is_not_here_names_what_is(self):
        self.made("import", self.write("a.tar", tar_of(busybox_entries())), "--name", "mine:3")
        said = self.refused("rm", "other")
        self.assertIn("'other'", said)
        self.assertIn("mine:3", said)

    def test_a_missing_program_is_named_with_its_package(self):
        path = self.write("a.tar", tar_of(busybox_entries()))
        programs = self.place("programs")
        os.mkdir(programs)
        said = self.hutch("image", "import", path, "--name", "x", env={**self.env(), "PATH": programs})
        self.assertEqual(said.returncode, 0, said.stderr)  # the usual folders are looked at too


class Build(ImageCase):
    def setUp(self):
        if not shutil.which("buildah"):
            self.skipTest("buildah is not installed")
        self.context = self.place("context")
        os.mkdir(self.context)
        shutil.copy("/bin/busybox", self.context)

    def dockerfile(self, *lines, name="Dockerfile"):
        with open(f"{self.context}/{name}", "w") as file:
            file.write("\n".join(("FROM scratch", "COPY busybox /bin/busybox", *lines, "")))
        return f"{self.context}/{name}"

    def test_a_dockerfile_becomes_an_image(self):
        self.dockerfile('RUN ["/bin/busybox", "sh", "-c", "echo made > /made"]', "ENV COLOUR=red", "USER 7:8", "WORKDIR /srv")
        image = self.made("build", self.context, "--name", "built:1")
        self.assertEqual((image["names"], image["user"], image["workdir"], image["env"]["COLOUR"]),
                         (["docker.io/library/built:1"], "7:8", "/srv", "red"))
        with self.files_of(image) as root, open(f"{root}/made") as file:
            self.assertEqual(file.read(), "made\n")

    def test_a_command_that_fails_fails_the_build_and_leaves_nothing(self):
        path = self.dockerfile('RUN ["/bin/busybox", "sh", "-c", "echo this is why; exit 3"]', name="Other")
        said = self.refused("build", self.context, "--file", path, "--name", "built")
        self.assertIn("this is why", said)

    @unittest.skipUnless(os.geteuid() == 0, "needs root")
    def test_what_a_build_started_ends_with_a_server_that_is_killed(self):
        self.dockerfile('RUN ["/bin/busybox", "sh", "-c", "echo begun; /bin/busybox sleep 1234567"]')
        process = subprocess.Popen([HUTCH, "image", "build", self.context, "--name", "built"], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, env=self.env())
        while "begun" not in (line := process.stderr.readline()):
            self.assertTrue(line, "the build ended")
        process.kill()
        process.communicate()
        leaks.wait_clean(self.before, self.home)
        self.made("gc")
        self.assert_nothing_half_made()


class Hostile(ImageCase):
    """What an image has in it reaches nothing outside of it."""

    def imported(self, entries, **options):
        return self.image("import", self.write("hostile.tar", tar_of(entries)), "--name", "hostile", **options)

    def unpacked(self, entries):
        done = self.imported(entries)
        self.assertEqual(done.returncode, 0, done.stderr)
        return self.files_of(json.loads(done.stdout))

    def test_names_that_lead_out_stay_inside(self):
        mark = f"/tmp/hutch-{os.getpid()}-escaped"
        self.addCleanup(lambda: os.path.exists(mark) and os.unlink(mark))
        out = "../" * 40
        for entries in ([entry(out + mark[1:], b"x")], [entry(mark, b"x")],
                        [link("way", "/tmp"), entry(f"way/{os.path.basename(mark)}", b"x")],
                        [link("way", out + "tmp"), entry(f"way/{os.path.basename(mark)}", b"x")]):
            with self.subTest(entries[-1][0].name):
                self.imported([*busybox_entries(), *entries])
                self.assertFalse(os.path.lexists(mark))
                self.assert_nothing_half_made()

    def test_an_archive_of_a_layout_writes_nothing_outside(self):
        layout, _ = self.layout(busybox_entries())
        mark = f"/tmp/hutch-{os.getpid()}-escaped"
        self.addCleanup(lambda: os.path.exists(mark) and os.unlink(mark))
        archive = self.place("evil.tar")
        with tarfile.open(archive, "w") as tar:
            for name in ("oci-layout", "index.json", "blobs"):
                tar.add(os.path.join(layout, name), name)
            for info, content in (entry("../" * 40 + mark[1:], b"x"), link("way", "/tmp"), entry(f"way/{os.path.basename(mark)}", b"x")):
                tar.addfile(info, io.BytesIO(content or b""))
        self.image("import", archive, "--name", "x")
        self.assertFalse(os.path.lexists(mark))
        self.assert_nothing_half_made()

    def test_a_hard_link_out_gives_nothing_of_the_host(self):
        secret = self.write("secret", b"a secret of the host")
        done = self.imported([*busybox_entries(), link("stolen", secret, tarfile.LNKTYPE),
                              link("stolen-too", "../" * 40 + secret[1:], tarfile.LNKTYPE)])
        self.assertEqual(os.stat(secret).st_nlink, 1)
        if done.returncode == 0:
            with self.files_of(json.loads(done.stdout)) as root:
                self.assertFalse(os.path.exists(f"{root}/stolen"))
        self.assert_nothing_half_made()

    def test_a_link_in_the_place_of_a_folder_that_is_made_leads_nowhere(self):
        target = self.place("outside")
        os.mkdir(target)
        with self.unpacked([link("etc", target), link("proc", target), link("dev", target), link("run", target),
                            entry("sys", b"a file"), link("workspace", target), folder("bin")]) as root:
            for name in ("proc", "sys", "dev", "run"):
                self.assertTrue(stat.S_ISDIR(os.lstat(f"{root}/{name}").st_mode), name)
        self.assertEqual(os.listdir(target), [])

    def test_files_of_etc_that_are_links_are_replaced_and_not_followed(self):
        victim = self.write("victim", b"untouched")
        with self.unpacked([folder("usr"), folder("usr/etc"), link("etc", "/usr/etc"), link("usr/etc/hosts", victim),
                            link("usr/etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf"), folder("usr/etc/hostname")]) as root:
            self.assertTrue(stat.S_ISREG(os.lstat(f"{root}/usr/etc/hosts").st_mode))
            self.assertTrue(stat.S_ISREG(os.lstat(f"{root}/usr/etc/resolv.conf").st_mode))
        with open(victim) as file:
            self.assertEqual(file.read(), "untouched")

    @unittest.skipUnless(os.geteuid() == 0, "needs root")
    def test_device_nodes_are_removed_and_set_user_id_bits_stay_without_effect_on_the_host(self):
        with self.unpacked([*busybox_entries(), entry("disk", kind=tarfile.BLKTYPE, devmajor=7, devminor=0),
                            entry("bin/mem", kind=tarfile.CHRTYPE, devmajor=1, devminor=1),
                            entry("bin/root", b"#!/bin/sh\n", mode=0o4755)]) as root:
            self.assertFalse(os.path.lexists(f"{root}/disk"))
            self.assertFalse(os.path.lexists(f"{root}/bin/mem"))
            self.assertEqual(stat.S_IMODE(os.stat(f"{root}/bin/root").st_mode), 0o4755)

    @unittest.skipUnless(os.geteuid() == 0, "needs root")
    def test_attributes_that_speak_to_an_overlay_are_removed(self):
        speaks = {"SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.user.mine": "kept"}
        with self.unpacked([*busybox_entries(), folder("way", pax_headers=speaks)]) as root:
            self.assertEqual([a for a in os.listxattr(f"{root}/way") if "overlay" in a], [])
            self.assertIn("user.mine", os.listxattr(f"{root}/way"))

    def test_of_two_files_of_one_name_the_later_one_counts(self):
        with self.unpacked([*busybox_entries(), entry("twice", b"first"), entry("twice", b"second")]) as root:
            with open(f"{root}/twice") as file:
                self.assertEqual(file.read(), "second")

    def test_a_sparse_file_of_10_gb_is_cut_off_or_refused(self):
        name = self.place("sparse")
        with open(name, "wb") as file:
            file.truncate(10 << 30)
        for form, cause in (("posix", "images.max_size"), ("gnu", "unknown typeflag")):
            archive = self.place(form + ".tar")
            subprocess.run(["tar", "-C", os.path.dirname(name), "--format", form, "--sparse", "-cf", archive, os.path.basename(name)],
                           check=True, timeout=60 * SLOW)
            with self.subTest(form):
                said = self.refused("import", archive, "--name", "x", config=self.config(max_size="32m"))
                self.assertIn(cause, said)
        os.unlink(name)

    def test_an_archive_that_grows_when_it_is_unpacked_is_cut_off(self):
        bomb = self.write("bomb.gz", gzip.compress(bytes(300 << 20), 1))
        self.assertIn("images.max_size", self.refused("import", bomb, "--name", "x", config=self.config(max_size="32m")))

    def test_a_layer_that_grows_when_it_is_unpacked_is_cut_off(self):
        path = self.place("layout")
        oci_layout(path, [tar_of([entry("zeros", bytes(100 << 20))])], compress=True)
        self.assertIn("images.max_size", self.refused("import", path, "--name", "x", config=self.config(max_size="32m")))

    def test_an_image_that_just_does_not_fit_is_none(self):
        # The files fit; what is added to them may not.
        data = tar_of([*busybox_entries(), *(entry(f"f{i}", b"") for i in range(4200))])
        done = self.image("import", self.write("many.tar", data), "--name", "x", config=self.config(max_size="32m"))
        if done.returncode != 0:
            self.assertIn("images.max_size", done.stderr)
        self.assert_nothing_half_made()

    def test_a_manifest_that_is_no_good_is_an_error(self):
        for number, text in enumerate(("", "[]", "{}", "[" * 100_000, '{"manifests": [{}]}', '{"manifests": [{"digest": "sha256:../../x"}]}',
                                       '{"schemaVersion": 2, "manifests": []}')):
            with self.subTest(text[:40]):
                path, _ = self.layout(busybox_entries(), f"layout{number}")
                with open(f"{path}/index.json", "w") as file:
                    file.write(text)
                self.assertIn("importing", self.refused("import", path, "--name", "x"))


@unittest.skipUnless(os.geteuid() == 0 and shutil.which("setpriv"), "changes the user")
class AsAnOrdinaryUser(ImageCase):
    USER = 65533

    def setUp(self):
        # The build folder may be out of that user's reach.
        os.chmod(self.work, 0o711)
        self.program = self.place("hutch")
        shutil.copy(HUTCH, self.program)
        os.chmod(self.program, 0o755)
        self.own_home = self.place("home")
        os.mkdir(self.own_home)
        os.chown(self.own_home, self.USER, self.USER)

    def as_user(self, *words):
        done = subprocess.run(["setpriv", "--reuid", str(self.USER), "--regid", str(self.USER), "--clear-groups", self.program, "image",
                               "--json", *words], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60 * SLOW,
                              env={**self.env(), "HOME": self.own_home, "HUTCH_HOME": self.own_home})
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def test_an_image_with_folders_that_nobody_may_write_to_is_made_and_removed(self):
        closed = [folder(".", mode=0o555), folder("bin", mode=0o555), folder("etc", mode=0o555), folder("secret", mode=0, uid=33)]
        path = self.write("closed.tar", tar_of([*closed, *(e for e in busybox_entries() if not e[0].isdir())]))
        image = self.as_user("import", path, "--name", "closed")
        layer = f"{self.own_home}/layers/{image['layer']}"
        self.assertEqual(stat.S_IMODE(os.stat(f"{layer}/files/root").st_mode), 0o555)
        self.assertTrue(os.path.isdir(f"{layer}/files/root/workspace"))
        with open(f"{layer}/files/root/etc/hosts") as file:
            self.assertIn("localhost", file.read())
        self.as_user("rm", "closed")
        self.assertFalse(os.path.exists(layer))


NEEDED_TO_BUILD = ("setpriv", "unshare", "buildah", "newuidmap")


@unittest.skipUnless(os.geteuid() == 0 and all(map(shutil.which, NEEDED_TO_BUILD)), "changes the user, who builds")
class BuildAsAnOrdinaryUser(ImageCase):
    USER = 65533
    BUSYBOX = "/bin/busybox"

    def setUp(self):
        os.chmod(self.work, 0o711)
        self.program = self.place("hutch")
        shutil.copy(HUTCH, self.program)
        os.chmod(self.program, 0o755)
        self.own_home, self.context = self.place("home"), self.place("context")
        for path in (self.own_home, self.context):
            os.mkdir(path)
        os.chown(self.own_home, self.USER, self.USER)
        shutil.copy(self.BUSYBOX, self.context)

    def run_as_user(self, *words, is_known=True, ids=65536):
        """By a user of an /etc/passwd of the test's own, to whom /etc/subuid gives so many ids."""
        with open("/etc/passwd") as file:
            users = file.read() + (f"tester:x:{self.USER}:{self.USER}::{self.own_home}:/bin/sh\n" if is_known else "")
        given = f"tester:200000:{ids}\n" if ids else ""
        files = [self.write("passwd", users.encode()), self.write("ids", given.encode())]
        for path in ("/etc/subuid", "/etc/subgid"):
            if not os.path.exists(path):
                self.skipTest(f"there is no {path}")
        for path in files:
            os.chmod(path, 0o644)
        script = 'mount --bind "$1" /etc/passwd && mount --bind "$2" /etc/subuid && mount --bind "$2" /etc/subgid && shift 2 && exec "$@"'
        return subprocess.run(["unshare", "--mount", "sh", "-c", script, "sh", *files, "setpriv", "--reuid", str(self.USER), "--regid",
                               str(self.USER), "--clear-groups", self.program, *words], capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=120 * SLOW, cwd="/",
                              env={**self.env(), "HOME": self.own_home, "HUTCH_HOME": self.own_home})

    def build(self, *lines, kind="image", **options):
        with open(f"{self.context}/Dockerfile", "w") as file:
            file.write("\n".join(("FROM scratch", "COPY busybox /bin/busybox", *lines, "")))
        done = self.run_as_user(kind, "build", "--name", "built", "--json", self.context, **options)
        left = [name for name in os.listdir(f"{self.own_home}/images") if name.startswith(".work")]
        self.assertEqual(left, [], done.stderr)
        return done

    def refused_build(self, *lines, **options):
        done = self.build(*lines, **options)
        self.assertEqual((done.returncode, done.stdout), (125, ""), done.stderr)
        self.assertEqual(os.listdir(f"{self.own_home}/layers") if os.path.exists(f"{self.own_home}/layers") else [], [])
        return done.stderr

    def test_commands_run_and_owners_are_given_with_ids_of_its_own(self):
        made = ("mkdir /closed", "touch /closed/made", "chown -R 33:44 /closed", "chmod 700 /closed")
        commands = ["RUN " + json.dumps([self.BUSYBOX, *one.split()]) for one in made]
        done = self.build(*commands, "ENV COLOUR=red")
        self.assertEqual(done.returncode, 0, done.stderr)
        image = json.loads(done.stdout)
        self.assertEqual(image["env"]["COLOUR"], "red")
        self.assertEqual(os.listdir(f"{self.own_home}/layers/{image['layer']}/files/root/closed"), ["made"])
        done = self.build(*commands, kind="template")
        self.assertEqual(done.returncode, 0, done.stderr)
        done = self.run_as_user("template", "ls", "--json")
        self.assertEqual([one["name"] for one in json.loads(done.stdout)["templates"]], ["built"])

    def test_a_command_that_fails_is_said_as_such(self):
        said = self.refused_build('RUN ["/bin/busybox", "sh", "-c", "echo this is why; exit 3"]')
        self.assertIn("this is why", said)
        self.assertNotIn("subuid", said)

    def test_without_ids_files_are_taken_and_commands_and_owners_are_refused_with_what_is_missing(self):
        done = self.build("ENV COLOUR=red", ids=0)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.run_as_user("image", "rm", "built").returncode, 0)
        for line in ('RUN ["/bin/busybox", "true"]', "COPY --chown=33:44 busybox /other"):
            with self.subTest(line):
                self.assertIn("usermod --add-subuids", self.refused_build(line, ids=0))

    def test_a_user_that_the_host_does_not_know_is_refused_with_what_is_missing(self):
        self.assertIn("/etc/passwd names", self.refused_build(is_known=False))


class Killed(ImageCase):
    """kill -9 at any point of a pull or an import: an image is there as a whole or not at all."""

    def run_until(self, when, step, words):
        report = self.place("steps")
        # LeakSanitizer cannot work in a traced process.
        done = subprocess.run([KILL_AT, when, "--report", report, str(step), "", "--", HUTCH, "image", *words], capture_output=True,
                              timeout=60 * SLOW, env={**self.env(), "ASAN_OPTIONS": "detect_leaks=0"}, stdin=subprocess.DEVNULL)
        with open(report) as file:
            return done.returncode, file.read().splitlines()

    def test_at_any_step_nothing_half_made_is_seen_and_the_next_one_brings_it(self):
        words = ("import", self.write("a.tgz", gzip.compress(tar_of(busybox_entries()), 1)), "--name", "mine")
        self.assertEqual(self.run_until("--list", 0, words)[0], 0)
        self.made("rm", "mine")
        kept = contents(self.home)
        status, steps = self.run_until("--list", 0, words)
        self.assertEqual(status, 0)
        self.made("rm", "mine")
        wanted = 200 if os.environ.get("HUTCHTEST_LONG") else 4 if os.environ.get("HUTCHTEST_SHORT") else 12
        self.assertGreater(len(steps), 20)
        reached = 0
        for i in range(wanted):
            step = 1 + i * len(steps) // wanted
            with self.subTest(step=step, line=steps[step - 1]):
                status, _ = self.run_until("--before" if i % 2 else "--after", step, words)
                reached += status == REACHED
                for image in self.images():
                    with self.files_of(image) as root:
                        self.assertEqual(os.stat(f"{root}/bin/busybox").st_size, os.stat("/bin/busybox").st_size)
                self.made("gc")
                self.assert_nothing_half_made()
                self.assertEqual(len(self.made(*words)["names"]), 1)
                self.made("rm", "mine")
                self.assertEqual(contents(self.home), kept)
                leaks.wait_clean(self.before, self.home)
        self.assertGreater(reached, wanted // 2)
