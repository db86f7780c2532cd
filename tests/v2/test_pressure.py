"""Memory pressure on cgroup v2: the memory of a whole machine, which guest.sh runs in."""
import glob
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../support"))
from pressure_case import MIB, PressureCase  # noqa: E402

FILES = ("memory.high", "memory.max", "memory.swap.max", "cpu.max")


class Pressure(PressureCase):
    @classmethod
    def memory(cls):
        with open("/proc/meminfo") as file:
            sizes = {line.split()[0]: int(line.split()[1]) << 10 for line in file}
        return sizes["MemTotal:"], sizes["MemAvailable:"]

    @staticmethod
    def folder(box):
        return glob.glob(f"/sys/fs/cgroup/hutch.slice/*/{box}")[0]

    def value(self, box, name):
        with open(f"{self.folder(box)}/{name}") as file:
            return file.read().strip()

    def limits(self, box):
        return {name: self.value(box, name) for name in FILES}

    def asked(self, mib, cpus):
        return {"memory.high": "max", "memory.max": str(mib * MIB), "memory.swap.max": "0",
                "cpu.max": f"{int(cpus * 100_000)} 100000"}

    def is_throttled(self, before, now):
        high = now["memory.high"]
        others = {name: text for name, text in now.items() if name != "memory.high"}
        return before["memory.high"] == "max" and others.items() <= before.items() and high != "max" and \
            16 * MIB <= int(high) <= int(now["memory.max"])

    def unthrottle(self, box, limits):
        with open(f"{self.folder(box)}/memory.high", "w") as file:
            file.write(limits["memory.high"])

    def is_frozen(self, box):
        return "frozen 1" in self.value(box, "cgroup.events")


del PressureCase  # it is no test by itself
