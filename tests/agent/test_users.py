"""Commands and files of another user than root."""

import errno
import os
import stat
import tempfile

import sandbox
import support
from wire import APPEND, INPUT, MAKE_PARENTS, MERGE_OUTPUT, STORE, TERMINAL

PASSWD = """root:x:0:0:root:/root:/bin/bash
app:x:1500:1501:An app:/srv/app:/bin/sh
homeless:x:1502:1503::
broken:x:one:two::/:
minus:x:4294967295:4294967295::/:
"""
GROUP = """root:x:0:
app:x:1501:
reader:x:1600:homeless,app
writer:x:1601:app
others:x:1602:application,ap
"""


class UserTest(support.SandboxTest):
    """With a passwd and a group of the test's own."""
    passwd, group = PASSWD, GROUP

    def setUp(self):
        etc = tempfile.TemporaryDirectory(prefix="agent-etc-")
        self.addCleanup(etc.cleanup)
        before = ""
        for name, content in (("passwd", self.passwd), ("group", self.group)):
            with open(os.path.join(etc.name, name), "w") as file:
                file.write(content)
            before += f"mount --bind {etc.name}/{name} /etc/{name} || exit 9; "
        self.use(sandbox.Sandbox(before=before))
        os.chmod(self.folder, 0o777)

    def path(self, name):
        return os.path.join(self.folder, name)

    def ids(self, user):
        return self.client.run("id -u; id -g; id -G", user=user).out.decode().split("\n")[:3]

    def owner(self, name):
        status = os.stat(self.path(name))
        return status.st_uid, status.st_gid

    def fails(self, number, call, *arguments, **options):
        with self.assertRaises(OSError) as caught:
            call(*arguments, **options)
        self.assertEqual(errno.errorcode[caught.exception.errno], errno.errorcode[number], caught.exception)
        return caught.exception.strerror


