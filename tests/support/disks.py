"""What tests of disks on loop devices share."""
import os
import shutil
import subprocess
import tempfile

import leaks

MIB = 1 << 20


def loops_of(home):
    return list(leaks.loops(home).values())


def no_loop_devices():
    """Why this host has none for us, or nothing."""
    if os.geteuid() != 0:
        return "loop devices are for root"
    if not shutil.which("mkfs.ext4", path=os.environ["PATH"] + ":/usr/sbin:/sbin"):
        return "no mkfs.ext4"
    with tempfile.NamedTemporaryFile() as image:
        image.truncate(MIB)
        done = subprocess.run(["losetup", "--find", "--show", image.name], capture_output=True, text=True)
        if done.returncode != 0:
            return done.stderr.strip()
        subprocess.run(["losetup", "--detach", done.stdout.strip()], check=True)


def mount_small_disk(cls, folder):
    """A disk of 700 MiB of the class's own in that place."""
    image = tempfile.NamedTemporaryFile(prefix="hutch-test-", suffix=".img")
    cls.addClassCleanup(image.close)
    image.truncate(700 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-O", "^has_journal", image.name], check=True,
                   env={"PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"})
    subprocess.run(["mount", "-o", "loop", image.name, folder], check=True)
    cls.addClassCleanup(subprocess.run, ["umount", folder], check=True)
