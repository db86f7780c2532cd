"""What tests of disks on loop devices share."""
import os
import shutil
import subprocess
import tempfile

import leaks
from sandbox_case import SLOW

MIB = 1 << 20
PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"


def loops_of(home):
    return list(leaks.loops(home).values())


def no_loop_devices():
    """Why this host has none for us, or nothing."""
    if os.geteuid() != 0:
        return "loop devices are for root"
    if not shutil.which("mkfs.ext4", path=PATH):
        return "no mkfs.ext4"
    with tempfile.NamedTemporaryFile() as image:
        image.truncate(MIB)
        done = subprocess.run(["losetup", "--find", "--show", image.name], capture_output=True, text=True)
        if done.returncode != 0:
            return done.stderr.strip()
        subprocess.run(["losetup", "--detach", done.stdout.strip()], check=True)


# How a disk is formatted whose blocks files can share, or which keeps nothing for itself.
FORMAT = {"ext4": ("mkfs.ext4", "-q", "-F", "-O", "^has_journal"), "xfs": ("mkfs.xfs", "-q", "-m", "reflink=1"),
          "btrfs": ("mkfs.btrfs", "-q")}


def no_file_system(kind):
    """Why this host has none of that kind, or nothing."""
    if why := no_loop_devices():
        return why
    if not shutil.which(FORMAT[kind][0], path=PATH):
        return f"no {FORMAT[kind][0]}"
    if shutil.which("modprobe", path=PATH):  # it may be a module that nobody has loaded yet
        subprocess.run(["modprobe", "-q", kind], env={"PATH": PATH})
    with open("/proc/filesystems") as file:
        if kind not in file.read().split():
            return f"the kernel has no {kind}"


def mount_disk(cls, folder, kind, mib):
    """A disk of the class's own in that place."""
    image = tempfile.NamedTemporaryFile(prefix="hutch-test-", suffix=".img")
    cls.addClassCleanup(image.close)
    image.truncate(mib * MIB)
    subprocess.run([*FORMAT[kind], image.name], check=True, env={"PATH": PATH})
    subprocess.run(["mount", "-o", "loop", "-t", kind, image.name, folder], check=True)
    cls.addClassCleanup(subprocess.run, ["umount", folder], check=True)


class OnSmallDisk:
    """Of a case: its data folder lies on such a disk, of which 200 MiB are the reserve."""
    server_settings = {"HUTCH_LIMITS__DISK_RESERVE": "200m", "HUTCH_LIMITS__DISK_RESERVE_PERCENT": "0",
                       "HUTCH_LIMITS__DISK_OVERCOMMIT": "20", "HUTCH_POOL__MAX": "0", "HUTCH_POOL__MIN": "0"}

    @classmethod
    def data_folder(cls):
        folder = super().data_folder()
        mount_disk(cls, folder, "ext4", 700)
        return folder

    def free(self):
        fs = os.statvfs(self.home)
        return fs.f_bavail * fs.f_frsize

    def fill(self, box, path):
        """Writes to the path in a sandbox until it may write no more, so slowly that the guard can follow."""
        said = self.python(f"""
import time
with open('{path}', 'wb', buffering=0) as f:
    try:
        for _ in range(200):
            f.write(b'x' * (5 << 20)); time.sleep(0.1)
    except OSError as e: print(e.strerror)""", sandbox_id=box, timeout_s=200 * SLOW)
        self.assertIn("No space left on device", said)
        os.sync()
        self.assertGreater(self.free(), 100 * MIB)
