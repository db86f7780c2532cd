"""Base of the tests that work with background processes: start, read, wait, and what is left of them."""
import atexit
import concurrent.futures
import glob
import os
import re
import shutil
import tempfile
import time

from sandbox_case import SLOW, HutchCase, SandboxCase, wait_for

OURS = ("hutch-agent", "hutch-spare")  # what every sandbox has when nothing runs in it
LONG = bool(os.environ.get("HUTCHTEST_LONG"))


def status_bytes(pid, field):
    """VmRSS, VmHWM... of a process."""
    with open(f"/proc/{pid}/status") as file:
        return int(re.search(rf"^{field}:\s+(\d+) kB", file.read(), re.M)[1]) * 1024


def forget_peak(pid):
    """Sets VmHWM to what is in use now."""
    with open(f"/proc/{pid}/clear_refs", "w") as file:
        file.write("5")


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def host_processes(box):
    """{pid: name} of all that runs in a sandbox, as the host sees it; zombies too."""
    found = {}
    for path in glob.glob("/proc/[0-9]*/cgroup"):
        try:
            with open(path) as cgroup, open(path.replace("cgroup", "comm")) as name:
                if box in cgroup.read():
                    found[int(path.split("/")[2])] = name.read().strip()
        except OSError:
            continue  # it has ended meanwhile
    return found


def commands_left(box):
    """What is not hutch's own: empty when all that was started has ended."""
    return {pid: name for pid, name in host_processes(box).items() if name not in OURS}


class SharedFolder(HutchCase):
    """One data folder for all classes of a file, each with a server of its own: a fresh one takes seconds to prepare."""
    shared = None

    @classmethod
    def data_folder(cls):
        if not SharedFolder.shared:
            SharedFolder.shared = tempfile.mkdtemp(prefix="hutch-test-")
            atexit.register(shutil.rmtree, SharedFolder.shared, ignore_errors=True)
        return SharedFolder.shared


class ProcessCase(SharedFolder, SandboxCase):
    def box(self, **arguments):
        made = self.ok("sandbox_create", **arguments)["sandbox_id"]
        self.addCleanup(self.call, "sandbox_destroy", sandbox_id=made)
        return made

    def start(self, box, command, **arguments):
        """Starts a command in the background; its number."""
        done = self.ok("sandbox_exec", sandbox_id=box, command=command, background=True, **arguments)
        self.assertEqual(done["end"], "running", done)
        return done["process_id"]

    def process(self, box, action, number, **arguments):
        return self.ok("sandbox_process", sandbox_id=box, action=action, process_id=number, **arguments)

    def ended(self, box, number, wait_s=30):
        """Waits until nothing of it is left; what is known of its end."""
        done = self.process(box, "wait", number, wait_s=wait_s * SLOW, output_limit=200)["processes"][0]
        self.assertEqual(done["state"], "ended", done)
        return done

    def read_until(self, box, number, pattern, timeout=20, **arguments):
        """Reads, piece by piece, until all that was read matches; all of it."""
        text, end = "", time.monotonic() + timeout * SLOW
        while not re.search(pattern, text):
            self.assertLess(time.monotonic(), end, f"no {pattern!r} in {text[-2000:]!r}")
            text += self.process(box, "read", number, wait_s=2, **arguments)["output"]
        return text

    def screen_with(self, box, number, pattern, timeout=20):
        """Waits until the screen matches; the result of that read."""
        end, wait_s = time.monotonic() + timeout * SLOW, 0
        while not re.search(pattern, (seen := self.process(box, "read", number, wait_s=wait_s))["output"], re.M):
            self.assertLess(time.monotonic(), end, f"no {pattern!r} on the screen:\n{seen['output']}")
            wait_s = 0.3  # it may have come before, and nothing more
        return seen

    def type(self, box, number, keys, wait_s=0):
        return self.process(box, "write", number, input=keys, wait_s=wait_s)

    def assert_nothing_left(self, box, what=""):
        """From outside and from inside."""
        wait_for(f"all of {what or 'it'} has ended", lambda: not commands_left(box), 1)
        inside = self.sh("ps -eo comm=", sandbox_id=box).split()
        self.assertEqual(set(inside) - {*OURS, "hutch-super", "bash", "sh", "ps"}, set(), what)

    def at_once(self, jobs):
        """Runs functions side by side; their results."""
        with concurrent.futures.ThreadPoolExecutor(len(jobs)) as pool:
            return [job.result() for job in [pool.submit(job) for job in jobs]]
