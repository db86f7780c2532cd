"""The host's disk runs full in the middle of something: that is said, nothing half made is seen, and the room is given back."""
import glob
import json
import os
import unittest

from disks import MIB, OnSmallDisk, no_loop_devices
from image_case import ImageCase, MadeUpRegistry, busybox_entries, entry, oci_layout, tar_of
from sandbox_case import SandboxCase, call, wait_for

IS_FULL = "the disk that the data folder lies on is full"


class SmallDiskCase(OnSmallDisk, SandboxCase, ImageCase):
    @classmethod
    def setUpClass(cls):
        if why := no_loop_devices():
            raise unittest.SkipTest(why)
        super().setUpClass()

    @classmethod
    def env(cls, **extra):
        return super().env(**{**cls.server_settings, **extra})

    def image_refused(self, *words, **options):
        return ImageCase.refused(self, *words, **options)


class FullDisk(SmallDiskCase):
    server_settings = {**OnSmallDisk.server_settings, "HUTCH_LIMITS__DISK_RESERVE": "1m"}

    def setUp(self):
        self.filler = f"{self.home}/filler"
        self.addCleanup(lambda: os.path.exists(self.filler) and os.unlink(self.filler))

    def leave(self, mib):
        """Takes all of the disk but so much."""
        with open(self.filler, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, self.free() - mib * MIB)

    def make_room(self):
        os.unlink(self.filler)

    def begun(self):
        """What there is of layers and images, whole or half made."""
        return sorted(glob.glob(f"{self.home}/layers/*") + glob.glob(f"{self.home}/layers/.*") + glob.glob(f"{self.home}/images/.work*") +
                      glob.glob(f"{self.home}/templates/*") + glob.glob(f"{self.home}/setups/*.json"))

    def assert_given_back(self, free, begun):
        self.assertEqual(self.begun(), begun)
        # A loop device lets go of its file when the last of its processes does.
        wait_for("the room is given back", lambda: self.free() > free - 4 * MIB)

    def assert_too_little(self, said):
        self.assertIn("MiB are free on the disk", said)
        self.assertIn("hutch gc", said)

    def whole(self, box):
        """Reads what is on the host's disk, not what is in memory still."""
        self.python("import os\nf = os.open('big', os.O_RDONLY)\nos.posix_fadvise(f, 0, 0, os.POSIX_FADV_DONTNEED)", sandbox_id=box)
        return self.ok("sandbox_exec", sandbox_id=box, command="sha256sum -c sum")["exit_code"] == 0

    def with_big_file(self):
        box = self.ok("sandbox_create", memory="512m", disk="400m")["sandbox_id"]
        # Nothing of it is on the host's disk before somebody asks for that: inside, `sync` does nothing.
        self.sh("head -c 150M /dev/urandom > big && sha256sum big > sum", sandbox_id=box)
        return box

    def assert_refused_without_a_trace(self, box):
        free, begun = self.free(), self.begun()
        self.assert_too_little(self.refused("sandbox_create_template", sandbox_id=box, name="big"))
        self.assert_given_back(free, begun)
        self.assert_too_little(self.refused("sandbox_fork", sandbox_id=box))
        self.assert_given_back(free, begun)

    def assert_goes_on(self, box):
        self.sh("echo more > more", sandbox_id=box)
        self.ok("sandbox_create_template", sandbox_id=box, name="big")
        copy = self.ok("sandbox_create", template="big", disk="400m")["sandbox_id"]
        fork, = self.ok("sandbox_fork", sandbox_id=box)["sandboxes"]
        for one in (box, copy, fork):
            self.assertTrue(self.whole(one))
            self.assertEqual(self.sh("cat more", sandbox_id=one), "more\n")
        self.ok("sandbox_destroy", sandbox_id="*", confirm=True)
        self.ok("sandbox_delete_template", name="big")
        wait_for("its layer is removed", lambda: not self.begun())

    def test_a_template_or_fork_without_room_is_refused_and_its_sandbox_goes_on(self):
        box = self.with_big_file()
        os.sync()
        self.leave(80)
        self.assert_refused_without_a_trace(box)
        self.assertTrue(self.whole(box))
        self.make_room()
        self.assert_goes_on(box)

    def test_what_a_sandbox_has_still_to_write_needs_room_too_and_is_not_lost_by_a_save(self):
        box = self.with_big_file()
        self.leave(200)  # for it, but not for it and its copy
        self.assert_refused_without_a_trace(box)
        os.sync()
        self.assertTrue(self.whole(box))
        self.make_room()
        self.assert_goes_on(box)

    def test_a_sandbox_that_lost_what_it_wrote_says_so_and_is_not_handed_on(self):
        lost = "is lost, and reads as zeros"
        box = self.with_big_file()
        self.leave(80)  # by somebody who is not hutch
        os.sync()
        wait_for("its next result says so", lambda: lost in self.call("sandbox_exec", sandbox_id=box, command="true").text)
        self.assertFalse(self.whole(box))
        self.make_room()
        wait_for("sandboxes can be made again", lambda: not self.call("sandbox_create", name="other").is_error)
        self.assertIn(lost, self.ok("sandbox_info", sandbox_id=box)["pressure"])
        self.assertNotIn("pressure", self.ok("sandbox_info", sandbox_id="other"))
        begun = self.begun()
        for tool, arguments in (("sandbox_create_template", {"name": "big"}), ("sandbox_fork", {})):
            self.assertIn(lost, self.refused(tool, sandbox_id=box, **arguments))
        self.assertEqual(self.begun(), begun)
        self.assertEqual(self.sh("echo it works > new; cat new", sandbox_id=box), "it works\n")
        self.ok("sandbox_destroy", sandbox_id="*", confirm=True)

    def test_a_setup_without_room_is_not_kept(self):
        with open(f"{self.work}/setup.yaml", "w") as file:
            json.dump({"profiles": {"p": {"memory": "512m", "setup": ["head -c 150M /dev/urandom > /root/big"]}}}, file)
        self.leave(230)
        free = self.free()
        begun = self.begun()
        with self.server("--results", "structured", "--config", f"{self.work}/setup.yaml") as server:
            done = call(server, "sandbox_create", profile="p")
            self.assertTrue(done.is_error, done.text)
            self.assert_too_little(done.text)
        self.assert_given_back(free, begun)

    def test_in_the_middle_of_an_image_being_unpacked(self):
        path = self.write("root.tar", tar_of(busybox_entries([entry("big", os.urandom(150 * MIB))])))
        self.leave(80)
        free = self.free()
        self.assertIn(IS_FULL, self.image_refused("import", path, "--name", "big"))
        self.assert_given_back(free, [])
        self.assertEqual(self.images(), [])
        self.make_room()
        self.made("import", path, "--name", "big")

    def test_in_the_middle_of_a_pull(self):
        source = self.place("source")
        oci_layout(source, [tar_of(busybox_entries([entry("big", os.urandom(150 * MIB))]))], compress=True)
        with MadeUpRegistry(source) as registry:
            config = self.config(registry.host)
            self.leave(80)
            free = self.free()
            said = self.image_refused("pull", f"{registry.host}/big", config=config)
            self.assertIn(IS_FULL, said)
            self.assertIn(f"pulling {registry.host}/big", said)
            self.assert_given_back(free, [])
            self.make_room()
            self.made("pull", f"{registry.host}/big", config=config, timeout=120)


class Reserve(SmallDiskCase):
    server_settings = {**OnSmallDisk.server_settings, "HUTCH_LIMITS__DISK_RESERVE": "650m"}

    def test_no_image_is_brought_at_the_reserve(self):
        path = self.write("root.tar", tar_of(busybox_entries()))
        with open(f"{self.home}/filler", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, 30 * MIB)
        said = self.image_refused("import", path, "--name", "x")
        self.assertIn("limits.disk_reserve", said)
        self.assertIn("limits.disk_reserve", self.call("sandbox_create", image="127.0.0.1:1/none").text)
        os.unlink(f"{self.home}/filler")


if __name__ == "__main__":
    unittest.main()
