"""The file service: reading, writing, listing."""

import errno
import os
import stat
import subprocess
import threading
import unittest

import support
from wire import APPEND, CREATE_NEW, DATA_CHUNK, EXECUTABLE, EXPECT, MAKE_PARENTS


class Files(support.SandboxTest):
    def path(self, name):
        return os.path.join(self.folder, name)

    def content(self, name):
        with open(self.path(name), "rb") as file:
            return file.read()

    def put(self, name, data=b"old", mode=0o644):
        with open(self.path(name), "wb") as file:
            file.write(data)
        os.chmod(self.path(name), mode)

    def fails(self, number, call, *arguments, **options):
        with self.assertRaises(OSError) as caught:
            call(*arguments, **options)
        self.assertEqual(errno.errorcode[caught.exception.errno], errno.errorcode[number])
        self.assertEqual([name for name in os.listdir(self.folder) if name.startswith(".hutch-")], [])
        return caught.exception.strerror

    def test_read(self):
        data = os.urandom(3_000_000)
        self.put("a", data, 0o640)
        info, got = self.client.read_file(self.path("a"))
        self.assertTrue(got == data)
        self.assertEqual((info.state[1], stat.S_IMODE(info.mode)), (len(data), 0o640))
        self.assertTrue(self.client.read_file(self.path("a"), 1000, 50)[1] == data[1000:1050])
        self.assertEqual(self.client.read_file(self.path("a"), 5_000_000)[1], b"")

    def test_read_kernel_file(self):
        self.assertIn(b"MemTotal", self.client.read_file("/proc/meminfo")[1])

    def test_read_refuses_what_is_no_file(self):
        os.mkfifo(self.path("fifo"))
        self.assertIn("is a FIFO", self.fails(errno.EINVAL, self.client.read_file, self.path("fifo")))
        self.assertIn("is a device", self.fails(errno.EINVAL, self.client.read_file, "/dev/zero"))
        self.fails(errno.EISDIR, self.client.read_file, self.folder)
        self.fails(errno.ENOENT, self.client.read_file, self.path("none"))
        self.fails(errno.ELOOP, self.client.read_file, "/proc/self/root/etc/passwd")
        self.fails(errno.EINVAL, self.client.read_file, "relative")
        self.fails(errno.EINVAL, self.client.read_file, "/etc/pass\0wd")
        self.fails(errno.ENAMETOOLONG, self.client.read_file, "/" + "x/" * 4000)

    def test_write_is_whole_and_keeps_mode_and_owner(self):
        self.put("a", b"old", 0o751)
        os.chown(self.path("a"), 7, 8)
        stream = self.client.begin_write(self.path("a"))
        self.client.send("data", stream, b"new")
        self.client.ping()
        self.assertEqual(self.content("a"), b"old")
        self.client.send("commit", stream)
        self.assertEqual(self.client.expect("file_info", stream).created, 0)
        status = os.stat(self.path("a"))
        self.assertEqual((self.content("a"), stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid),
                         (b"new", 0o751, 7, 8))
        self.assertEqual(os.listdir(self.folder), ["a"])

    def test_new_file(self):
        data = os.urandom(5_000_000)
        info = self.client.write_file(self.path("b"), data, mode=0o600)
        self.assertEqual((info.created, stat.S_IMODE(info.mode)), (1, 0o600))
        self.assertTrue(self.content("b") == data)
        info = self.client.write_file(self.path("x/y/z"), b"", options=MAKE_PARENTS | EXECUTABLE)
        self.assertEqual(stat.S_IMODE(info.mode), 0o755)
        self.fails(errno.ENOENT, self.client.write_file, self.path("q/y/z"), b"")

    def test_write_through_links(self):
        os.mkdir(self.path("d"))
        self.put("d/real")
        os.symlink("d/real", self.path("one"))
        os.symlink(self.path("one"), self.path("two"))
        os.symlink("d", self.path("folder"))
        os.symlink("../new", self.path("d/up"))
        self.client.write_file(self.path("two"), b"1")
        self.assertEqual(self.content("d/real"), b"1")
        self.assertTrue(os.path.islink(self.path("one")) and os.path.islink(self.path("two")))
        self.client.write_file(self.path("folder/up"), b"2")
        self.assertEqual(self.content("new"), b"2")
        os.symlink("loop", self.path("loop"))
        self.fails(errno.ELOOP, self.client.write_file, self.path("loop"), b"")

    def test_create_new(self):
        self.client.write_file(self.path("a"), b"1", options=CREATE_NEW)
        self.fails(errno.EEXIST, self.client.write_file, self.path("a"), b"2", options=CREATE_NEW)
        stream = self.client.begin_write(self.path("b"), options=CREATE_NEW)
        self.put("b", b"other")
        self.client.send("commit", stream)
        self.assertEqual(self.client.expect("failed", stream).error, errno.EEXIST)
        self.assertEqual((self.content("a"), self.content("b")), (b"1", b"other"))
        self.assertEqual(sorted(os.listdir(self.folder)), ["a", "b"])

    def test_append(self):
        self.client.write_file(self.path("a"), b"1", options=APPEND)
        self.client.write_file(self.path("a"), b"2", options=APPEND)
        self.assertEqual(self.content("a"), b"12")

    def test_expected_state(self):
        self.put("a")
        info, _ = self.client.read_file(self.path("a"))
        info = self.client.write_file(self.path("a"), b"1", options=EXPECT, expected=info.state)
        stream = self.client.begin_write(self.path("a"), options=EXPECT, expected=info.state)
        self.put("a", b"changed")
        self.client.send("commit", stream)
        self.assertEqual(self.client.expect("failed", stream).error, errno.ESTALE)
        self.fails(errno.ESTALE, self.client.write_file, self.path("a"), b"", options=EXPECT,
                   expected=info.state)
        self.assertEqual(self.content("a"), b"changed")

    def test_write_refuses_what_is_no_file(self):
        os.mkfifo(self.path("fifo"))
        for options in (0, APPEND):
            self.fails(errno.EINVAL, self.client.write_file, self.path("fifo"), b"", options=options)
            self.fails(errno.EISDIR, self.client.write_file, self.folder, b"", options=options)
            self.fails(errno.EISDIR, self.client.write_file, self.folder + "/", b"", options=options)
            self.fails(errno.EINVAL, self.client.write_file, "/dev/null", b"", options=options)

    def test_cancel_and_lost_host_leave_nothing(self):
        stream = self.client.begin_write(self.path("a"))
        self.assertEqual(len(os.listdir(self.folder)), 1)
        self.client.send("cancel", stream)
        self.client.ping()
        self.assertEqual(os.listdir(self.folder), [])
        self.client.begin_write(self.path("a"))
        self.sandbox.disconnect(self.client)
        self.client = self.sandbox.connect()
        self.assertEqual(os.listdir(self.folder), [])

    def test_full_disk(self):
        target = self.path("full")
        os.mkdir(target)
        self.sandbox.close()
        self.sandbox = support.sandbox.Sandbox(before=f"mount -t tmpfs -o size=256k none {target};")
        self.addCleanup(self.sandbox.close)
        self.client = self.sandbox.client
        stream = self.client.begin_write(target + "/a")
        for _ in range(20):
            self.client.send("data", stream, b"x" * DATA_CHUNK)
        while (frame := self.client.receive(stream))[0] == "credit":
            pass
        self.assertEqual((frame[0], frame[2].error), ("failed", errno.ENOSPC))
        self.assertEqual(self.client.run(["ls", "-A", target]).out, b"")
        result = self.client.run("head -c 600000 /dev/zero", log=target + "/log")
        self.assertEqual((result.exit_code, len(result.out)), (0, 600_000))
        self.assertLess(result.log_bytes, 300_000)

    def test_link_race_stays_inside(self):
        os.mkdir(self.path("outside"))
        os.mkdir(self.path("real"))
        stop = threading.Event()

        def flip():
            while not stop.is_set():
                os.symlink("/proc/self/root", self.path("t"))
                os.rename(self.path("t"), self.path("d"))
                os.unlink(self.path("d"))
                os.mkdir(self.path("d"))
                subprocess.run(["rm", "-rf", self.path("d")], check=False)

        thread = threading.Thread(target=flip)
        thread.start()
        try:
            for _ in range(200):
                try:
                    self.client.write_file(self.path("d") + self.path("outside/x"), b"", options=0)
                except OSError:
                    pass
        finally:
            stop.set()
            thread.join()
        self.assertEqual(os.listdir(self.path("outside")), [])

    def test_list(self):
        os.makedirs(self.path("b/c/d"))
        self.put("b/c/f", b"12345")
        self.put("b/a")
        self.put("z\n\xff")
        os.symlink("b", self.path("link"))
        names = [entry.path.decode() for entry in self.client.list_files(self.folder, 3)]
        self.assertEqual(names, ["b", "b/a", "b/c", "b/c/d", "b/c/f", "link", "z\n\xff"])
        found = {entry.path: entry for entry in self.client.list_files(self.folder, 9)}
        self.assertEqual((found[b"link"].target, found[b"b/c/f"].size), (b"b", 5))
        self.assertEqual(len(self.client.list_files(self.folder)), 3)
        self.put("plain")
        self.fails(errno.ENOTDIR, self.client.list_files, self.path("plain"))
        self.fails(errno.ENOENT, self.client.list_files, self.path("none"))

    def test_long_listing_can_be_cancelled_and_holds_nothing(self):
        subprocess.run(["sh", "-c", "seq -f file%06.0f 1 100000 | xargs touch"], cwd=self.folder, check=True)
        self.assertEqual(len(self.client.list_files(self.folder)), 100_000)
        stream = self.client.stream()
        self.client.auto_credit = False
        path = self.folder.encode()
        self.client.send("list_files", stream, len(path).to_bytes(4, "little") + path + b"\1\0\0\0")
        self.client.expect("data", stream)
        self.assertLess(self.client.ping(), 1)
        self.client.send("cancel", stream)
        self.client.ping()

    def test_streams_are_bounded(self):
        for i in range(32):
            self.client.begin_write(self.path(str(i)))
        with self.assertRaisesRegex(OSError, "32 file streams"):
            self.client.begin_write(self.path("x"))


if __name__ == "__main__":
    support.main()
