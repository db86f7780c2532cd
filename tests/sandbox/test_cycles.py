"""A server that makes, uses and removes sandboxes for days costs at the end what it cost at the beginning."""
import glob
import json
import os
import re
import statistics

import leaks
from process_case import LONG
from sandbox_case import HutchCase, call, skip_when_impossible, slow, wait_for

# Until allocators, caches and the list of ended sandboxes have their size; then two windows that are compared.
WARM_UP, BETWEEN, WINDOW = (1500, 7500, 500) if LONG else (120, 100, 40)
SAMPLES = 10
MEMORY_BYTES = 2 << 20


def smaps_bytes(pid, field):
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return int(re.search(rf"^{field}:\s+(\d+) kB", file.read(), re.M)[1]) * 1024


def zombies(pid):
    found = []
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(path) as file:
                name, state, parent = re.search(r"\((.*)\) (.) (\d+)", file.read()).groups()
        except (OSError, TypeError):
            continue
        if state == "Z" and int(parent) == pid:
            found.append(name)
    return found


class Cycles(HutchCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        skip_when_impossible()

    def setUp(self):
        # A pool of one size, so that every look at a server at rest counts the same.
        self.client = self.server("--results", "structured", env={"HUTCH_POOL__MIN": 2, "HUTCH_POOL__MAX": 2})
        self.addCleanup(self.client.close)
        call(self.client, "sandbox_list")

    def one(self):
        box = call(self.client, "sandbox_create").structured["sandbox_id"]
        done = call(self.client, "sandbox_exec", sandbox_id=box, command="echo x > file; cat file")
        self.assertEqual(done.structured["stdout"], "x\n")
        self.assertFalse(call(self.client, "sandbox_destroy", sandbox_id=box).is_error)

    def rest(self):
        """Until the pool is full: then nothing is under way."""
        def full():
            kinds = json.loads(self.hutch("pool", "status", "--json").stdout)[0]["kinds"]
            return any(k["ready"] == 2 and not k["building"] for k in kinds)
        wait_for("a full pool", full)

    def costs(self):
        self.rest()
        pid = self.client.pid
        server, = os.listdir(f"{self.home}/servers")
        return {"memory": smaps_bytes(pid, "Private_Dirty"), "fds": len(os.listdir(f"/proc/{pid}/fd")),
                "threads": len(os.listdir(f"/proc/{pid}/task")), "mounts": len(leaks.mounts()),
                "loops": len(leaks.loops(self.home)), "cgroups": len([g for g in leaks.cgroups() if server in g]),
                "folders": len(glob.glob(f"{self.home}/servers/*/sandboxes/*"))}

    def window(self):
        seen = []
        for _ in range(SAMPLES):
            for _ in range(WINDOW // SAMPLES):
                self.one()
            seen.append(self.costs())
        return {name: statistics.mean(s[name] for s in seen) for name in seen[0]}

    @slow
    def test_make_use_and_remove_cost_no_descriptor_thread_mount_cgroup_or_memory(self):
        for _ in range(WARM_UP):
            self.one()
        first = self.window()
        for _ in range(BETWEEN):
            self.one()
        last = self.window()
        print("     " + ", ".join(f"{name} {first[name]:.1f} -> {last[name]:.1f}" for name in first), flush=True)
        self.assertLess(last["memory"] - first["memory"], MEMORY_BYTES)
        for name in ("fds", "mounts", "loops", "cgroups", "folders"):
            self.assertLess(last[name], first[name] + 1, (name, first, last))
        self.assertLess(last["threads"], first["threads"] + 4)  # those for calls come when calls meet, and stay

    def test_the_runtimes_helpers_leave_no_zombies(self):
        boxes = [call(self.client, "sandbox_create").structured["sandbox_id"] for _ in range(3)]
        self.rest()
        # A helper may end a moment after its sandbox is there; the server looks once a second.
        wait_for("no zombies", lambda: zombies(self.client.pid) == [])
        for box in boxes:
            call(self.client, "sandbox_destroy", sandbox_id=box)
