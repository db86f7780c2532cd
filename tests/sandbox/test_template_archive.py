"""hutch template export and import: all that a template has comes back, and nothing of an archive that lies."""
import contextlib
import glob
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import unittest

from sandbox_case import HUTCH, SLOW, HutchCase, leaks, wait_for
from template_archive import END, ROOT, archive, digest, entry, facts_of, folder, header, make_tree, padded, pax, seeded

sys.path.insert(0, os.path.dirname(__file__))
from test_templates import TemplateCase  # noqa: E402

AS_ROOT = os.geteuid() == 0
USER = 65533
KILL_AT = os.path.join(os.path.dirname(HUTCH), "../tests/support/kill_at")
COUNT = 1_000 if os.environ.get("HUTCHTEST_SHORT") else 10_000


def as_user(*command):
    return ["setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups", "--", *map(str, command)]


class ArchiveCase(HutchCase):
    reserve = 0

    @classmethod
    def env(cls, **extra):
        return super().env(HUTCH_LIMITS__DISK_RESERVE=cls.reserve, HUTCH_LIMITS__DISK_RESERVE_PERCENT=0, **extra)

    def setUp(self):
        self.scratch = tempfile.mkdtemp(prefix="hutch-test-")
        self.addCleanup(shutil.rmtree, self.scratch, ignore_errors=True)
        self.here = self.new_home()  # each test's own

    def path(self, name):
        return os.path.join(self.scratch, name)

    def new_home(self, owner=0):
        home = tempfile.mkdtemp(prefix="hutch-test-")
        self.addCleanup(shutil.rmtree, home, ignore_errors=True)
        os.chown(home, owner, owner) if owner else None
        return home

    def template(self, *args, home=None, under=(), user=None, timeout=120, **options):
        home = home or self.here
        env = {**self.env(), "HOME": home, "HUTCH_HOME": home}
        command = [*under, HUTCH, "template", *map(str, args)]
        if "input" not in options:
            options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run(as_user(*command) if user else command, capture_output=True, timeout=timeout * SLOW, env=env, **options)

    def ok(self, *args, **options):
        done = self.template(*args, **options)
        self.assertEqual(done.returncode, 0, done.stderr.decode(errors="replace"))
        return done.stdout

    def refused(self, *args, **options):
        done = self.template(*args, **options)
        self.assertEqual(done.returncode, 125, (done.stdout[:500], done.stderr[-500:]))
        return done.stderr.decode(errors="replace")

    def names(self, home=None):
        return [one["name"] for one in json.loads(self.ok("ls", "--json", home=home))["templates"]]

    def assert_nothing_kept(self, home):
        self.assertEqual(self.names(home), [])
        self.assertEqual(os.listdir(home + "/layers") if os.path.exists(home + "/layers") else [], [])

    def assert_nothing_there(self):
        self.assert_nothing_kept(self.here)
        self.assert_nothing_runs()

    def assert_nothing_runs(self, home=None):
        leaks.wait_clean(self.before, self.home)
        wait_for("no loop device is left", lambda: not leaks.loops(home or self.here))

    def write(self, name, content):
        with open(self.path(name), "wb") as file:
            file.write(content)
        return self.path(name)

    def layer_by_hand(self, home, fill, name="made", first_id=0):
        """A template of one layer in a plain folder, which `fill` is given."""
        layer = home + "/layers/layer-by-hand"
        os.makedirs(layer + "/files/root")
        os.makedirs(layer + "/files/root%2Fhome")
        fill(layer + "/files")
        with open(layer + "/manifest.json", "w") as file:
            json.dump({"id": "layer-by-hand", "first_id": first_id, "views": ["root", "root%2Fhome"]}, file)
        os.makedirs(home + "/templates")
        with open(f"{home}/templates/{name}.json", "w") as file:
            json.dump({"name": name, "description": "by hand", "created_at": 1_700_000_000, "parent": "before",
                       "base": {"layers": ["layer-by-hand"], "workdir": "/srv", "env": {"A": "b"}}}, file)
        return layer + "/files"

    @contextlib.contextmanager
    def files_of(self, home, name="made", which=-1):
        """Where the files of a template's layer can be seen."""
        about = json.loads(open(f"{home}/templates/{name}.json").read())
        layer = f"{home}/layers/{about['base']['layers'][which]}"
        if os.path.exists(layer + "/files"):
            yield layer + "/files"
            return
        at = tempfile.mkdtemp(prefix="hutch-test-", dir=self.scratch)
        subprocess.run(["mount", "-o", "ro,loop", layer + "/disk", at], check=True, timeout=60)
        try:
            yield at
        finally:
            subprocess.run(["umount", at], check=True, timeout=60)


