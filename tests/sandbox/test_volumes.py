"""Volumes: files that outlive sandboxes and servers, shared by several, with a size, and mounted nowhere but inside."""
import glob
import json
import os
import shutil
import signal
import subprocess
import threading
import unittest

import leaks
from disks import MIB, OnSmallDisk, loops_of, no_loop_devices
from mcp_client import Client
from sandbox_case import HUTCH, SLOW, HutchCase, SandboxCase, call, skip_when_impossible, wait_for

NO_POOL = {"HUTCH_POOL__MIN": 0, "HUTCH_POOL__MAX": 0}

# Everything that a file can be, made by the first script and told by the second.
MAKE = """
import os
os.chdir('/data')
os.makedirs('deep/er'); os.mkdir('empty'); os.chmod('empty', 0o1777)
for name, mode, owner in (('plain', 0o644, (0, 0)), ('secret', 0o600, (1000, 1000)), ('suid', 0o4755, (0, 5)),
                          ('high', 0o640, (65534, 65535))):
    open(f'deep/{name}', 'w').write(name)
    os.chown(f'deep/{name}', *owner); os.chmod(f'deep/{name}', mode)
os.symlink('../nowhere', 'deep/link'); os.link('deep/plain', 'deep/hard')
os.setxattr('deep/plain', 'user.colour', b'blue')
os.mkfifo('pipe')
with open('sparse', 'wb') as f: f.seek(50 << 20); f.write(b'end')
os.utime('deep/plain', (1000000000, 1000000000))
"""
TELL = """
import hashlib, os, stat
for base, folders, files in sorted(os.walk('/data')):
    for path in [base] + [os.path.join(base, f) for f in sorted(files)]:
        st = os.lstat(path)
        regular = stat.S_ISREG(st.st_mode)
        print(path, oct(st.st_mode), st.st_uid, st.st_gid, st.st_nlink, st.st_size if regular else '',
              hashlib.sha1(open(path, 'rb').read()).hexdigest() if regular else '',
              st.st_blocks < 100 if regular else '', os.readlink(path) if stat.S_ISLNK(st.st_mode) else '',
              {n: os.getxattr(path, n) for n in os.listxattr(path)} if regular else '',
              int(st.st_mtime) if path.endswith('plain') else '')
"""


def data(name="data", target="/data", **more):
    return [{"name": name, "target": target, **more}]


class VolumeCase(SandboxCase):
    """As root, with loop devices."""
    server_settings = NO_POOL

    @classmethod
    def setUpClass(cls):
        if why := no_loop_devices():
            raise unittest.SkipTest(why)
        super().setUpClass()

    def tearDown(self):
        if self.client.process.poll() is None:
            self.ok("sandbox_destroy", sandbox_id="*", confirm=True)
        for volume in self.volumes():
            self.volume("rm", volume)
        wait_for("no loop device", lambda: not self.devices())

    def devices(self):
        return [text for text in loops_of(self.home) if "/volumes/" in text]

    def volume(self, *words):
        done = self.hutch("volume", *words, env=self.env(**self.server_settings))
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def volumes(self):
        return {v["name"]: v for v in json.loads(self.volume("ls", "--json"))}

    def create(self, volumes, **arguments):
        return self.ok("sandbox_create", volumes=volumes, **arguments)["sandbox_id"]

    def second_server(self, **settings):
        server = self.server("--results", "structured", env={**NO_POOL, **settings})
        self.addCleanup(lambda: server.process.poll() is None and server.close())
        return server


