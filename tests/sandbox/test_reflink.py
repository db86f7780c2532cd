"""On XFS and Btrfs, whose files can share blocks: templates and forks copy nothing, and all else is as ever."""
import glob
import os
import re
import subprocess
import unittest

from disks import MIB, mount_disk, no_file_system
from sandbox_case import SLOW, SandboxCase, wait_for

FILE_MIB = 300


class ReflinkCase(SandboxCase):
    kind = "xfs"  # of the file system under the data folder
    mib = 6000
    server_settings = {"HUTCH_POOL__MAX": 0, "HUTCH_LIMITS__DISK_RESERVE": "64m", "HUTCH_LIMITS__DISK_RESERVE_PERCENT": 0,
                       "HUTCH_LIMITS__DISK_OVERCOMMIT": 20}

    @classmethod
    def setUpClass(cls):
        if why := no_file_system(cls.kind):
            raise unittest.SkipTest(why)
        super().setUpClass()

    @classmethod
    def data_folder(cls):
        folder = super().data_folder()
        mount_disk(cls, folder, cls.kind, cls.mib)
        return folder

    def tearDown(self):
        self.ok("sandbox_destroy", sandbox_id="*", confirm=True)
        for one in self.ok("sandbox_list_templates")["templates"]:
            self.ok("sandbox_delete_template", name=one["name"])
        wait_for("its layers are gone", lambda: not glob.glob(f"{self.home}/layers/layer-*"))
        super().tearDown()

    def create(self, **arguments):
        return self.ok("sandbox_create", **arguments)["sandbox_id"]

    def disk(self, box):
        return glob.glob(f"{self.home}/servers/*/sandboxes/{box}/disk")[0]

    def used(self):
        """Bytes of the host's disk that are taken, once all is written."""
        subprocess.run(["sync", "-f", self.home], check=True)
        disk = os.statvfs(self.home)
        return (disk.f_blocks - disk.f_bfree) * disk.f_frsize

    def shared_bytes(self, path):
        """Of a file, what others have too, as the kernel says (FIEMAP)."""
        lines = subprocess.run(["filefrag", "-v", "-b4096", path], capture_output=True, text=True, check=True).stdout.splitlines()
        return sum(int(re.split(r":\s*", line)[3]) * 4096 for line in lines if "shared" in line)

    def write(self, box, name="big", mib=FILE_MIB):
        self.sh(f"head -c {mib}M /dev/urandom > {name}", sandbox_id=box, timeout_s=100 * SLOW)
        return self.sha256(box, name)

    def sha256(self, box, name="big"):
        return self.sh(f"sha256sum < {name}", sandbox_id=box, timeout_s=100 * SLOW)


