"""What a sandbox writes lies on a disk of its own with a hard size, and the host's disk never runs full by it."""
import glob
import json
import os
import shutil
import signal
import threading
import time
import unittest

from disks import MIB, OnSmallDisk, loops_of, no_loop_devices
from mcp_client import Client
from sandbox_case import HUTCH, SLOW, HutchCase, SandboxCase, call, wait_for


def images(home, box="*"):
    return glob.glob(f"{home}/servers/*/sandboxes/{box}/disk")


def written(home, box):
    """Bytes that the sandbox's disk takes on the host's. Of one only: what others wrote may come any time later."""
    return sum(os.stat(path).st_blocks * 512 for path in images(home, box))


class DiskCase(SandboxCase):
    @classmethod
    def setUpClass(cls):
        if why := no_loop_devices():
            raise unittest.SkipTest(why)
        super().setUpClass()

    def isolation(self, box):
        return {item["name"]: item for item in self.ok("sandbox_info", sandbox_id=box)["isolation"]}

    def fill(self, box, path="/workspace/fill", **arguments):
        """Writes until it fails; what dd said."""
        return self.ok("sandbox_exec", sandbox_id=box, command=f"dd if=/dev/zero of={path} bs=1M", **arguments)["stderr"]


class Size(DiskCase):
    def test_a_write_past_the_limit_gets_enospc_and_the_host_keeps_its_disk(self):
        box = self.ok("sandbox_create", disk="100m")["sandbox_id"]
        self.assertIn("No space left on device", self.fill(box))
        self.sh("sync", sandbox_id=box)
        self.assertLessEqual(written(self.home, box), 101 * MIB)
        used = self.ok("sandbox_info", sandbox_id=box)["disk_bytes"]
        self.assertTrue(60 * MIB < used <= 100 * MIB, used)
        self.assertEqual(self.sh("rm fill && echo goes on > x && cat x", sandbox_id=box), "goes on\n")

    def test_the_size_is_hard_and_read_back(self):
        box = self.ok("sandbox_create", disk="300m")["sandbox_id"]
        disk = self.isolation(box)["disk"]
        self.assertTrue(disk["enforced"], disk)
        self.assertTrue(disk["detail"].startswith(str(300 * MIB)), disk)
        inside = int(self.sh("stat -f -c '%b %S' / | awk '{print $1 * $2}'", sandbox_id=box))
        self.assertTrue(250 * MIB < inside <= 300 * MIB, inside)
        self.assertIn(f"{inside} of them for files", disk["detail"])

    def test_every_place_that_can_be_written_to_counts(self):
        box = self.ok("sandbox_create", disk="64m", memory="512m")["sandbox_id"]
        for place in ("/workspace", "/tmp", "/var/tmp", "/root", "/home", "/etc", "/usr/local", "/var/log"):
            self.assertIn("No space left on device", self.fill(box, f"{place}/fill"), place)
            self.sh(f"rm {place}/fill", sandbox_id=box)

    def test_another_size_than_the_usual_one_is_never_a_warm_one(self):
        wait_for("a warm one", lambda: any(s["state"] == "warm" for s in self.records()))
        made = self.ok("sandbox_create", disk="200m")
        self.assertTrue(self.isolation(made["sandbox_id"])["disk"]["detail"].startswith(str(200 * MIB)))

    def records(self):
        found = []
        for path in glob.glob(f"{self.home}/servers/*/sandboxes/*/record"):
            try:
                found.append(json.loads(open(path).read().splitlines()[-1]))
            except (OSError, IndexError, ValueError):
                pass
        return found

    def test_files_do_not_count_as_memory(self):
        box = self.ok("sandbox_create", memory="64m", disk="1g")["sandbox_id"]
        done = self.ok("sandbox_exec", sandbox_id=box, timeout_s=120 * SLOW,
                       command="dd if=/dev/zero of=big bs=1M count=500 && stat -c %s big")
        self.assertEqual((done["exit_code"], done["stdout"]), (0, f"{500 * MIB}\n"), done)
        self.assertEqual(self.sh("head -c 3 big | od -An -tx1", sandbox_id=box).split(), ["00"] * 3)

    def test_an_inode_filler_gets_enospc_and_the_sandbox_still_answers(self):
        box = self.ok("sandbox_create", disk="16m")["sandbox_id"]
        said = self.python("""
import os
made = 0
try:
    while made < 100000:
        os.close(os.open(f'/workspace/f{made}', os.O_CREAT | os.O_WRONLY)); made += 1
except OSError as e: print(e.strerror, made)""", sandbox_id=box)
        self.assertIn("No space left on device", said)
        self.assertGreater(int(said.split()[-1]), 1000)
        self.assertEqual(self.sh("find . -type f -delete; echo on > x; cat x", sandbox_id=box), "on\n")

    def test_what_is_deleted_goes_back_to_the_hosts_disk(self):
        box = self.ok("sandbox_create", disk="1g")["sandbox_id"]
        before = written(self.home, box)
        self.sh("dd if=/dev/urandom of=big bs=1M count=200 2>&1 && sync -f big || sync", sandbox_id=box, timeout_s=120 * SLOW)
        # Volatile: nothing inside can make it reach the disk, the kernel does it when it likes to.
        os.sync()
        self.assertGreater(written(self.home, box) - before, 190 * MIB)
        self.sh("rm big", sandbox_id=box)
        wait_for("given back", lambda: written(self.home, box) - before < 20 * MIB, timeout=60)

    def test_a_disk_filler_leaves_others_answering(self):
        filler, other = (self.ok("sandbox_create", disk="300m")["sandbox_id"] for _ in range(2))
        running = self.client.submit_tool("sandbox_exec", {
            "sandbox_id": filler, "timeout_s": 60,
            "command": "for i in 1 2 3; do dd if=/dev/zero of=fill bs=1M 2>/dev/null; rm fill; done"})
        worst, rounds = 0.0, 0
        while not running.done:
            start = time.monotonic()
            self.assertEqual(self.sh("echo x > x && cat x", sandbox_id=other), "x\n")
            worst, rounds = max(worst, time.monotonic() - start), rounds + 1
        self.assertFalse(running.result(120).get("isError"))
        self.assertGreater(rounds, 0)
        self.assertLess(worst, 2 * SLOW)

    def test_dev_shm_and_run_keep_their_sizes_and_count_as_memory(self):
        box = self.ok("sandbox_create", memory="64m")["sandbox_id"]
        for place in ("/dev/shm", "/run"):
            size = int(self.sh(f"stat -f -c '%b %S' {place} | awk '{{print $1 * $2}}'", sandbox_id=box))
            self.assertLessEqual(size, 64 * MIB, place)
        done = self.ok("sandbox_exec", sandbox_id=box, command="head -c 2G /dev/zero > /dev/shm/x")
        self.assertTrue(done["end"] == "oom_killed" or "No space left" in done["stderr"], done)