class Files(VolumeCase):
    def test_what_one_sandbox_writes_another_sees_at_once_also_one_of_another_server(self):
        one, two = self.create(data()), self.create(data(target="/elsewhere/deep"))
        other = self.second_server()
        three = call(other, "sandbox_create", volumes=data()).structured["sandbox_id"]
        self.sh("echo first > /data/file", sandbox_id=one)
        self.assertEqual(self.sh("cat /elsewhere/deep/file && echo second >> /elsewhere/deep/file", sandbox_id=two), "first\n")
        done = call(other, "sandbox_exec", sandbox_id=three, command="cat /data/file; echo third >> /data/file").structured
        self.assertEqual(done["stdout"], "first\nsecond\n")
        self.assertEqual(self.sh("cat /data/file", sandbox_id=one), "first\nsecond\nthird\n")
        self.assertEqual(len(self.devices()), 1)
        other.close()

    def test_files_of_every_kind_are_the_same_for_the_next_one_and_belong_to_its_users(self):
        first = self.create(data())
        self.python(MAKE, sandbox_id=first)
        told = self.python(TELL, sandbox_id=first)
        self.assertIn("/data/deep/secret 0o100600 1000 1000", told)
        self.assertIn("user.colour", told)
        self.ok("sandbox_destroy", sandbox_id=first)
        wait_for("its device is given back", lambda: not self.devices())
        self.assertEqual(self.python(TELL, sandbox_id=self.create(data())), told)

    def test_a_fresh_one_is_empty_belongs_to_root_and_its_parents_are_made(self):
        box = self.create(data(target="/srv/a/b"))
        self.assertEqual(self.sh("ls -A /srv/a/b; stat -c '%u:%g %a' /srv/a/b /srv/a", sandbox_id=box), "0:0 755\n0:0 755\n")

    def test_a_folder_that_exists_is_covered(self):
        box = self.create(data(target="/root"))
        self.assertEqual(self.sh("ls -A /root; echo x > ~/x; cat /root/x", sandbox_id=box), "x\n")

    def test_a_read_only_one_refuses_every_change(self):
        self.sh("echo kept > /data/file", sandbox_id=self.create(data()))
        box = self.create(data(read_only=True))
        done = self.ok("sandbox_exec", sandbox_id=box, command="cat /data/file; echo x > /data/file; touch /data/y; rm -f /data/file; "
                       "chmod 777 /data; mount -o remount,rw /data; echo x > /data/z; ls /data")
        self.assertEqual(done["stdout"], "kept\nfile\n")
        self.assertIn("Read-only file system", done["stderr"])
        self.assertTrue(self.ok("sandbox_info", sandbox_id=box)["volumes"][0]["read_only"])

    def test_no_device_and_no_set_user_id_of_the_hosts_works_in_it(self):
        box = self.create(data())
        flags = self.sh("grep ' /data ' /proc/self/mountinfo", sandbox_id=box)
        self.assertRegex(flags, "nosuid,nodev|nodev,nosuid")
        self.assertNotIn("nobarrier", flags, "what is synced inside would not survive a power cut")
        done = self.ok("sandbox_exec", sandbox_id=box, command="mknod /data/null c 1 3")
        self.assertNotEqual(done["exit_code"], 0)

    def test_one_inside_another_is_there_too(self):
        box = self.create([{"name": "inner", "target": "/data/in/ner"}, *data()])
        self.sh("echo x > /data/in/ner/x; echo y > /data/y", sandbox_id=box)
        other = self.create([*data(), {"name": "inner", "target": "/inner"}])
        self.assertEqual(self.sh("find /data /inner | sort", sandbox_id=other),
                         "/data\n/data/in\n/data/in/ner\n/data/y\n/inner\n/inner/x\n")

    def test_a_fork_shares_the_volumes_and_nothing_else(self):
        parent = self.create(data())
        self.sh("echo before > /data/x; echo mine > /root/x", sandbox_id=parent)
        fork = self.ok("sandbox_fork", sandbox_id=parent)["sandboxes"][0]
        self.sh("cat /data/x /root/x; echo shared > /data/x; echo own > /root/x", sandbox_id=fork)
        self.assertEqual(self.sh("cat /data/x /root/x", sandbox_id=parent), "shared\nmine\n")
        self.assertEqual([v["name"] for v in self.ok("sandbox_info", sandbox_id=fork)["volumes"]], ["data"])

    def test_a_profile_brings_its_own_and_the_call_can_put_another_in_its_place(self):
        path = os.path.join(self.home, "c.yaml")
        with open(path, "w") as file:
            file.write("profiles: {default: {volumes: [{name: cache, target: /cache}, {name: tools, target: /tools, read_only: true}]}}")
        server = self.server("--results", "structured", "--config", path, env=NO_POOL)
        self.addCleanup(server.close)
        made = call(server, "sandbox_create", volumes=data(name="mine", target="/cache/")).structured
        self.assertEqual([(v["name"], v["target"], v["read_only"]) for v in made["volumes"]],
                         [("mine", "/cache", False), ("tools", "/tools", True)])
        plain = call(server, "sandbox_create").structured
        self.assertEqual([v["name"] for v in plain["volumes"]], ["cache", "tools"])
        call(server, "sandbox_destroy", sandbox_id="*", confirm=True)


