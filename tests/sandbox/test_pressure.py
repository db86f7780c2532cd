"""Memory pressure on cgroup v1, in a memory group of the test's own: its limit decides, and no other process is in danger.
tests/v2/test_pressure.py is the same on v2."""
import glob
import os
import unittest

from pressure_case import MIB, PressureCase
from sandbox_case import wait_for

MEMORY = "/sys/fs/cgroup/memory"
LIMIT = 512 * MIB


def own_group():
    with open("/proc/self/cgroup") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            if "memory" in controllers.split(","):
                # In a container the mount shows only what is below our own group.
                return MEMORY + path if os.path.isdir(MEMORY + path) else MEMORY
    return None


def value(path):
    with open(path) as file:
        return int(file.read())


@unittest.skipUnless(os.path.exists(f"{MEMORY}/memory.limit_in_bytes") and os.geteuid() == 0,
                     "needs root and cgroup v1; tests/v2 does the same on v2")
class Pressure(PressureCase):
    @classmethod
    def setUpClass(cls):
        cls.group = f"{own_group()}/pressure-test-{os.getpid()}"
        os.mkdir(cls.group)
        cls.addClassCleanup(os.rmdir, cls.group)
        with open(f"{cls.group}/memory.limit_in_bytes", "w") as file:
            file.write(str(LIMIT))
        cls.prefix = ("sh", "-c", f'echo $$ >{cls.group}/cgroup.procs && exec "$@"', "-")
        super().setUpClass()

    @classmethod
    def memory(cls):
        used = value(f"{cls.group}/memory.usage_in_bytes")
        with open(f"{cls.group}/memory.stat") as file:
            stat = dict(line.split() for line in file)
        return LIMIT, LIMIT - used + int(stat["total_inactive_file"]) + int(stat["total_active_file"])

    @staticmethod
    def folder(controller, box):
        found = glob.glob(f"/sys/fs/cgroup/{controller}/**/hutch/*/{box}", recursive=True)
        assert len(found) == 1, f"{controller}: {found}"
        return found[0]

    def limits(self, box):
        files = {name: f"{self.folder(name.split('.')[0], box)}/{name}"
                 for name in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "cpu.cfs_quota_us")}
        return {name: value(path) for name, path in files.items() if os.path.exists(path)}

    def asked(self, mib, cpus):
        asked = {"memory.limit_in_bytes": mib * MIB, "cpu.cfs_quota_us": int(cpus * 100_000)}
        if os.path.exists(f"{MEMORY}/memory.memsw.limit_in_bytes"):
            asked["memory.memsw.limit_in_bytes"] = mib * MIB
        return asked

    def is_throttled(self, before, now):
        return (now["cpu.cfs_quota_us"] == before["cpu.cfs_quota_us"] // 4 and
                16 * MIB <= now["memory.limit_in_bytes"] < before["memory.limit_in_bytes"])

    def unthrottle(self, box, limits):
        def written():
            try:
                for name in sorted(limits, reverse=True):  # memsw before the limit
                    with open(f"{self.folder(name.split('.')[0], box)}/{name}", "w") as file:
                        file.write(str(limits[name]))
                return True
            except OSError:  # the server's look came in between
                return False
        wait_for("the limits are written from outside", written)

    def is_frozen(self, box):
        with open(f"{self.folder('freezer', box)}/freezer.state") as file:
            return file.read().strip() == "FROZEN"


del PressureCase  # it is no test by itself