class Sharing:
    def test_forks_and_templates_have_the_same_blocks(self):
        box = self.create()
        content = self.write(box)
        self.ok("sandbox_create_template", sandbox_id=box, name="first")  # what is unwritten is now written
        before = self.used()
        forks = self.ok("sandbox_fork", sandbox_id=box, count=3)["sandboxes"]
        self.ok("sandbox_create_template", sandbox_id=box, name="second")
        boxes = [*forks, self.create(template="first"), self.create(template="second")]
        for copy in boxes:
            self.assertEqual(self.sha256(copy), content)
        self.assertLess(self.used() - before, 40 * MIB)  # the disks of five sandboxes
        for layer in glob.glob(f"{self.home}/layers/layer-*/disk"):
            self.assertGreater(self.shared_bytes(layer), (FILE_MIB - 1) * MIB)

    def test_what_one_changes_no_other_sees(self):
        box = self.create()
        content = self.write(box, mib=50)
        one, two = self.ok("sandbox_fork", sandbox_id=box, count=2)["sandboxes"]
        self.ok("sandbox_create_template", sandbox_id=box, name="kept")
        # In place, so that blocks are shared until they are written.
        self.sh("for at in 0 7 49; do echo parent | dd of=big bs=1M seek=$at conv=notrunc 2>/dev/null; done", sandbox_id=box)
        self.sh("echo fork | dd of=big bs=1M seek=7 conv=notrunc 2>/dev/null", sandbox_id=one)
        self.ok("sandbox_create_template", sandbox_id=one, name="changed")
        seen = {name: self.sha256(copy) for name, copy in (("parent", box), ("one", one), ("two", two),
                                                           ("kept", self.create(template="kept")),
                                                           ("changed", self.create(template="changed")))}
        self.assertEqual((seen["two"], seen["kept"]), (content, content))
        self.assertEqual(seen["changed"], seen["one"])
        self.assertEqual(len({content, seen["parent"], seen["one"]}), 3)

    def test_a_disk_has_its_size_and_gives_back_what_is_deleted(self):
        box = self.create(disk="100m")
        content = self.write(box, "kept", 20)
        fork, = self.ok("sandbox_fork", sandbox_id=box)["sandboxes"]
        before = self.used()
        for one in (box, fork):
            filled = self.ok("sandbox_exec", sandbox_id=one, command="dd if=/dev/zero of=fill bs=1M")["stderr"]
            self.assertIn("No space left on device", filled)
            self.sh("sync", sandbox_id=one)
            self.assertLessEqual(os.stat(self.disk(one)).st_blocks * 512, 101 * MIB)
        self.assertTrue(100 * MIB < self.used() - before <= 203 * MIB)
        for one in (box, fork):
            self.sh("rm fill; sync", sandbox_id=one)
            self.assertEqual(self.sha256(one, "kept"), content)
        if self.kind != "btrfs":  # which keeps an extent as long as any block of it is in use
            wait_for("the disk is free again", lambda: self.used() - before < 20 * MIB)

    def test_a_volume_keeps_what_was_written_and_has_its_size(self):
        done = self.hutch("volume", "create", "data", "--size", "100m")
        self.assertEqual(done.returncode, 0, done.stderr)
        volumes = [{"name": "data", "target": "/data"}]
        box = self.create(volumes=volumes)
        self.assertIn("No space left on device",
                      self.ok("sandbox_exec", sandbox_id=box, command="dd if=/dev/zero of=/data/fill bs=1M; rm /data/fill; "
                              "echo stays > /data/file; sync")["stderr"])
        self.ok("sandbox_destroy", sandbox_id=box)
        self.assertEqual(self.sh("cat /data/file", sandbox_id=self.create(volumes=volumes)), "stays\n")
        self.ok("sandbox_destroy", sandbox_id="*", confirm=True)
        self.assertEqual(self.hutch("volume", "rm", "data").returncode, 0)


class Xfs(Sharing, ReflinkCase):
    pass


class Btrfs(Sharing, ReflinkCase):
    kind = "btrfs"


class Reserve(ReflinkCase):
    """A small disk, which somebody fills."""
    mib = 1200
    server_settings = {**ReflinkCase.server_settings, "HUTCH_LIMITS__DISK_RESERVE": "200m"}

    def test_what_is_shared_can_still_be_changed_when_nobody_can_write_more(self):
        box = self.create()
        content = self.write(box)
        fork, = self.ok("sandbox_fork", sandbox_id=box)["sandboxes"]
        said = self.python("""
import time
with open('fill', 'wb', buffering=0) as f:
    try:
        for _ in range(200):
            f.write(b'x' * (5 << 20))
            time.sleep(0.1)
    except OSError as e: print(e.strerror)""", sandbox_id=self.create(), timeout_s=200 * SLOW)
        self.assertIn("No space left on device", said)
        # Nothing grows by it, but each of its blocks must be taken anew.
        self.sh(f"head -c {FILE_MIB}M /dev/urandom | tee >(sha256sum > sum) | "
                "dd of=big bs=1M iflag=fullblock conv=notrunc,fsync", sandbox_id=box, timeout_s=100 * SLOW)
        self.assertGreater(os.statvfs(self.home).f_bavail * 4096, 100 * MIB)
        self.assertEqual(self.sha256(fork), content)


if __name__ == "__main__":
    unittest.main()