class Lives(VolumeCase):
    server_settings = {}

    def test_a_warm_sandbox_is_given_volumes(self):
        self.call("sandbox_list")
        wait_for("a warm one", lambda: any(kind["ready"] for server in json.loads(self.hutch("pool", "status", "--json").stdout)
                                           for kind in server["kinds"]))
        made = self.ok("sandbox_create", volumes=[*data(), {"name": "two", "target": "/two", "read_only": True}])
        self.assertTrue(made["warm"], made)
        self.assertEqual([v["target"] for v in made["volumes"]], ["/data", "/two"])
        self.assertEqual(self.sh("echo x > /data/x; cat /data/x; stat -c %u /data", sandbox_id=made["sandbox_id"]), "x\n0\n")

    def test_info_says_name_target_size_and_use(self):
        self.volume("create", "data", "--size", "64m")
        box = self.create(data())
        self.sh("head -c 20M /dev/urandom > /data/x; sync", sandbox_id=box)
        volume, = self.ok("sandbox_info", sandbox_id=box)["volumes"]
        self.assertEqual((volume["name"], volume["target"], volume["read_only"], volume["size"]), ("data", "/data", False, "64m"))
        self.assertTrue(20 * MIB <= volume["used_bytes"] <= 30 * MIB, volume)
        item = next(i for i in self.ok("sandbox_info", sandbox_id=box)["isolation"] if i["name"] == "volumes")
        self.assertTrue(item["enforced"], item)

    def test_files_outlive_all_sandboxes_a_killed_server_and_are_in_what_the_next_one_takes_up(self):
        first = self.second_server()
        call(first, "sandbox_create", name="box", volumes=data())
        told = call(first, "sandbox_exec", sandbox_id="box",
                    command=f"python3 - <<'E'\n{MAKE}\nE\npython3 - <<'E'\n{TELL}\nE\n").structured["stdout"]
        first.kill(signal.SIGKILL)
        first.wait()
        first.close()
        # Nobody has taken it up yet: its device goes on.
        self.assertIn("/data/deep/plain", told)
        self.assertEqual(self.python(TELL, sandbox_id=self.create(data())), told)
        refused = self.hutch("volume", "rm", "data")
        self.assertRegex(refused.stderr, r"in use by .*sbx-\w+ \(box\)")
        after = self.second_server()
        info = call(after, "sandbox_info", sandbox_id="box").structured
        self.assertEqual([v["target"] for v in info["volumes"]], ["/data"])
        done = call(after, "sandbox_exec", sandbox_id="box", command=f"python3 - <<'E'\n{TELL}\nE\n").structured
        self.assertEqual(done["stdout"], told)
        self.assertEqual(len(self.devices()), 1)
        call(after, "sandbox_destroy", sandbox_id="*", confirm=True)
        self.ok("sandbox_destroy", sandbox_id="*", confirm=True)
        after.close()
        wait_for("no device of it", lambda: not self.devices())
        self.assertEqual(self.python(TELL, sandbox_id=self.create(data())), told)

    def test_a_killed_server_leaves_no_device_of_a_volume(self):
        first = self.second_server()
        call(first, "sandbox_create", volumes=data())
        first.kill(signal.SIGKILL)
        first.wait()
        first.close()
        self.assertEqual(self.hutch("gc", "--all").returncode, 0)
        wait_for("no device", lambda: not self.devices())

    def test_what_says_which_device_it_has_is_believed_only_when_that_is_so(self):
        self.sh("echo kept > /data/x", sandbox_id=self.create(data()))
        other = self.create(data(name="other"))
        self.sh("echo other > /data/x", sandbox_id=other)
        self.ok("sandbox_destroy", sandbox_id=next(b["sandbox_id"] for b in self.ok("sandbox_list")["sandboxes"] if b["sandbox_id"] != other))
        wait_for("one device", lambda: len(self.devices()) == 1)
        with open(f"{self.home}/volumes/other/device") as file:
            of_other = file.read()
        mine = os.stat(f"{self.home}/volumes/data/disk")
        lie = json.dumps({"loop": json.loads(of_other)["loop"], "image_device": mine.st_dev, "image_inode": mine.st_ino})
        for text in ("", "{", "[]", "x" * 5000, of_other, lie):
            with open(f"{self.home}/volumes/data/device", "w") as file:
                file.write(text)
            box = self.create(data())
            self.assertEqual(self.sh("cat /data/x", sandbox_id=box), "kept\n", text[:50])
            self.ok("sandbox_destroy", sandbox_id=box)
            wait_for("one device", lambda: len(self.devices()) == 1)

    def test_two_servers_that_make_the_same_one_at_once_share_it(self):
        servers = [self.second_server() for _ in range(2)]
        for server in servers:
            call(server, "sandbox_list")
        for turn in range(3):
            made = [None, None]

            def make(i):
                made[i] = call(servers[i], "sandbox_create", volumes=data(name=f"v{turn}"))

            threads = [threading.Thread(target=make, args=(i,)) for i in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertFalse(made[0].is_error or made[1].is_error, made)
            boxes = [m.structured["sandbox_id"] for m in made]
            call(servers[0], "sandbox_exec", sandbox_id=boxes[0], command="echo shared > /data/x")
            said = call(servers[1], "sandbox_exec", sandbox_id=boxes[1], command="cat /data/x").structured["stdout"]
            self.assertEqual(said, "shared\n")
        self.assertEqual(sorted(self.volumes()), ["v0", "v1", "v2"])
        self.assertEqual([n for n in os.listdir(f"{self.home}/volumes") if n.startswith(".")], [])
        for server in servers:
            server.close()


class Size(VolumeCase):
    def test_the_size_is_hard_and_the_host_keeps_its_disk(self):
        self.volume("create", "data", "--size", "64m")
        box = self.create(data(), disk="100m")
        done = self.ok("sandbox_exec", sandbox_id=box, command="dd if=/dev/zero of=/data/fill bs=1M; sync")
        self.assertIn("No space left on device", done["stderr"])
        self.assertLessEqual(os.stat(f"{self.home}/volumes/data/disk").st_blocks * 512, 65 * MIB)
        self.assertEqual(self.sh("rm /data/fill; echo x > /data/x; cat /data/x; echo y > /root/y", sandbox_id=box), "x\n")

    def test_deleted_files_give_their_space_back_to_the_host(self):
        box = self.create(data())
        self.sh("head -c 200M /dev/urandom > /data/x; sync", sandbox_id=box)
        image = f"{self.home}/volumes/data/disk"
        self.assertGreater(os.stat(image).st_blocks * 512, 190 * MIB)
        self.sh("rm /data/x; sync", sandbox_id=box)
        wait_for("space", lambda: os.stat(image).st_blocks * 512 < 50 * MIB, timeout=30)

    def test_a_big_one_takes_next_to_nothing_while_it_is_empty(self):
        self.volume("create", "big", "--size", "100g")
        self.assertLess(os.stat(f"{self.home}/volumes/big/disk").st_blocks * 512, 64 * MIB)
        self.assertEqual(os.stat(f"{self.home}/volumes/big/disk").st_size, 100 << 30)

    def test_there_are_at_most_so_many(self):
        for i in range(2):
            self.volume("create", f"v{i}", "--size", "16m")
        server = self.second_server(HUTCH_VOLUMES__MAX=2)
        refused = call(server, "sandbox_create", volumes=data())
        self.assertTrue(refused.is_error)
        self.assertRegex(refused.text, "2 volumes already.*(?s:.*)volumes.max")
        self.assertFalse(call(server, "sandbox_create", volumes=data(name="v1")).is_error)
        server.close()


class Reserve(OnSmallDisk, VolumeCase):
    def test_a_volume_too_takes_no_more_at_the_hosts_reserve_and_goes_on_when_there_is_room(self):
        self.volume("create", "data", "--size", "2g")
        filler, other = self.create(data(), memory="512m", disk="64m"), self.create(data(name="more"), disk="64m")
        self.fill(filler, "/data/fill")
        self.assertEqual(self.sh("ls -A /data", sandbox_id=filler), "fill\n", "what takes the room is not seen")
        self.assertNotEqual(self.ok("sandbox_exec", sandbox_id=other, command="head -c 1M /dev/zero > /data/x")["exit_code"], 0)
        refused = self.hutch("volume", "create", "third", env=self.env(**self.server_settings))
        self.assertIn("reserve", refused.stderr)
        self.sh("rm /data/fill", sandbox_id=filler)
        for box in (filler, other):
            wait_for("room", lambda: self.ok("sandbox_exec", sandbox_id=box, command="head -c 1M /dev/zero > /data/x")["exit_code"] == 0,
                     timeout=60)

    def test_room_that_comes_back_by_the_end_of_all_sandboxes_is_noticed(self):
        self.volume("create", "data", "--size", "2g")
        filler = self.create(data(), disk="64m")
        self.sh("fallocate -l 600M /data/ahead", sandbox_id=filler)
        wait_for("refused", lambda: self.call("sandbox_create", disk="16m").is_error)
        self.ok("sandbox_destroy", sandbox_id=filler)
        wait_for("no device", lambda: not self.devices())
        self.volume("rm", "data")
        wait_for("a create", lambda: not self.call("sandbox_create", disk="16m").is_error)


class Targets(VolumeCase):
    def test_everything_that_is_wrong_is_said_at_once(self):
        said = self.refused("sandbox_create", volumes=[
            *data(name="../../etc"), *data(name="ok", target="relative"), *data(name="ok", target="/proc/x"),
            *data(name="ok", target="/a/../b"), *data(name="one", target="/twice"), *data(name="two", target="/twice/")])
        for part in ("'../../etc' cannot be", "'relative'", "'/proc/x'", "'/a/../b'", "two volumes have the target '/twice'"):
            self.assertIn(part, said)
        self.assertEqual(self.volumes(), {})

    def test_hostile_names_and_targets_are_refused_and_nothing_is_made(self):
        for name in ("", ".", "..", ".x", "a/b", "/abs", "-rf", "sbx-1", "a b", "x\ny", "é", "a" * 65, "a\u0000b"):
            self.refused("sandbox_create", volumes=data(name=name))
        for target in ("", "/", "//", "x", "/proc", "/proc/self", "/sys/x", "/dev", "/dev/shm/x", "/run", "/run/hutch", "/usr", "/etc",
                       "/bin", "/lib", "/var", "/var/log/hutch", "/a/./b", "/a/..", "/x\u0000y", "/" + "a" * 2000):
            self.refused("sandbox_create", volumes=data(target=target))
        self.refused("sandbox_create", volumes=[{"name": f"v{i}", "target": f"/v{i}"} for i in range(17)])
        self.assertEqual(self.volumes(), {})
        self.assertEqual(self.ok("sandbox_list")["sandboxes"], [])

    def test_a_target_that_is_a_file_is_refused(self):
        for target in ("/etc/passwd", "/etc/passwd/x", "/usr/bin/env"):
            self.assertRegex(self.refused("sandbox_create", volumes=data(target=target)), "is no folder")

    def test_a_link_that_leads_to_where_none_may_be_is_refused_and_others_are_followed_inside(self):
        # In the root of every sandbox: /bin is a link to /usr/bin, /etc/mtab one into /proc.
        self.assertRegex(self.refused("sandbox_create", volumes=data(target="/bin")), "hide")
        self.assertRegex(self.refused("sandbox_create", volumes=data(target="/etc/mtab/x")), "(?i)link|folder|/proc")
        if not os.path.islink("/lib"):
            self.skipTest("/lib is no link here")
        box = self.create(data(target="/lib/of/mine"))
        self.assertEqual(self.sh("echo x > /usr/lib/of/mine/x; cat /lib/of/mine/x", sandbox_id=box), "x\n")

    def test_links_in_a_volume_never_lead_a_mount_out_of_the_sandbox(self):
        first = self.create(data())
        outside = os.path.join(self.home, "outside")
        os.mkdir(outside)
        self.sh(f"cd /data; ln -s {outside} out; ln -s ../../../../../../{outside} up; ln -s /proc/1/root magic; ln -s /proc proc; "
                "ln -s loop loop; ln -s /nowhere/at/all broken; ln -s / root; ln -s /root home", sandbox_id=first)
        before = leaks.mounts()
        made = []
        for link in ("out", "up"):  # inside, that is a folder to be made
            refused = self.call("sandbox_create", volumes=[*data(), {"name": "inner", "target": f"/data/{link}"}])
            self.assertTrue(refused.is_error or made.append(refused), refused)
        for link in ("magic", "proc", "proc/self", "loop", "broken", "root"):
            said = self.refused("sandbox_create", volumes=[*data(), {"name": "inner", "target": f"/data/{link}"}])
            self.assertRegex(said, "volume|make|link", link)
        self.assertEqual(os.listdir(outside), [])
        self.assertEqual(leaks.mounts().keys() - before.keys(), set())
        box = self.create([*data(), {"name": "inner", "target": "/data/home"}])
        self.assertEqual(self.sh("echo x > /root/x; cat /data/home/x; findmnt -no TARGET /root || true", sandbox_id=box).split()[0], "x")


class Command(VolumeCase):
    def test_ls_create_and_rm_say_what_they_did(self):
        self.assertIn("no volume", self.volume("ls"))
        self.assertIn("created cache of 64m", self.volume("create", "cache", "--size", "64m"))
        made = json.loads(self.volume("create", "other", "--json"))
        self.assertEqual((made["name"], made["size_bytes"], made["size_enforced"]), ("other", 10 << 30, True))
        self.assertRegex(self.volume("ls"), r"cache +64m +[\d.]+ \wB +2\d\d\d-.* -\n")
        self.assertEqual(sorted(self.volumes()), ["cache", "other"])
        self.assertIn("removed cache\nremoved other\n", self.volume("rm", "cache", "other"))
        self.assertEqual(self.volumes(), {})

    def test_what_cannot_be_done_is_an_error_that_says_why(self):
        self.volume("create", "cache", "--size", "64m")
        for words, said in ((("create", "cache"), "exists already"), (("create", "../x"), "cannot be a volume's name"),
                            (("create", "x", "--size", "1k"), "16m"), (("create", "x", "--size", "big"), "no size"),
                            (("rm", "nothing"), "no volume 'nothing'"), (("rm", "../volumes/cache"), "cannot be"), ((), "hutch volume ls"),
                            (("rm",), "hutch volume ls"), (("ls", "--size", "5g"), "hutch volume ls")):
            done = self.hutch("volume", *words)
            self.assertNotEqual(done.returncode, 0, words)
            self.assertIn(said, done.stderr)
        self.assertEqual(list(self.volumes()), ["cache"])

    def test_one_in_use_is_not_removed_until_the_last_sandbox_is_gone(self):
        one, two = self.create(data(), name="first"), self.create(data(read_only=True))
        refused = self.hutch("volume", "rm", "data")
        self.assertNotEqual(refused.returncode, 0)
        for box in (f"{one} (first)", two):
            self.assertIn(box, refused.stderr)
        self.assertEqual(set(self.volumes()["data"]["used_by"]), {f"{one} (first)", two})
        self.ok("sandbox_destroy", sandbox_id=one)
        self.assertNotEqual(self.hutch("volume", "rm", "data").returncode, 0)
        self.ok("sandbox_destroy", sandbox_id=two)
        self.volume("rm", "data")
        self.assertEqual(os.listdir(f"{self.home}/volumes"), [])

    def test_a_process_that_is_killed_while_it_makes_one_leaves_nothing_visible(self):
        self.volume("create", "other", "--size", "16m")
        slow = os.path.join(self.home, "slow")
        os.mkdir(slow)
        with open(f"{slow}/mkfs.ext4", "w") as file:  # stands still in the middle
            file.write("#!/bin/sh\nexec sleep 1000\n")
        os.chmod(f"{slow}/mkfs.ext4", 0o755)
        maker = subprocess.Popen([HUTCH, "volume", "create", "half"], stdin=subprocess.DEVNULL,
                                 env=self.env(PATH=f"{slow}:{os.environ['PATH']}"))
        hidden = wait_for("it has begun", lambda: [n for n in os.listdir(f"{self.home}/volumes") if n.startswith(".")])
        children = wait_for("mkfs", lambda: open(f"/proc/{maker.pid}/task/{maker.pid}/children").read().split())
        self.assertTrue(glob.glob(f"{self.home}/volumes/{hidden[0]}/disk"))
        self.assertEqual(list(self.volumes()), ["other"])
        self.volume("create", "another", "--size", "16m")
        self.assertTrue(os.path.exists(f"{self.home}/volumes/{hidden[0]}"), "its maker is alive")
        maker.kill()
        maker.wait()
        for child in children:
            os.kill(int(child), signal.SIGKILL)
        self.assertEqual(sorted(self.volumes()), ["another", "other"])
        self.assertEqual(self.hutch("gc").returncode, 0)
        self.assertEqual(sorted(os.listdir(f"{self.home}/volumes")), ["another", "other"])
        self.volume("create", "half", "--size", "16m")


class WithoutDisks(HutchCase):
    """Without mkfs.ext4 in sight, as on a small system: a plain folder, whose owners are shifted all the same."""

    def test_a_plain_folder_is_shared_and_said_to_have_no_size(self):
        if os.geteuid() != 0:
            self.skipTest("hides a program by a mount")
        skip_when_impossible()
        wrapper = os.path.join(self.home, "hidden.sh")
        program = os.path.realpath(shutil.which("mkfs.ext4", path="/usr/sbin:/sbin:/usr/bin:/bin"))
        with open(wrapper, "w") as f:
            f.write(f"#!/bin/sh\nmount --bind /dev/null {program} && exec \"$@\"\n")
        os.chmod(wrapper, 0o755)
        server = Client(["unshare", "--mount", wrapper, HUTCH, "mcp", "--results", "structured"], env=self.env(**NO_POOL))
        self.addCleanup(server.close)
        made = [call(server, "sandbox_create", volumes=data()) for _ in range(2)]
        self.assertFalse(made[0].is_error, made[0].text)
        one, two = (m.structured["sandbox_id"] for m in made)
        item = next(i for i in made[0].structured["isolation"] if i["name"] == "volumes")
        self.assertFalse(item["enforced"])
        self.assertRegex(item["detail"], "'data' is not limited.*mkfs.ext4")
        call(server, "sandbox_exec", sandbox_id=one, command="echo x > /data/x; chown 1000 /data/x")
        done = call(server, "sandbox_exec", sandbox_id=two, command="cat /data/x; stat -c %u /data /data/x").structured
        self.assertEqual(done["stdout"], "x\n0\n1000\n")
        self.assertEqual(os.stat(f"{self.home}/volumes/data/files/x").st_uid, 1000)
        self.assertEqual(os.stat(f"{self.home}/volumes").st_mode & 0o777, 0o700)
        refused = self.hutch("volume", "rm", "data")
        self.assertRegex(refused.stderr, f"(?s)in use by.*{one}")
        call(server, "sandbox_destroy", sandbox_id="*", confirm=True)
        self.assertEqual(self.hutch("volume", "rm", "data").returncode, 0)


class WithoutPower(HutchCase):
    """A server that is not root: a folder that is there from the sandbox's start on."""

    def as_user(self, *command):
        env = self.env(HUTCH_HOME=self.mine, HOME=self.mine, **NO_POOL)
        return ["setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups", self.program, *command], env

    def run_as_user(self, *words):
        command, env = self.as_user(*words)
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)

    def setUp(self):
        if os.geteuid() != 0 or not shutil.which("setpriv"):
            self.skipTest("needs root to become somebody without power")
        os.chmod(self.home, 0o711)
        self.program = shutil.copy(HUTCH, os.path.join(self.home, "hutch"))  # the build folder may be root's own
        os.chmod(self.program, 0o755)
        self.mine = os.path.join(self.home, "mine")
        os.mkdir(self.mine)
        os.chown(self.mine, 12345, 12345)
        if self.run_as_user("doctor").returncode == 1:
            self.skipTest("users can run no sandboxes on this host")

    def test_sandboxes_of_a_user_share_a_folder_whose_size_is_said_not_to_hold(self):
        command, env = self.as_user("mcp", "--results", "structured")
        server = Client(command, env=env)
        self.addCleanup(server.close)
        made = [call(server, "sandbox_create", volumes=data(target="/srv/deep/er")) for _ in range(2)]
        self.assertFalse(made[0].is_error, made[0].text)
        one, two = (m.structured["sandbox_id"] for m in made)
        item = next(i for i in made[0].structured["isolation"] if i["name"] == "volumes")
        self.assertEqual((item["enforced"], "loop devices are for root" in item["detail"]), (False, True), item)
        done = call(server, "sandbox_exec", sandbox_id=one, command="echo x > /srv/deep/er/x && ls -ln /srv/deep/er").structured
        self.assertEqual(done["exit_code"], 0, done)
        said = call(server, "sandbox_exec", sandbox_id=two, command="cat /srv/deep/er/x; stat -c %u /srv/deep/er/x").structured["stdout"]
        self.assertEqual(said, "x\n0\n")
        read_only = call(server, "sandbox_create", volumes=data(read_only=True)).structured["sandbox_id"]
        done = call(server, "sandbox_exec", sandbox_id=read_only, command="cat /data/x; echo y > /data/x").structured
        self.assertEqual((done["stdout"], done["exit_code"] != 0), ("x\n", True), done)
        for target, why in (("/etc/passwd", "no folder"), ("/etc/mtab/x", "folder|link|/proc"), ("/bin", "hide")):
            refused = call(server, "sandbox_create", volumes=data(target=target))
            self.assertTrue(refused.is_error)
            self.assertRegex(refused.text, why)
        self.assertRegex(self.run_as_user("volume", "rm", "data").stderr, f"(?s)in use by.*{one}")
        call(server, "sandbox_destroy", sandbox_id="*", confirm=True)
        self.assertEqual(self.run_as_user("volume", "rm", "data").returncode, 0)
        self.assertEqual(os.listdir(f"{self.mine}/volumes"), [])


if __name__ == "__main__":
    unittest.main()