@unittest.skipUnless(AS_ROOT, "makes owners and marks that only root can")
class EveryKindOfFile(ArchiveCase):
    def tree(self, home, count=COUNT, first_id=0):
        seed, rng = seeded()
        print(f"     seed {seed}", flush=True)

        def fill(files):
            for view in ("root", "root%2Fhome"):
                make_tree(f"{files}/{view}", count // 2, rng)
            deep = files + "/root"
            here = os.open(deep, os.O_RDONLY)
            for _ in range(30):  # longer than PATH_MAX together
                os.mkdir("d" * 200, dir_fd=here)
                below = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
                os.close(here)
                here = below
            os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, dir_fd=here))
            os.close(here)
        return self.layer_by_hand(home, fill, first_id=first_id)

    def assert_same(self, found, wanted):
        self.assertEqual(found.keys() ^ wanted.keys(), set())
        for key, facts in wanted.items():
            self.assertEqual(found[key][:-1], facts[:-1], key)
            if facts[-1]:
                self.assertEqual(found[key][-1][0], facts[-1][0], key)

    def test_a_tree_of_ten_thousand_comes_back_byte_by_byte(self):
        home, there, back = self.new_home(), self.new_home(), self.new_home()
        wanted = facts_of(self.tree(home))
        self.assertGreater(len(wanted), COUNT)
        wanted.pop(b".")
        self.ok("export", "made", self.path("a.tar"), home=home)
        imported = json.loads(self.ok("import", self.path("a.tar"), "--json", home=there))
        self.assertEqual((imported["owners_lost"], imported["attributes_dropped"], imported["parent"], imported["description"]),
                         (0, 0, "before", "by hand"))
        with self.files_of(there) as files:
            found = facts_of(files)
            self.assertIn(b"root%2Fhome", found)
            for more in (b".", b"lost+found"):
                found.pop(more, None)
            self.assert_same(found, wanted)
            sparse = {key: facts[-1][1] for key, facts in found.items() if facts[-1] and facts[-1][0] >= 1 << 24}
            self.assertGreater(len(sparse), COUNT // 100)
            self.assertLess(max(sparse.values()), 1 << 20, sparse)
        # And from there again, compressed, through a pipe.
        self.ok("export", "made", self.path("b.tar.zst"), home=there)
        self.ok("import", self.path("b.tar.zst"), home=back)
        again = self.ok("export", "made", "-", home=back)
        digests = [json.load(tarfile.open(fileobj=f).extractfile("hutch-digests.json"))["layers"]
                   for f in (open(self.path("a.tar"), "rb"), io.BytesIO(again))]
        self.assertEqual(digests[0], digests[1])

    def test_owners_are_those_inside_wherever_the_layer_has_them(self):
        home, there = self.new_home(), self.new_home()

        def fill(files):
            for name, owner in (("root/a", 1_900_000_000), ("root/b", 1_900_000_033), ("root/c", 5)):
                open(f"{files}/{name}", "w").close()
                os.chown(f"{files}/{name}", owner, owner)
        self.layer_by_hand(home, fill, first_id=1_900_000_000)
        self.ok("export", "made", self.path("a.tar"), home=home)
        self.ok("import", self.path("a.tar"), home=there)
        with self.files_of(there) as files:
            self.assertEqual([os.lstat(f"{files}/root/{n}").st_uid for n in "abc"], [0, 33, 65534])

    def test_other_programs_can_read_it(self):
        home = self.new_home()

        def fill(files):
            with open(files + "/root/sparse", "wb") as file:
                file.seek(1 << 20)
                file.write(b"end")
            os.symlink("sparse", files + "/root/" + "s" * 150)
        self.layer_by_hand(home, fill)
        self.ok("export", "made", self.path("a.tgz"), home=home)
        os.mkdir(self.path("out"))
        subprocess.run(["tar", "xzf", self.path("a.tgz"), "-C", self.path("out")], check=True, timeout=60)
        with open(self.path("out/layers/0/root/sparse"), "rb") as file:
            self.assertEqual(file.read(), b"\0" * (1 << 20) + b"end")
        self.assertEqual(os.readlink(self.path("out/layers/0/root/" + "s" * 150)), "sparse")
        self.assertEqual(json.load(open(self.path("out/hutch-template.json")))["template"]["name"], "made")

    def test_all_layers_come_and_get_names_of_their_own(self):
        home = self.new_home()
        parts = [folder(b"layers/%d/root" % i) + entry(b"layers/%d/root/f" % i, b"%d" % i) for i in range(3)]
        self.ok("import", self.write("a.tar", archive(*parts)), home=home)
        self.ok("import", self.write("a.tar", archive(*parts)), "--name", "twice", home=home)
        layers = [json.load(open(f"{home}/templates/{name}.json"))["base"]["layers"] for name in ("made", "twice")]
        self.assertEqual(len({*layers[0], *layers[1]}), 6)
        for i in range(3):
            with self.files_of(home, "twice", i) as files:
                self.assertEqual(open(files + "/root/f").read(), str(i))


class FromSandboxToSandbox(TemplateCase):
    def test_all_of_a_sandbox_is_there_after_template_export_import_and_create(self):
        archived = os.path.join(self.data_folder(), "every.tar.zst")
        first = self.create()
        self.make(first, COUNT)
        self.ok("sandbox_create_template", sandbox_id=first, name="first")
        box = self.create(template="first")
        self.sh("cd tree; rm -r d1 d2/s0; mkdir d1; echo new > d1/new; rm hard/b", sandbox_id=box)
        before = self.facts(box)
        self.ok("sandbox_create_template", sandbox_id=box, name="every", description="of every kind")
        done = self.hutch("template", "export", "every", archived, "--json")
        self.assertEqual((done.returncode, json.loads(done.stdout)["left_out"]), (0, 0), done.stderr)
        self.destroy(box, first)
        done = self.hutch("template", "import", archived, "--name", "came", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        about = json.loads(done.stdout)
        self.assertEqual((about["description"], about["parent"], len(about["layers"]), about["attributes_dropped"]),
                         ("of every kind", "first", 2, 0))
        copy = self.create(template="came")
        self.assertEqual(self.facts(copy), before)
        self.assertEqual(self.sh("ls tree/d1; tool; ls /usr/share/base-files /etc/shells 2>&1 || true", sandbox_id=copy).splitlines(),
                         ["new", "a tool", "ls: cannot access '/etc/shells': No such file or directory", "/usr/share/base-files:", "only"])
        self.destroy(copy)

    def test_one_that_sandboxes_use_is_not_removed(self):
        box = self.create()
        self.ok("sandbox_create_template", sandbox_id=box, name="used")
        user = self.create(template="used")
        done = self.hutch("template", "rm", "used")
        self.assertEqual(done.returncode, 125)
        self.assertIn(user, done.stderr)
        self.destroy(user, box)


class ThroughAKill(TemplateCase):
    def restart(self):
        self.client.kill(signal.SIGKILL)
        self.client.wait()
        self.client.close()
        type(self).client = self.server("--results", self.results, env=self.server_settings, revision=self.revision)

    def test_all_of_a_sandbox_is_there_though_the_server_was_killed_right_after_the_save(self):
        archived = os.path.join(self.data_folder(), "every.tar.zst")
        box = self.create()
        self.make(box, COUNT)
        before = self.facts(box)
        self.assertGreater(int(before.split()[-1]), COUNT)
        self.ok("sandbox_create_template", sandbox_id=box, name="every")
        self.restart()
        self.assertEqual(self.facts(self.create(template="every")), before)
        for words in (("export", "every", archived), ("import", archived, "--name", "came")):
            done = self.hutch("template", *words)
            self.assertEqual(done.returncode, 0, done.stderr)
        self.restart()
        self.assertEqual(self.facts(self.create(template="came")), before)
        self.assertEqual(self.facts(box), before)
        self.ok("sandbox_destroy", sandbox_id="*", confirm=True)  # what is taken up and not used outlives its server


@unittest.skipUnless(AS_ROOT and shutil.which("setpriv"), "changes the user")
class BetweenRootAndUsers(ArchiveCase):
    def fill(self, files, opaque):
        root = files + "/root"
        os.mkdir(root + "/opaque")
        os.setxattr(root + "/opaque", opaque, b"y")
        os.mknod(root + "/gone", 0o020000, os.makedev(0, 0))
        with open(root + "/secret", "w") as file:
            file.write("nobody may read it")
        os.setxattr(root + "/secret", "user.a", b"1")
        os.chmod(root + "/secret", 0)

    def facts(self, files):
        root = files + "/root"
        return (os.listxattr(root + "/opaque"), os.lstat(root + "/gone").st_rdev, os.lstat(root + "/gone").st_mode & 0o170000,
                os.getxattr(root + "/secret", "user.a"), os.lstat(root + "/secret").st_mode & 0o7777)

    def test_what_root_made_a_user_can_have(self):
        home, there = self.new_home(), self.new_home(USER)
        files = self.layer_by_hand(home, lambda f: self.fill(f, "trusted.overlay.opaque"))
        os.chown(files + "/root/secret", 33, 33)
        self.ok("export", "made", self.path("a.tar"), home=home)
        os.chmod(self.scratch, 0o755)
        os.chmod(self.path("a.tar"), 0o644)
        done = json.loads(self.ok("import", self.path("a.tar"), "--json", home=there, user=True))
        self.assertEqual(done["owners_lost"], 1)
        with self.files_of(there) as files:
            self.assertEqual(self.facts(files), (["user.overlay.opaque"], 0, 0o020000, b"1", 0))
            self.assertEqual({os.lstat(path).st_uid for path in glob.glob(files + "/root/*")}, {USER})

    def test_what_a_user_made_root_can_have(self):
        home, there = self.new_home(), self.new_home()
        self.layer_by_hand(home, lambda f: self.fill(f, "user.overlay.opaque"))
        subprocess.run(["chown", "-Rh", f"{USER}:{USER}", home], check=True, timeout=60)
        archived = self.ok("export", "made", "-", home=home, user=True)
        self.ok("import", self.write("a.tar", archived), home=there)
        with self.files_of(there) as files:
            self.assertEqual(self.facts(files), (["trusted.overlay.opaque"], 0, 0o020000, b"1", 0))
            self.assertEqual(os.lstat(files + "/root/secret").st_uid, 0)

    def test_marks_that_only_look_like_marks_stay_behind(self):
        home, there = self.new_home(), self.new_home(USER)

        def fill(files):  # as root inside can: in root's overlays these are attributes like any other
            os.setxattr(files + "/root", "user.overlay.opaque", b"y")
            os.setxattr(files + "/root", "user.overlay.redirect", b"/etc")
        self.layer_by_hand(home, fill)
        self.ok("export", "made", self.path("a.tar"), home=home)
        os.chmod(self.scratch, 0o755)
        os.chmod(self.path("a.tar"), 0o644)
        self.ok("import", self.path("a.tar"), home=there, user=True)
        with self.files_of(there) as files:
            self.assertEqual(os.listxattr(files + "/root"), [])


def in_root(*entries):
    return ROOT + b"".join(entries)


def sparse(numbers, size, data=b"", name=b"layers/0/root/s"):
    return entry(b"GNUSparseFile.0/s", padded(b"".join(b"%d\n" % n for n in numbers)) + data,
                 [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", name),
                  (b"GNU.sparse.realsize", b"%d" % size)])


CANARY = b"/etc/hutch-canary"
LINK = entry(b"layers/0/root/link", kind=b"2", link=b"/tmp")
# What is wrong, the layer's part, and what is said about it.
BAD_LAYERS = [
    ("a name that goes up", in_root(entry(b"layers/0/root/../../x")), "no path of plain names"),
    ("a name that goes up at its end", in_root(folder(b"layers/0/root/..")), "no path of plain names"),
    ("a name with a dot", in_root(entry(b"layers/0/root/./x")), "no path of plain names"),
    ("an empty name in the middle", in_root(entry(b"layers/0/root//x")), "no path of plain names"),
    ("an absolute name", in_root(entry(CANARY)), "is in no layer"),
    ("a name in no layer", in_root(entry(b"layers/x/root/x")), "is in no layer"),
    ("a layer written in another way", in_root(entry(b"layers/00/root/x")), "is in no layer"),
    ("a layer that is not declared", in_root(entry(b"layers/1/root/x")), "not in order"),
    ("a file through an absolute link", in_root(LINK, entry(b"layers/0/root/link/hutch-canary")), "Too many levels of symbolic links"),
    ("a file through a relative link", in_root(entry(b"layers/0/root/link", kind=b"2", link=b"../../.."),
                                              entry(b"layers/0/root/link/hutch-canary")), "Too many levels of symbolic links"),
    ("a file instead of a link", in_root(LINK, entry(b"layers/0/root/link", b"x")), "twice"),
    ("a folder instead of a link", in_root(LINK, folder(b"layers/0/root/link")), "twice"),
    ("a hard link to the host", in_root(entry(b"layers/0/root/x", kind=b"1", link=b"/etc/passwd")), "outside of the layer"),
    ("a hard link that goes up", in_root(entry(b"layers/0/root/x", kind=b"1", link=b"layers/0/../../etc/passwd")),
     "no path of plain names"),
    ("a hard link through a link", in_root(LINK, entry(b"layers/0/root/x", kind=b"1", link=b"layers/0/root/link/x")),
     "Too many levels of symbolic links"),
    ("a hard link to another layer", in_root(entry(b"layers/0/root/x", kind=b"1", link=b"layers/1/root/x")), "outside of the layer"),
    ("a hard link to nothing", in_root(entry(b"layers/0/root/x", kind=b"1", link=b"layers/0/root/y")), "No such file"),
    ("a disk", in_root(entry(b"layers/0/root/sda", kind=b"4", major=8)), "it is a device"),
    ("a device", in_root(entry(b"layers/0/root/null", kind=b"3", major=1, minor=3)), "it is a device"),
    ("a file without its folder", in_root(entry(b"layers/0/root/no/x")), "No such file"),
    ("a file in a file", in_root(entry(b"layers/0/root/f"), entry(b"layers/0/root/f/x")), "Not a directory"),
    ("a file twice", in_root(entry(b"layers/0/root/f"), entry(b"layers/0/root/f")), "twice"),
    ("a folder twice", in_root(folder(b"layers/0/root/f"), folder(b"layers/0/root/f")), "twice"),
    ("a tree that is a file", entry(b"layers/0/root"), "no such tree"),
    ("a tree that is a link", entry(b"layers/0/root", kind=b"2", link=b"/"), "no such tree"),
    ("a tree of the kernel's", folder(b"layers/0/root.work"), "no such tree"),
    ("a tree of another name", folder(b"layers/0/etc"), "no such tree"),
    ("an owner of nobody's", in_root(entry(b"layers/0/root/x", uid=70_000)), "does not exist in sandboxes"),
    ("a huge owner", in_root(entry(b"layers/0/root/x", records=[(b"uid", b"9" * 18)])), "does not exist in sandboxes"),
    ("a long name", in_root(entry(b"x", records=[(b"path", b"layers/0/root/" + b"n" * 300)])), "too long"),
    ("a name of 1 MB", in_root(entry(b"x", records=[(b"path", b"layers/0/root/" + b"n" * (1 << 20))])), "bytes of name"),
    ("a name with a zero", in_root(entry(b"x", records=[(b"path", b"layers/0/root/x\0y")])), "zero"),
    ("content of a folder", in_root(entry(b"layers/0/root/f", b"x", kind=b"5")), "content of what is no file"),
    ("an entry of GNU's", in_root(entry(b"././@LongLink", b"x", kind=b"L")), "does not write"),
    ("a global header", in_root(header(b"g", b"g", 0)), "does not write"),
    ("two headers for one entry", in_root(pax([(b"a", b"b")]), pax([(b"a", b"b")]), entry(b"layers/0/root/x")), "two pax"),
    ("a record twice", in_root(entry(b"x", records=[(b"path", b"a"), (b"path", b"b")])), "twice"),
    ("a record that is too long", in_root(entry(b"x", records=b"99 path=x\n")), "another length"),
    ("a record that is too short", in_root(entry(b"x", records=b"3 path=layers/0/root/x\n")), "another length"),
    ("a record of length 0", in_root(entry(b"x", records=b"0 a=b\n")), "another length"),
    ("a record without a length", in_root(entry(b"x", records=b"path=x\n")), "lengths"),
    ("a size that no file has", in_root(header(b"layers/0/root/x", size=0)[:124] + b"z" * 12), "no header|no number"),
    ("a size beyond all", in_root(entry(b"layers/0/root/x", records=[(b"size", b"9" * 19)])), "no file has"),
    ("a size that is no number", in_root(entry(b"layers/0/root/x", records=[(b"size", b"-1")])), "no number"),
    ("a time that is no number", in_root(entry(b"layers/0/root/x", records=[(b"mtime", b"now")])), "no number"),
    ("a wrong checksum", in_root(header(b"layers/0/root/x")[:-1] + b"x"), "no header"),
    ("another format", in_root(header(b"layers/0/root/x", magic=b"\0" * 8)), "no header"),
    ("pieces out of order", in_root(sparse([2, 4096, 512, 0, 512], 8192, b"x" * 1024)), "cannot be"),
    ("pieces over each other", in_root(sparse([2, 0, 512, 256, 512], 8192, b"x" * 1024)), "cannot be"),
    ("a piece beyond the end", in_root(sparse([1, 8000, 512], 8192, b"x" * 512)), "cannot be"),
    ("a piece that wraps", in_root(sparse([1, 512, (1 << 64) - 1], 8192, b"x" * 512)), "cannot be"),
    ("more pieces than data", in_root(sparse([1, 0, 1024], 8192, b"x" * 512)), "more or less data"),
    ("less pieces than data", in_root(sparse([1, 0, 512], 8192, b"x" * 1024)), "more or less data"),
    ("too many pieces", in_root(sparse([1 << 40], 8192)), "too many pieces"),
    ("a map without an end", in_root(sparse([3, 0, 1], 8192)), "without a map"),
    ("a sparse file larger than any", in_root(sparse([0], 1 << 60)), "too large|no file has"),
    ("an attribute that is no name", in_root(entry(b"layers/0/root/x", records=[(b"SCHILY.xattr.user." + b"n" * 300, b"")])),
     "setxattr"),
]


class BadArchives(ArchiveCase):
    def check(self, what, content, reason, name="bad.tar", **options):
        with self.subTest(what):
            said = self.refused("import", self.write(name, content), **options)
            self.assertRegex(said, reason)
            self.assertNotIn("internal error", said)
            self.assert_nothing_there()

    def test_a_layer_that_cannot_be_is_refused_with_its_reason(self):
        for what, part, reason in BAD_LAYERS:
            self.check(what, archive(part, declared=(100, 1 << 20)), reason)
        self.assertFalse(os.path.exists(CANARY) or os.path.exists("/tmp/hutch-canary"))

    def test_an_archive_that_cannot_be_is_refused_with_its_reason(self):
        good = ROOT + entry(b"layers/0/root/x", b"x")
        two = [folder(b"layers/1/root"), folder(b"layers/0/root")]
        text = json.dumps({"format": "hutch-template", "version": 1, "template": {"name": "made", "base": {"layers": ["a"]}},
                           "layers": [{"entries": 1, "bytes": 1}]}).encode()
        for what, content, reason in (
                ("nothing", b"", "ends in the middle"),
                ("noise", bytes(range(256)) * 8, "no header|no number"),
                ("a tar of something else", entry(b"etc/passwd", b"x") + END, "no template of hutch"),
                ("no archive but zeros", b"\0" * 4096, "no template of hutch"),
                ("a manifest that is a link", entry(b"hutch-template.json", kind=b"2", link=b"/etc/passwd") + END, "no small file"),
                ("a huge manifest", entry(b"hutch-template.json", b" " * (1 << 21)) + END, "no small file"),
                ("a manifest that is no JSON", archive(good, manifest=b"{"), "no JSON"),
                ("a manifest that is no object", archive(good, manifest=b"[]"), "no JSON object"),
                ("a deep manifest", archive(good, manifest=b'{"a":' + b"[" * 100_000), "nested too deep"),
                ("an empty manifest", archive(good, manifest=b"{}"), "format"),
                ("another format", archive(good, format="tarball"), "no template of hutch"),
                ("a later version", archive(good, version=2), "version 2"),
                ("layers of the wrong type", archive(good, layers=[{"entries": -1, "bytes": "x"}]), "bad archive"),
                ("no layers", archive(good, layers=[]), "0 layers"),
                ("more layers than the template has", archive(good, layers=[{"entries": 1, "bytes": 1}] * 2), "2 layers, the template has 1"),
                ("a name that is a path", archive(good, name="../made"), "cannot be a template's name"),
                *((what, archive(good, template={"name": "made", "base": {"layers": ["a"], **base}, **about}), reason)
                  for what, about, base, reason in (
                      ("a parent for a terminal", {"parent": "\x1b[2J"}, {}, "cannot be a template's name"),
                      ("an image that is a path", {}, {"image": "../../x"}, "no digest for a name"),
                      ("a time that cannot be shown", {"created_at": 1 << 62}, {}, "at no time"),
                      ("a version that is a text", {"hutch_version": "1\n2"}, {}, "no version"),
                      ("a variable without a name", {}, {"env": {"a=b": "c"}}, "without a name"),
                      ("a variable with a zero", {}, {"env": {"a": "b\0c"}}, "zero"),
                      ("a working folder that is no path", {}, {"workdir": "x"}, "no path"),
                      ("a description that is a number", {"description": 1}, {}, "cannot be read"))),
                ("layers out of order", archive(*two), "not in order"),
                ("more than there can be", archive(good, declared=(1, 1 << 60)), "than there can be"),
                ("more than the disk has", archive(good, declared=(1, 1 << 49)), "are free on the disk"),
                ("more files than the disk has", archive(good, declared=(1 << 32, 1)), "than there can be"),
                ("a layer with another digest", archive(good, digests=json.dumps(
                    {"manifest": digest(text), "layers": [digest(b"")]}).encode(), manifest=text), "layer 0 has another digest"),
                ("a manifest with another digest", archive(good, digests=json.dumps(
                    {"manifest": digest(b""), "layers": [digest(good)]}).encode()), "json has another digest"),
                ("too few digests", archive(good, manifest=text, digests=json.dumps(
                    {"manifest": digest(text), "layers": []}).encode()), "without a digest"),
                ("digests that are no JSON", archive(good, digests=b"x"), "no JSON"),
                ("digests of another shape", archive(good, digests=b'{"manifest": []}'), "digest"),
                ("no digests", archive(good, digests=b""), "no digests"),
                ("a file behind the digests", archive(good, end=entry(b"layers/0/root/y") + END), "follows its digests"),
                ("garbage behind the end", archive(good, end=END + b"\0" * 512 + b"x"), "follows its end"),
                ("another archive behind the end", archive(good) + archive(good), "follows its end"),
                ("one empty block at the end", archive(good, end=b"\0" * 512), "in the middle")):
            self.check(what, content, reason)

    def test_an_archive_cut_anywhere_is_refused(self):
        whole = archive(ROOT + entry(b"layers/0/root/x", b"x" * 2000) + folder(b"layers/0/root/y"))
        _, rng = seeded()
        for at in {0, 1, 511, 512, 513, len(whole) - 1, len(whole) - 512, *rng.sample(range(len(whole)), 20)}:
            self.check(f"at {at}", whole[:at], "in the middle|no template|no digests")
        for name, command in (("cut.zst", ["zstd", "-qc"]), ("cut.gz", ["gzip", "-c"])):
            packed = subprocess.run(command, input=whole, capture_output=True, timeout=60, check=True).stdout
            for at in (20, len(packed) // 2, len(packed) - 1):
                self.check(f"{name} at {at}", packed[:at], "zstd failed|gzip failed|in the middle", name=name)
            self.check(f"{name} with garbage behind it", packed + b"garbage", "zstd failed|gzip failed|follows its end", name=name)

    @unittest.skipUnless(AS_ROOT, "a plain folder counts as well as it can")
    def test_a_bomb_stops_where_its_manifest_said(self):
        for what, part in (("bytes", in_root(entry(b"layers/0/root/x", b"\0" * (200 << 20)))),
                           ("files", in_root(*(entry(b"layers/0/root/%d" % i) for i in range(30_000))))):
            bomb = subprocess.run(["zstd", "-qc"], input=archive(part, declared=(1, 1)), capture_output=True, timeout=60).stdout
            self.assertLess(len(bomb), 2 << 20)
            self.check(what, bomb, "more in a layer than it says", name="bomb.zst")

    def test_a_hole_of_10_gb_takes_no_room(self):
        self.ok("import", self.write("a.tar", archive(in_root(sparse([1, 10 << 30, 5], (10 << 30) + 5, b"12345")))))
        self.assertEqual(self.names(), ["made"])
        layer, = glob.glob(self.here + "/layers/*")
        self.assertLess(sum(os.lstat(p).st_blocks * 512 for p in glob.glob(layer + "/**", recursive=True)), 16 << 20)

    def test_attributes_that_move_files_are_dropped_and_counted(self):
        bad = [(b"SCHILY.xattr." + name, value) for name, value in (
            (b"trusted.overlay.redirect", b"/etc"), (b"trusted.overlay.metacopy", b""), (b"trusted.overlay.origin", b"x"),
            (b"trusted.overlay.opaque", b"x"), (b"user.overlay.opaque", b"y"), (b"user.overlay.redirect", b"/etc"), (b"trusted.a", b"b"),
            (b"security.selinux", b"x"), (b"system.posix_acl_access", b"x"), (b"security.capability", b"short"))]
        part = in_root(entry(b"layers/0/root/x", records=[*bad, (b"SCHILY.xattr.user.a", b"good")]))
        done = json.loads(self.ok("import", self.write("a.tar", archive(part)), "--json"))
        self.assertEqual(done["attributes_dropped"], len(bad))
        with self.files_of(self.here) as files:
            self.assertEqual(os.listxattr(files + "/root/x"), ["user.a"])

    def test_a_name_that_is_taken_is_a_conflict_before_anything_is_read(self):
        good = self.write("a.tar", archive(ROOT))
        self.ok("import", good)
        layers = os.listdir(self.here + "/layers")
        self.assertIn("a template named 'made' exists", self.refused("import", good))
        self.assertEqual(os.listdir(self.here + "/layers"), layers)
        self.ok("import", good, "--overwrite")
        self.assertEqual(len(os.listdir(self.here + "/layers")), 1)  # the one before is gone
        self.ok("import", good, "--name", "other")
        self.assertEqual(self.names(), ["made", "other"])
        self.ok("rm", "made", "other")
        self.assert_nothing_there()

    def test_files_that_cannot_be_opened_are_named(self):
        self.assertIn("No such file", self.refused("import", self.path("none.tar")))
        self.assertIn("Is a directory", self.refused("import", self.scratch))
        self.assertIn("no template 'none'", self.refused("export", "none", self.path("a.tar")))


class Interrupted(ArchiveCase):
    def home_with_template(self, content=b"x" * 100_000):
        home = self.new_home()
        self.ok("import", self.write("a.tar", archive(in_root(entry(b"layers/0/root/x", content)))), home=home)
        return home

    def test_a_killed_export_leaves_no_file_and_keeps_the_one_before(self):
        home = self.home_with_template()
        os.mkdir(self.path("out"))
        for before, pattern in ((None, "^link "), (b"old", "^link ")):
            if before:
                with open(self.path("out/t.tar"), "wb") as file:
                    file.write(before)
            done = self.template("export", "made", self.path("out/t.tar"), home=home, under=[KILL_AT, "--before", "1", pattern, "--"])
            self.assertEqual(done.returncode, 88, done.stderr)
            self.assertEqual(os.listdir(self.path("out")), ["t.tar"] if before else [])
        self.assertEqual(open(self.path("out/t.tar"), "rb").read(), b"old")
        self.assert_nothing_runs(home)

    def test_an_import_killed_in_the_middle_shows_nothing(self):
        home = self.new_home()
        whole = archive(in_root(entry(b"layers/0/root/x", b"x" * (8 << 20))))
        env = {**self.env(), "HOME": home, "HUTCH_HOME": home}
        with subprocess.Popen([HUTCH, "template", "import", "-"], stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as server:
            server.stdin.write(whole[:6 << 20])
            server.stdin.flush()
            wait_for("a layer is begun", lambda: glob.glob(home + "/layers/.new-*/*"))
            server.kill()
        self.assertEqual(self.names(home), [])
        self.assertEqual([n for n in os.listdir(home + "/layers") if not n.startswith(".new-")], [])
        self.assert_nothing_runs(home)
        self.ok("import", self.write("a.tar", whole), home=home)  # which gives back what was left
        self.assertEqual(len(os.listdir(home + "/layers")), 1)
        self.assert_nothing_runs(home)

    def test_an_import_killed_anywhere_is_there_whole_or_not_at_all(self):
        content = self.write("a.tar", archive(in_root(entry(b"layers/0/root/x", b"x" * 100_000))))
        report = self.path("steps")
        home = self.new_home()
        self.template("import", content, home=home, under=[KILL_AT, "--list", "--report", report, "0", "", "--"])
        steps = len(open(report).readlines())
        self.assertGreater(steps, 15)
        seen = set()
        for n in range(1, steps + 1, 1 if os.environ.get("HUTCHTEST_LONG") else max(steps // 15, 1)):
            home = self.new_home()
            self.template("import", content, home=home, under=[KILL_AT, "--after", str(n), "", "--"])
            names = self.names(home)
            seen.add(tuple(names))
            with self.subTest(n):
                self.assertIn(names, ([], ["made"]))
                if names:
                    with self.files_of(home) as files:
                        self.assertEqual(os.path.getsize(files + "/root/x"), 100_000)
            self.assert_nothing_runs(home)
        self.assertIn((), seen)

    @contextlib.contextmanager
    def small_disk(self, size):
        at = tempfile.mkdtemp(prefix="hutch-test-")
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", at], check=True, timeout=60)
        try:
            yield at
        finally:
            wait_for("the disk is given back", lambda: subprocess.run(["umount", at], timeout=60, stderr=subprocess.DEVNULL).returncode == 0)
            os.rmdir(at)

    @unittest.skipUnless(AS_ROOT, "mounts")
    def test_an_export_to_a_full_disk_says_so_and_leaves_nothing(self):
        home = self.home_with_template(os.urandom(8 << 20))
        with self.small_disk("1m") as disk:
            for name in ("t.tar", "t.tar.zst", "t.tgz"):
                self.assertIn("No space left", self.refused("export", "made", disk + "/" + name, home=home), name)
                self.assertEqual(os.listdir(disk), [])

    @unittest.skipUnless(AS_ROOT, "mounts")
    def test_an_import_whose_disk_fills_up_says_so_and_gives_the_room_back(self):
        content = os.urandom(24 << 20)
        whole = archive(in_root(entry(b"layers/0/root/x", content)))
        with self.small_disk("40m") as home:
            env = {**self.env(), "HOME": home, "HUTCH_HOME": home}
            with subprocess.Popen([HUTCH, "template", "import", "-"], stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as server:
                server.stdin.write(whole[:1 << 20])
                server.stdin.flush()
                wait_for("a layer is begun", lambda: glob.glob(home + "/layers/.new-*/*"))
                with open(home + "/filler", "wb") as file, contextlib.suppress(OSError):
                    while True:
                        file.write(b"x" * 65536)
                with contextlib.suppress(BrokenPipeError):
                    server.stdin.write(whole[1 << 20:])
                with contextlib.suppress(BrokenPipeError):
                    server.stdin.close()
                said = server.stderr.read().decode()
                self.assertEqual(server.wait(60 * SLOW), 125, said)
            self.assertIn("is full", said)
            os.unlink(home + "/filler")
            self.assert_nothing_kept(home)
            wait_for("no loop device is left", lambda: not leaks.loops(home))
            self.assertIn("are free on the disk", self.refused("import", self.write("a.tar", archive(in_root(), declared=(1, 64 << 20))), home=home))

    @unittest.skipUnless(AS_ROOT, "mounts")
    def test_an_import_that_would_reach_the_disks_reserve_is_refused_before_it_writes(self):
        with self.small_disk("200m") as home:
            type(self).reserve = 100 << 20
            try:
                said = self.refused("import", self.write("a.tar", archive(in_root(), declared=(1, 120 << 20))), home=home)
                self.assertRegex(said, "it takes 120 MiB; .*, and 100 MiB of a disk are the reserve")
                self.assertIn("limits.disk_reserve", said)
                self.assert_nothing_kept(home)
            finally:
                type(self).reserve = 0


if __name__ == "__main__":
    unittest.main()