class Users(UserTest):
    def test_a_name_brings_its_group_and_all_groups_that_list_it(self):
        self.assertEqual(self.ids("app"), ["1500", "1501", "1501 1600 1601"])
        self.assertEqual(self.ids("1500"), ["1500", "1501", "1501 1600 1601"])

    def test_a_group_that_is_named_is_the_only_one(self):
        self.assertEqual(self.ids("app:reader"), ["1500", "1600", "1600"])
        self.assertEqual(self.ids("app:7"), ["1500", "7", "7"])
        self.assertEqual(self.ids("1234:writer"), ["1234", "1601", "1601"])

    def test_a_number_needs_no_entry(self):
        self.assertEqual(self.ids("1234"), ["1234", "0", "0"])
        self.assertEqual(self.ids("1234:5678"), ["1234", "5678", "5678"])

    def test_root_stays_what_it_is(self):
        for user in ("", "root", "0", "0:0"):
            self.assertEqual(self.ids(user)[:2], ["0", "0"])

    def test_who_does_not_exist_is_named(self):
        self.assertEqual(self.fails(errno.ENOENT, self.client.run, "true", user="nobody"), "find user 'nobody' in /etc/passwd")
        self.assertEqual(self.fails(errno.ENOENT, self.client.run, "true", user="app:nogroup"),
                         "find group 'nogroup' in /etc/group")
        self.fails(errno.ENOENT, self.client.run, "true", user=":app")
        self.assertIn("broken", self.fails(errno.EINVAL, self.client.run, "true", user="broken"))
        self.assertEqual(self.client.run("echo on").out, b"on\n")

    def test_no_number_means_that_ids_stay_root(self):
        for user in ("4294967295", "-1", "4294967295:1", "99999999999999999999", "0x0", "1234:4294967295", "minus"):
            with self.assertRaises(OSError, msg=user):
                self.client.run("id -u", user=user)

    def test_home_and_names_unless_the_environment_has_them(self):
        def variables(user, *env):
            return dict(v.split("=", 1) for v in
                        self.client.run(["env"], user=user, env=["PATH=/usr/bin:/bin", *env]).out.decode().split())
        self.assertEqual(variables("app"), dict(PATH="/usr/bin:/bin", HOME="/srv/app", USER="app", LOGNAME="app"))
        self.assertEqual(variables("1234"), dict(PATH="/usr/bin:/bin", HOME="/", USER="1234", LOGNAME="1234"))
        self.assertEqual(variables("app", "HOME=/x", "USERS=u")["HOME"], "/x")
        self.assertEqual(variables("homeless", "USERS=u", "USER=").get("USER"), "")
        self.assertEqual(variables(""), dict(PATH="/usr/bin:/bin"))

    def test_it_has_no_capability_and_gets_none(self):
        status = self.client.run(["cat", "/proc/self/status"], user="app").out.decode()
        for line in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            self.assertIn(f"{line}:\t{0:016x}\n", status)
        self.assertIn("NoNewPrivs:\t1\n", status)

    def test_it_can_neither_end_nor_read_who_watches_it(self):
        script = ("kill -9 $PPID; echo kill $?; kill -9 1; echo kill $?; cat /proc/$PPID/environ >/dev/null; echo read $?;"
                  " ls -l /proc/$PPID/fd; echo list $?; readlink /proc/1/exe; echo exe $?")
        result = self.client.run(script, user="app", options=MERGE_OUTPUT)
        lines = [line for line in result.out.decode().split("\n") if line.split(" ")[0] in ("kill", "read", "list", "exe")]
        self.assertEqual(len(lines), 5, result.out)
        for line in lines:
            self.assertNotEqual(line.split()[1], "0", result.out)
        self.assertEqual((result.exit_code, result.flags), (0, 0))

    def test_its_whole_tree_ends(self):
        stream = self.client.start("setsid sh -c 'trap \"\" TERM; while :; do sleep 1; done' & echo on; wait",
                                   user="app", options=STORE)
        self.client.expect("started", stream)
        self.client.wait_for_output(stream, 2)
        self.client.end_tree(stream)
        self.assertNotEqual(self.client.collect(stream).signal, 0)
        self.client.expect("tree_gone", stream)
        self.client.forget(stream)

    def test_its_streams_can_be_opened_anew(self):
        result = self.client.run("echo out >/dev/stdout; echo err >/dev/stderr", user="app")
        self.assertEqual((result.out, result.err, result.exit_code), (b"out\n", b"err\n", 0))
        result = self.client.run("echo screen >$(tty); stat -c %u $(tty)", user="app",
                                 options=TERMINAL | INPUT | MERGE_OUTPUT)
        self.assertEqual(result.out.split(), [b"screen", b"1500"])

    def test_it_starts_only_where_it_may_be(self):
        os.mkdir(self.path("closed"), 0o700)
        self.assertIn("chdir", self.fails(errno.EACCES, self.client.run, "true", user="app", workdir=self.path("closed")))
        self.assertIn("exec", self.fails(errno.EACCES, self.client.run, [self.path("closed") + "/x"], user="app"))

    def test_what_is_written_anew_is_the_users_and_the_rest_stays(self):
        self.client.write_file(self.path("a/b/new"), b"x", user="app", options=MAKE_PARENTS)
        for name in ("a", "a/b", "a/b/new"):
            self.assertEqual(self.owner(name), (1500, 1501))
        self.client.write_file(self.path("added"), b"x", user="app", options=APPEND)
        self.assertEqual(self.owner("added"), (1500, 1501))
        self.client.write_file(self.path("roots"), b"x")
        for options in (0, APPEND):
            self.client.write_file(self.path("roots"), b"y", user="app", options=options)
            self.client.write_file(self.path("added"), b"y", options=options)
            self.assertEqual((self.owner("roots"), self.owner("added")), ((0, 0), (1500, 1501)))
        self.assertIn("'nobody'", self.fails(errno.ENOENT, self.client.write_file, self.path("c"), b"", user="nobody"))
        self.assertEqual(sorted(os.listdir(self.folder)), ["a", "added", "roots"])

    def test_a_folder_is_given_only_when_nothing_of_roots_goes_with_it(self):
        for name, mode in (("empty", 0o755), ("full", 0o755), ("shared", 0o1777), ("others", 0o755)):
            os.mkdir(self.path(name))
            os.chmod(self.path(name), mode)
        os.chown(self.path("others"), 7, 8)
        self.client.write_file(self.path("full/.hidden"), b"")
        for name in ("empty", "full", "shared", "others", "new/below"):
            self.client.make_folder(self.path(name), "app")
        owners = {name: self.owner(name) for name in ("empty", "full", "shared", "others", "new", "new/below")}
        self.assertEqual(owners, {"empty": (1500, 1501), "full": (0, 0), "shared": (0, 0), "others": (7, 8),
                                  "new": (1500, 1501), "new/below": (1500, 1501)})
        self.assertEqual(stat.S_IMODE(os.stat(self.path("new")).st_mode), 0o755)
        self.client.make_folder(self.path("roots/too"))
        self.assertEqual(self.owner("roots/too"), (0, 0))
        self.fails(errno.ENOTDIR, self.client.make_folder, self.path("full/.hidden"), "app")
        self.fails(errno.EINVAL, self.client.make_folder, "relative", "app")


class ManyGroups(UserTest):
    group = "".join(f"g{i}:x:{2000 + i}:app\n" for i in range(257))

    def test_more_groups_than_can_be_had_are_an_error(self):
        self.assertIn("groups of user 'app'", self.fails(errno.E2BIG, self.client.run, "true", user="app"))
        self.assertEqual(self.ids("app:g1"), ["1500", "2001", "2001"])


class HostileFiles(support.SandboxTest):
    """What root inside could put in their place."""

    def refuse(self, make, number):
        with tempfile.TemporaryDirectory(prefix="agent-etc-") as etc:
            path = os.path.join(etc, "passwd")
            make(path)
            self.use(sandbox.Sandbox(before=f"mount --bind {path} /etc/passwd || exit 9; "))
            with self.assertRaises(OSError) as caught:
                self.client.run("true", user="app")
            self.assertEqual(errno.errorcode[caught.exception.errno], errno.errorcode[number])
            self.client.ping()
            self.assertEqual(self.client.run("echo on").out, b"on\n")
            self.sandbox.close()

    def setUp(self):
        pass

    def test_a_fifo_and_an_endless_file_do_not_hold_the_agent_up(self):
        self.refuse(os.mkfifo, errno.EINVAL)

        def sparse(path):
            with open(path, "wb") as file:
                file.truncate(1 << 40)
        self.refuse(sparse, errno.EFBIG)

    def test_lines_that_are_none(self):
        def odd(path):
            with open(path, "wb") as file:
                file.write(b"\n:::\napp\napp:x\n\xff\xfe\0:\n" + b"a" * 100_000)
        self.refuse(odd, errno.EINVAL)


if __name__ == "__main__":
    support.main()
