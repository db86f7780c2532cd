#!/usr/bin/env python3
"""What hutch could leave behind on the host, counted before and after: processes, mounts, cgroups, loop devices,
runtime state, folders of servers.

    with leaks.check(home):          # in a test: raises Leak when something is left after the deadline
        ...
    leaks.py -- COMMAND...           # around a whole suite: exit status of COMMAND, or 99 for a leak

The command form makes itself the reaper of everything that COMMAND starts (PR_SET_CHILD_SUBREAPER), so that a
process cannot hide by a double fork, and other hutch servers on the machine are not blamed on the suite.
"""
import contextlib
import ctypes
import glob
import os
import signal
import sys
import time

NAMES = ("hutch", "crun", "runc", "runsc", "passt", "pasta")
RUNTIME_STATE = ("/run/crun", "/run/runc", "/run/runsc")
PR_SET_CHILD_SUBREAPER = 36
DEADLINE_S = float(os.environ.get("HUTCHTEST_LEAK_DEADLINE_S", "10"))


class Leak(Exception):
    pass


def _read(path):
    try:
        with open(path, "rb") as f:
            return f.read().decode(errors="replace")
    except OSError:
        return ""


def _stat(pid):
    """(comm, state, parent) of a process, or None when it is gone."""
    text = _read(f"/proc/{pid}/stat")
    if not text:
        return None
    comm, rest = text[text.index("(") + 1:text.rindex(")")], text[text.rindex(")") + 2:].split()
    return comm, rest[0], int(rest[1])


def _ours():
    """Processes of the suite, by pid: all descendants of the reaper when there is one, else those with a telling
    name. Zombies count: they hold a pid and a place in the pids limit."""
    table = {int(p): s for p in os.listdir("/proc") if p.isdigit() and (s := _stat(p))}
    root = int(os.environ.get("HUTCHTEST_LEAK_ROOT", "0"))

    def parents(pid):
        while pid in table and pid > 1:
            yield pid
            pid = table[pid][2]

    mine = set(parents(os.getpid()))
    return {p: table[p] for p in table if p not in mine
            and (root in parents(p) if root else table[p][0].startswith(NAMES))}


def processes():
    return {p: f"process {p} {comm} [{state}] {_read(f'/proc/{p}/cmdline')[:120]!r}"
            for p, (comm, state, _) in _ours().items()}


def mounts():
    # The key leaves out the mount id, which says nothing, and the options, which may change.
    lines = (line.split() for line in _read("/proc/self/mountinfo").splitlines())
    return {(f[2], f[3], f[4]): f"mount {f[4]} ({f[f.index('-') + 1]} {f[3]})" for f in lines}


def cgroups():
    found, ours = {}, None
    for base, folders, _ in os.walk("/sys/fs/cgroup"):
        for name in folders:
            path = os.path.join(base, name)
            # The common parent may stay: other servers use it.
            if "hutch" not in os.path.relpath(path, "/sys/fs/cgroup") or name in ("hutch", "hutch.slice"):
                continue
            held = {int(p) for d, _, _ in os.walk(path) for p in _read(d + "/cgroup.procs").split()}
            if held:  # full of somebody else's processes: another server's
                ours = _ours() if ours is None else ours
                if os.environ.get("HUTCHTEST_LEAK_ROOT") and not held & ours.keys():
                    continue
            found[path] = f"cgroup {path} (processes: {sorted(held)})"
    return found


def loops(home=None):
    """Those whose file lies in `home`, or else whose file is gone: others on the machine have some too, which live."""
    files = {p: _read(p).strip() for p in glob.glob("/sys/block/loop*/loop/backing_file")}
    return {(p, file): f"loop device {p.split('/')[3]} on {file}" for p, file in files.items()
            if (file.startswith(home + "/") if home else file.endswith(" (deleted)"))}


def runtime_state():
    return {p: f"runtime state {p}" for base in RUNTIME_STATE for p in glob.glob(base + "/*")}


def servers(home):
    def inside(folder):
        return [os.path.relpath(os.path.join(base, name), folder) for base, dirs, files in os.walk(folder)
                for name in dirs + files][:8]
    return {p: f"server folder {p}: {inside(p)}" for p in glob.glob(os.path.join(home, "servers", "*"))} if home else {}


def snapshot(home=None):
    return {**processes(), **mounts(), **cgroups(), **loops(home), **runtime_state(), **servers(home)}


def new_since(before, home=None):
    now = snapshot(home)
    return {key: text for key, text in now.items() if key not in before}


def wait_clean(before, home=None, deadline_s=DEADLINE_S):
    """Waits until nothing is there that was not there before; raises Leak with the list otherwise.
    Polls: the kernel tells nobody about the end of a mount, a cgroup and a foreign process alike."""
    end = time.monotonic() + deadline_s
    while left := new_since(before, home):
        if time.monotonic() > end:
            raise Leak(f"left after {deadline_s} s:\n  " + "\n  ".join(sorted(left.values())))
        time.sleep(0.02)


@contextlib.contextmanager
def check(home=None, deadline_s=DEADLINE_S):
    before = snapshot(home)
    yield before
    wait_clean(before, home, deadline_s)


def _reap_until(pid):
    """Reaps whatever dies until `pid` does; returns its exit status."""
    while True:
        dead, status = os.waitpid(-1, 0)
        if dead == pid:
            return os.waitstatus_to_exitcode(status)


def _children():
    return [int(p) for p in os.listdir("/proc") if p.isdigit() and (s := _stat(p)) and s[2] == os.getpid()]


def main():
    command = sys.argv[sys.argv.index("--") + 1:]
    if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        sys.exit("leaks.py: cannot become a reaper")
    os.environ["HUTCHTEST_LEAK_ROOT"] = str(os.getpid())
    before = {**mounts(), **cgroups(), **loops(), **runtime_state()}
    pid = os.spawnvp(os.P_NOWAIT, command[0], command)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda n, _: os.kill(pid, n))
    status = _reap_until(pid)
    end = time.monotonic() + DEADLINE_S
    while True:
        while _children():
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                break
        now = {**mounts(), **cgroups(), **loops(), **runtime_state()}
        left = [text for key, text in now.items() if key not in before]
        left += [f"process {p} {(_stat(p) or ['gone'])[0]} {_read(f'/proc/{p}/cmdline')!r}" for p in _children()]
        if not left:
            sys.exit(status if status >= 0 else 128 - status)
        if time.monotonic() > end:
            break
        time.sleep(0.02)
    print("LEAK: left behind by " + " ".join(command), *sorted(left), sep="\n  ", file=sys.stderr)
    for p in _children():
        os.kill(p, signal.SIGKILL)
    sys.exit(99)


if __name__ == "__main__":
    main()