class Ends(DiskCase):
    def test_twenty_at_once_each_have_their_own(self):
        boxes, failed = [], []

        def make(i):
            made = self.call("sandbox_create", disk="64m")
            (failed if made.is_error else boxes).append(made.text if made.is_error else made.structured["sandbox_id"])

        threads = [threading.Thread(target=make, args=(i,)) for i in range(20)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(failed, [])
        for box in boxes:
            self.sh(f"echo {box} > mine", sandbox_id=box)
        for box in boxes:
            self.assertEqual(self.sh("cat mine", sandbox_id=box), box + "\n")
        self.assertGreaterEqual(len(set(loops_of(self.home))), 20)
        for box in boxes:
            self.ok("sandbox_destroy", sandbox_id=box)
        left = set(boxes)
        wait_for("loop devices are given back", lambda: not any(b in text for text in loops_of(self.home) for b in left))

    def test_the_end_of_one_with_much_unwritten_data_does_not_wait_for_the_disk(self):
        box = self.ok("sandbox_create", disk="1g")["sandbox_id"]
        self.sh("dd if=/dev/zero of=big bs=1M count=400 2>&1", sandbox_id=box)
        start = time.monotonic()
        self.ok("sandbox_destroy", sandbox_id=box)
        self.assertLess(time.monotonic() - start, 2 * SLOW)
        self.assertFalse(any(box in text for text in loops_of(self.home)))


class Reserve(OnSmallDisk, DiskCase):
    def test_before_the_hosts_disk_is_full_writers_get_enospc_and_all_else_goes_on(self):
        filler, other = (self.ok("sandbox_create", disk="2g", memory="512m")["sandbox_id"] for _ in range(2))
        self.fill(filler, "/workspace/fill")
        self.assertEqual(self.sh("echo still here", sandbox_id=other), "still here\n")
        refused = self.refused("sandbox_create")
        self.assertRegex(refused, "(?s)reserve is 0.2 GB.*disk_reserve")
        done = self.ok("sandbox_exec", sandbox_id=other, command="head -c 1M /dev/zero > x")
        self.assertNotEqual(done["exit_code"], 0, "all of them are closed")
        self.sh("rm /workspace/fill", sandbox_id=filler)
        wait_for("room", lambda: self.ok("sandbox_exec", sandbox_id=other, command="head -c 1M /dev/zero > x")["exit_code"] == 0)
        wait_for("a create", lambda: not self.call("sandbox_create", disk="16m").is_error)

    def test_blocks_that_were_taken_ahead_count_as_gone(self):
        box = self.ok("sandbox_create", disk="2g")["sandbox_id"]
        self.sh("fallocate -l 1g ahead", sandbox_id=box)
        wait_for("refused", lambda: self.call("sandbox_create", disk="16m").is_error)
        self.assertGreater(self.free(), 300 * MIB)
        self.sh("rm ahead", sandbox_id=box)
        wait_for("a create", lambda: not self.call("sandbox_create", disk="16m").is_error)


class Crash(HutchCase):
    @classmethod
    def setUpClass(cls):
        if why := no_loop_devices():
            raise unittest.SkipTest(why)
        super().setUpClass()

    def test_after_kill_9_the_next_server_leaves_no_loop_device(self):
        first = self.server("--results", "structured")
        for _ in range(3):
            box = call(first, "sandbox_create", disk="64m").structured["sandbox_id"]
            call(first, "sandbox_exec", sandbox_id=box, command="dd if=/dev/zero of=x bs=1M count=30")
        self.assertGreaterEqual(len(loops_of(self.home)), 3)
        os.kill(first.pid, signal.SIGKILL)
        first.close()
        second = self.server("--results", "structured")
        self.assertFalse(call(second, "sandbox_destroy", sandbox_id="*", confirm=True).is_error)
        second.close()
        wait_for("nothing is left", lambda: not loops_of(self.home) and not images(self.home))


class Fallback(HutchCase):
    """Without mkfs.ext4 in sight, as on a small system."""

    def test_a_host_that_cannot_make_disks_says_so_and_refuses_what_was_asked_for(self):
        if os.geteuid() != 0:
            self.skipTest("hides a program by a mount")
        # A mount namespace of the server's own, in which the program is an empty file that cannot run.
        wrapper = os.path.join(self.home, "hidden.sh")
        program = os.path.realpath(shutil.which("mkfs.ext4", path="/usr/sbin:/sbin:/usr/bin:/bin"))
        with open(wrapper, "w") as f:
            f.write(f"#!/bin/sh\nmount --bind /dev/null {program} && exec \"$@\"\n")
        os.chmod(wrapper, 0o755)
        server = Client(["unshare", "--mount", wrapper, HUTCH, "mcp", "--results", "structured"], env=self.env())
        self.addCleanup(server.close)
        refused = call(server, "sandbox_create", disk="100m")
        self.assertTrue(refused.is_error)
        self.assertRegex(refused.text, "'disk' cannot be enforced.*mkfs.ext4")
        made = call(server, "sandbox_create")
        self.assertFalse(made.is_error, made.text)
        box = made.structured["sandbox_id"]
        info = call(server, "sandbox_info", sandbox_id=box).structured
        disk = next(i for i in info["isolation"] if i["name"] == "disk")
        self.assertFalse(disk["enforced"])
        self.assertRegex(disk["detail"], "not limited.*mkfs.ext4")
        call(server, "sandbox_exec", sandbox_id=box, command="dd if=/dev/zero of=x bs=1M count=10; sync")
        self.assertGreater(call(server, "sandbox_info", sandbox_id=box).structured["disk_bytes"], 9 * MIB)

    def test_a_data_folder_that_cannot_hold_a_layer_gives_one_in_memory(self):
        if os.geteuid() != 0:
            self.skipTest("mounts")
        # An overlay cannot be the upper layer of another.
        program = os.path.realpath(shutil.which("mkfs.ext4", path="/usr/sbin:/sbin:/usr/bin:/bin"))
        wrapper = os.path.join(self.home, "overlay.sh")
        with open(wrapper, "w") as f:
            f.write(f"#!/bin/sh\nset -e\nmount --bind /dev/null {program}\nd=$HUTCH_HOME\nmkdir -p $d/top\n"
                    "mount -t tmpfs none $d/top\nmkdir $d/top/l $d/top/u $d/top/w\n"
                    "mount -t overlay -o lowerdir=$d/top/l,upperdir=$d/top/u,workdir=$d/top/w none $d/top/l\n"
                    "HUTCH_HOME=$d/top/l exec \"$@\"\n")
        os.chmod(wrapper, 0o755)
        server = Client(["unshare", "--mount", wrapper, HUTCH, "mcp", "--results", "structured"], env=self.env())
        self.addCleanup(server.close)
        made = call(server, "sandbox_create", disk="32m", memory="256m")
        self.assertFalse(made.is_error, made.text)
        box = made.structured["sandbox_id"]
        info = call(server, "sandbox_info", sandbox_id=box).structured
        disk = next(i for i in info["isolation"] if i["name"] == "disk")
        self.assertTrue(disk["enforced"])
        self.assertRegex(disk["detail"], f"^{32 * MIB}, counted as memory")
        said = call(server, "sandbox_exec", sandbox_id=box, command="dd if=/dev/zero of=fill bs=1M").structured["stderr"]
        self.assertIn("No space left on device", said)
        self.assertTrue(30 * MIB < call(server, "sandbox_info", sandbox_id=box).structured["disk_bytes"] <= 32 * MIB)


if __name__ == "__main__":
    unittest.main()
