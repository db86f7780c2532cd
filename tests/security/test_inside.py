"""What code inside a sandbox can see and do: replays of known escapes, each against a canary on the host."""
import ctypes
import errno
import glob
import hashlib
import json
import os
import platform
import re
import secrets
import socket
import threading
import unittest
from pathlib import Path

from sandbox_case import HUTCH, SandboxCase, wait_for

SECRET = "canary-" + secrets.token_hex(8)
ENV_CANARIES = {name: SECRET for name in ("ANTHROPIC_API_KEY", "AWS_SECRET_ACCESS_KEY", "SSH_AUTH_SOCK", "DOCKER_HOST",
                                          "GITHUB_TOKEN", "CLAUDE_CODE_SESSION_ID", "LD_PRELOAD_CANARY", "http_proxy")}
# Capabilities that only act on what the sandbox owns. All others reach beyond it.
HARMLESS_CAPS = {"chown": 0, "dac_override": 1, "fowner": 3, "fsetid": 4, "kill": 5, "setgid": 6, "setuid": 7,
                 "setpcap": 8, "net_bind_service": 10, "sys_chroot": 18, "setfcap": 31}
X86_64 = platform.machine() == "x86_64"

# Runs inside: calls syscalls by number in a child each, so that a killed one is seen too, and prints the errnos.
PROBE = r'''
import ctypes, errno, json, mmap, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def native(nr, *args):
    r = libc.syscall(ctypes.c_long(nr), *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    return 0 if r >= 0 else ctypes.get_errno()
def i386(nr, *args):
    code = b"\x53" + b"\xb8" + nr.to_bytes(4, "little")                   # push rbx; mov eax, nr
    for opcode, value in zip((b"\xbb", b"\xb9", b"\xba"), [*args, 0, 0, 0]):  # ebx, ecx, edx
        code += opcode + (value & 0xffffffff).to_bytes(4, "little")
    code += b"\xcd\x80\x5b\xc3"                                           # int 0x80; pop rbx; ret
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    r = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
    return 0 if r >= 0 else -r
def in_child(function):
    r, w = os.pipe()
    main = os.getpid()
    pid = os.fork()
    if pid == 0:
        try: value = function()
        except OSError as e: value = e.errno
        os.write(w, str(value).encode())
        os._exit(0)
    os.close(w)
    told = os.read(r, 100).decode()
    os.close(r)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status): return signal.Signals(os.WTERMSIG(status)).name
    return errno.errorcode.get(int(told), told) if told and told != "0" else "allowed"
'''
REFUSED = {"EPERM", "ENOSYS", "SIGSYS", "EACCES"}


def first_process(box):
    """Host pid of a process in the sandbox: by its cgroup's name."""
    for path in glob.glob("/proc/[0-9]*/cgroup"):
        try:
            with open(path) as f:
                if box in f.read():
                    pid = int(path.split("/")[2])
                    if re.search(r"^NSpid:\s+\d+\s+1$", Path(f"/proc/{pid}/status").read_text(), re.M):
                        return pid
        except OSError:
            continue
    return None


class Inside(SandboxCase):
    server_settings = ENV_CANARIES

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.box = cls.client.call_tool("sandbox_create", {})["structuredContent"]["sandbox_id"]

    def sh(self, command, **arguments):
        return super().sh(command, sandbox_id=self.box, **arguments)

    def try_sh(self, command):
        return self.ok("sandbox_exec", sandbox_id=self.box, command=command)

    def probe(self, code):
        """Runs PROBE and `code` inside; `code` fills the dict `out`."""
        return json.loads(self.python(PROBE + "\nout = {}\n" + code + "\nprint(json.dumps(out))"))

    def assert_refused(self, answers, but=()):
        wrong = {k: v for k, v in answers.items() if v not in REFUSED and k not in but}
        self.assertEqual(wrong, {}, "not refused")


class Files(Inside):
    def test_no_host_file_outside_the_profile_can_be_read(self):
        folders = ["/root", "/home", "/etc", "/var", "/var/lib", "/var/tmp", "/tmp", "/opt", "/srv", "/mnt", "/",
                   "/run", "/dev/shm", self.home, str(Path(HUTCH).parent)]
        planted = []
        try:
            for folder in folders:
                path = os.path.join(folder, "hutch-" + SECRET)
                try:
                    Path(path).write_text(SECRET)
                    planted.append(path)
                except OSError:
                    pass  # not ours to write: then it is not ours to test either
            self.assertGreater(len(planted), 3)
            for path in planted:
                for way in (path, "/proc/self/root" + path, "/proc/1/root" + path, "/proc/self/cwd/../.." + path,
                            "/../../.." + path):
                    done = self.try_sh(f"cat {way} 2>/dev/null")
                    self.assertNotIn(SECRET, done["stdout"], way)
            found = self.try_sh(f"find / -xdev -name '*{SECRET}*' 2>/dev/null")
            self.assertEqual(found["stdout"], "")
        finally:
            for path in planted:
                os.unlink(path)

    def test_etc_is_made_up(self):
        allowed = {"alternatives", "ssl", "ca-certificates", "ca-certificates.conf", "fonts", "matplotlibrc", "mime.types", "localtime", "passwd", "group",
                   "hosts", "hostname", "nsswitch.conf", "resolv.conf", "os-release", "timezone", "profile", "shells",
                   "protocols", "services", "mtab"}
        names = {n for n in self.sh("ls -A /etc").split() if not n.startswith("ld.so.")}
        self.assertEqual(names - allowed, set())
        self.assertNotEqual(self.sh("cat /etc/passwd"), Path("/etc/passwd").read_text())
        self.assertNotEqual(self.try_sh("cat /etc/shadow")["exit_code"], 0)
        self.assertEqual(self.try_sh("ls -A /etc/ssl/private 2>/dev/null")["stdout"], "")

    def test_users_folders_are_empty(self):
        self.assertEqual(self.sh("ls -A /home /home/user").split(), ["/home:", "user", "/home/user:"])  # made up
        host = set(os.listdir("/root")) if os.geteuid() == 0 else set(os.listdir(os.path.expanduser("~")))
        self.assertEqual(set(self.sh("ls -A /root").split()) & (host - {".bashrc", ".profile"}), set())

    def test_a_file_that_root_makes_belongs_to_an_unprivileged_uid_on_the_host(self):
        self.assertEqual(self.sh("id -u"), "0\n")
        name = "owned-" + secrets.token_hex(6)
        self.sh(f"touch /workspace/{name}; touch /tmp/{name}")
        pid = first_process(self.box)
        self.assertTrue(pid)
        seen = [os.stat(p) for p in glob.glob(f"{self.home}/**/{name}", recursive=True)
                + glob.glob(f"/proc/{pid}/root/workspace/{name}") + glob.glob(f"/proc/{pid}/root/tmp/{name}")]
        self.assertTrue(seen, "the file is to be seen neither in the data folder nor through /proc")
        for s in seen:
            self.assertGreaterEqual(s.st_uid, 65536, s)
            self.assertGreaterEqual(s.st_gid, 65536, s)
        self.assertGreaterEqual(int(re.search(r"^Uid:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)[1]), 65536)
        taken = [tuple(map(int, line.split(":")[1:3])) for f in ("/etc/subuid", "/etc/subgid") if os.path.exists(f)
                 for line in Path(f).read_text().splitlines() if line.count(":") == 2]
        self.assertFalse([r for r in taken for s in seen if r[0] <= s.st_uid < r[0] + r[1]], "someone's subuid range")

    def test_programs_of_the_host_are_read_only(self):
        def digest(path):
            return hashlib.sha256(Path(path).read_bytes()).hexdigest()

        target = os.path.realpath("/usr/bin/true")
        before = digest(target), os.stat(target).st_mtime_ns
        for attempt in (f"echo x > {target}", f"rm -f {target}", f"chmod 777 {target}", f"mv {target} /tmp/x",
                        "echo x > /usr/bin/hutch-new", f"ln -f {target} /tmp/hard && echo x > /tmp/hard",
                        f"truncate -s 0 /proc/self/root{target}"):
            self.try_sh(attempt)
        self.assertEqual((digest(target), os.stat(target).st_mtime_ns), before)
        self.assertFalse(os.path.exists("/usr/bin/hutch-new"))

    def test_usr_belongs_to_root_inside(self):
        self.assertEqual(self.sh("stat -c %u:%g /usr/bin/env /usr").split(), ["0:0", "0:0"])

    def test_sockets_of_the_host_are_not_there(self):
        self.assertEqual(self.try_sh("find / -xdev -type s 2>/dev/null")["stdout"], "")
        for path in ("/run/docker.sock", "/var/run/docker.sock", "/run/dbus", "/run/systemd", "/run/user", "/tmp/.X11-unix"):
            self.assertNotEqual(self.try_sh(f"test -e {path}")["exit_code"], 0, path)

    def test_mounts_take_no_setuid_and_no_devices(self):
        for line in self.sh("cat /proc/self/mountinfo").splitlines():
            fields = line.split()
            where, options = fields[4], fields[5].split(",")
            if where.startswith(("/proc/", "/sys/")) and "ro" in options:
                continue  # a mask of the runtime's over a kernel file: nothing can be put there
            with self.subTest(where):
                if not re.match("/dev/(null|zero|full|random|urandom|tty|console|ptmx)$", where):
                    self.assertIn("nosuid", options)
                if not where.startswith("/dev"):
                    self.assertIn("nodev", options)

    def test_the_mount_table_tells_no_paths_of_the_data_folder(self):
        self.assertNotIn(self.home, self.sh("cat /proc/self/mountinfo"))

    def test_devices_are_the_harmless_few(self):
        allowed = {"null", "zero", "full", "random", "urandom", "tty", "console", "ptmx", "pts", "shm", "mqueue", "fd",
                   "stdin", "stdout", "stderr", "core"}
        self.assertEqual(set(self.sh("ls -A /dev").split()) - allowed, set())

    def test_device_nodes_cannot_be_made_or_opened(self):
        for node in ("b 7 0", "b 8 0", "b 254 0", "c 1 1", "c 1 11", "c 10 229", "c 10 232", "c 10 237"):
            for folder in ("/tmp", "/dev", "/dev/shm"):
                done = self.try_sh(f"mknod {folder}/n {node} && head -c 1 {folder}/n; r=$?; rm -f {folder}/n; exit $r")
                self.assertNotEqual(done["exit_code"], 0, (folder, node))

    def test_setuid_programs_gain_nothing(self):
        answer = self.python("""
import os, shutil, subprocess
shutil.copy(shutil.which("id"), "/tmp/suid-id")
os.chmod("/tmp/suid-id", 0o4755)
def drop():
    os.setgid(1000); os.setuid(1000)
try: print(subprocess.run(["/tmp/suid-id"], preexec_fn=drop, capture_output=True, text=True).stdout)
except Exception as e: print("cannot", e)
""")
        self.assertNotIn("euid=0", answer)


class Processes(Inside):
    def test_pid_1_is_the_agent(self):
        self.assertRegex(self.sh("cat /proc/1/comm; tr '\\0' ' ' < /proc/1/cmdline"), "hutch|agent")

    def test_pid_1_cannot_be_read_traced_or_killed(self):
        for what in ("environ", "mem", "maps", "auxv", "syscall", "stack", "io"):
            done = self.try_sh(f"head -c 1 /proc/1/{what} | wc -c")
            self.assertEqual(done["stdout"].strip(), "0", what)
        # That it has fds may be seen, not what they are.
        self.assertEqual(self.try_sh("for f in /proc/1/fd/* /proc/1/map_files/*; do readlink $f; (cat < $f) 2>/dev/null; done")["stdout"], "")
        self.assertEqual(self.try_sh("cat /proc/1/fdinfo/* 2>/dev/null")["stdout"], "")
        for link in ("exe", "root", "cwd"):
            self.assertNotEqual(self.try_sh(f"readlink /proc/1/{link}")["exit_code"], 0, link)
        self.try_sh("kill -9 1; kill -STOP 1; kill -TERM 1; kill -SEGV 1")
        self.assertEqual(self.sh("echo on"), "on\n")
        if X86_64:
            self.assert_refused(self.probe("""
out["PTRACE_ATTACH"] = in_child(lambda: native(101, 16, 1, 0, 0))
out["PTRACE_SEIZE"] = in_child(lambda: native(101, 0x4206, 1, 0, 0))
buf = ctypes.create_string_buffer(64)
iov = (ctypes.c_ulong * 2)(ctypes.addressof(buf), 8)
out["process_vm_readv"] = in_child(lambda: native(310, 1, ctypes.byref(iov), 1, ctypes.byref(iov), 1, 0))
out["process_vm_writev"] = in_child(lambda: native(311, 1, ctypes.byref(iov), 1, ctypes.byref(iov), 1, 0))
out["kcmp"] = in_child(lambda: native(312, 1, os.getpid(), 0, 0, 0))
"""))

    def test_the_agent_cannot_be_offered_to_the_oom_killer(self):
        self.try_sh("echo 1000 > /proc/1/oom_score_adj")
        self.assertLess(int(self.sh("cat /proc/1/oom_score_adj")), 500)

    def test_the_agents_file_cannot_be_written(self):
        before = hashlib.sha256(Path(HUTCH).read_bytes()).hexdigest()
        done = self.try_sh("for p in /proc/[0-9]*/exe; do (echo x > $p) 2>/dev/null && readlink $p; done; true")
        self.assertEqual(done["stdout"], "")
        self.assertEqual(hashlib.sha256(Path(HUTCH).read_bytes()).hexdigest(), before)

    def test_an_interpreter_line_of_proc_self_exe_reaches_nothing(self):  # CVE-2019-5736
        self.try_sh("printf '#!/proc/self/exe\\n' > /tmp/x; chmod +x /tmp/x; timeout 2 /tmp/x")
        self.assertEqual(self.sh("echo on"), "on\n")

    def test_no_process_of_the_host_is_visible(self):
        pids = self.sh("ls -d /proc/[0-9]* | wc -l")
        self.assertLess(int(pids), 15)
        self.assertNotIn(str(self.client.pid), self.sh("cd /proc; echo [0-9]*").split())

    def test_the_environment_holds_nothing_of_the_hosts(self):
        seen = self.sh("env; cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'; true")
        self.assertNotIn(SECRET, seen)
        names = {line.split("=")[0] for line in self.sh("env").splitlines() if "=" in line}
        self.assertEqual(names & (ENV_CANARIES.keys() - {"http_proxy"}), set())
        self.assertFalse([n for n in names if n.startswith(("HUTCH_", "CLAUDE", "ASAN"))], names)

    def test_no_secret_of_the_server_is_in_the_processes_arguments(self):
        self.assertNotIn(SECRET, self.sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '"))

    def test_only_fds_0_1_and_2_are_open(self):  # CVE-2024-21626
        command = ["readlink"] + [f"/proc/self/fd/{n}" for n in range(3, 256)]
        done = self.ok("sandbox_exec", sandbox_id=self.box, argv=command)
        self.assertEqual(done["stdout"], "")
        shell = self.sh("for f in 3 4 5 6 7 8 9 10 11 12 13 20 100 255; do readlink /proc/$$/fd/$f; done; true")
        self.assertEqual([f for f in shell.split() if "/bin/" not in f and not f.startswith("/dev/tty")], [])
        code = self.ok("sandbox_eval", sandbox_id=self.box, language="bash",
                       code="readlink " + " ".join(f"/proc/self/fd/{n}" for n in range(3, 64)) + " || true")
        self.assertEqual(code["stdout"], "")

    def test_a_working_folder_through_proc_self_fd_stays_inside(self):  # CVE-2024-21626
        for n in range(0, 25):
            result = self.call("sandbox_exec", sandbox_id=self.box, command="ls -A ../../.. ; pwd -P",
                               workdir=f"/proc/self/fd/{n}")
            if not result.is_error:
                self.assertNotIn("vmlinuz", result.structured["stdout"])
                self.assertNotIn(os.path.basename(self.home), result.structured["stdout"])
        self.assertEqual(self.sh("readlink /proc/self/cwd"), "/workspace\n")

    def test_capabilities_are_the_harmless_few_and_cannot_grow(self):
        status = dict(line.split(":\t", 1) for line in self.sh("cat /proc/self/status").splitlines() if ":\t" in line)
        harmless = sum(1 << bit for bit in HARMLESS_CAPS.values())
        for field in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"):
            self.assertEqual(int(status[field], 16) & ~harmless, 0, f"{field} {status[field]}")
        self.assertEqual((status["NoNewPrivs"].strip(), status["Seccomp"].strip()), ("1", "2"))

    def test_every_thread_of_every_process_is_under_the_filter(self):
        seen = self.sh("grep -H '^Seccomp:' /proc/[0-9]*/task/*/status | awk '{print $2}' | sort -u").split()
        commands = self.sh("grep '^NoNewPrivs:' /proc/self/task/*/status").split()
        self.assertIn("2", seen)
        self.assertEqual(commands[-1], "1")

    def test_namespaces_are_its_own(self):
        for kind in ("pid", "mnt", "ipc", "uts", "net", "cgroup", "user"):
            self.assertNotEqual(self.sh(f"readlink /proc/self/ns/{kind}").strip(), os.readlink(f"/proc/self/ns/{kind}"), kind)
        self.assertNotEqual(self.sh("uname -n").strip(), platform.node())


class Kernel(Inside):
    """Table B: system calls that have nothing to do in a sandbox."""

    @unittest.skipUnless(X86_64, "numbers of x86-64")
    def test_calls_that_reach_beyond_are_refused(self):
        self.assert_refused(self.probe("""
N = 0x10000000  # CLONE_NEWUSER
def cloned(flags):
    r = libc.syscall(ctypes.c_long(56), ctypes.c_long(flags | 17), 0, 0, 0, 0)
    if r == 0: os._exit(0)
    return 0 if r > 0 else ctypes.get_errno()
for name, flag in (("user", N), ("mnt", 0x20000), ("pid", 0x20000000), ("net", 0x40000000), ("ipc", 0x08000000),
                   ("uts", 0x04000000), ("cgroup", 0x02000000), ("time", 0x80)):
    out["unshare " + name] = in_child(lambda: native(272, flag))
    if name != "time": out["clone " + name] = in_child(lambda: cloned(flag))
args = (ctypes.c_uint64 * 11)(N, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0)
def clone3():
    r = libc.syscall(ctypes.c_long(435), ctypes.byref(args), ctypes.c_long(88))
    if r == 0: os._exit(0)
    return 0 if r > 0 else ctypes.get_errno()
out["clone3 user"] = in_child(clone3)
ns = os.open("/proc/self/ns/uts", os.O_RDONLY)
a = b"a\\0"
for name, nr, args in (
    ("setns", 308, (ns, 0)), ("mount", 165, (b"none", b"/tmp", b"tmpfs", 0, 0)), ("umount2", 166, (b"/tmp", 2)),
    ("fsopen", 430, (b"tmpfs", 0)), ("fsconfig", 431, (0, 0, 0, 0, 0)), ("fsmount", 432, (0, 0, 0)),
    ("fspick", 433, (-100, b"/", 0)), ("open_tree", 428, (-100, b"/", 1)), ("move_mount", 429, (-100, b"/tmp", -100, b"/", 0)),
    ("mount_setattr", 442, (-100, b"/", 0, 0, 0)), ("pivot_root", 155, (b".", b".")), ("keyctl", 250, (0, -3, 0)),
    ("add_key", 248, (b"user", b"k", b"v", 1, -3)), ("request_key", 249, (b"user", b"k", 0, 0)), ("bpf", 321, (0, 0, 0)),
    ("perf_event_open", 298, (0, 0, -1, -1, 0)), ("userfaultfd", 323, (1,)), ("io_uring_setup", 425, (1, 0)),
    ("io_uring_enter", 426, (0, 0, 0, 0)), ("io_uring_register", 427, (0, 0, 0, 0)), ("kexec_load", 246, (0, 0, 0, 0)),
    ("kexec_file_load", 320, (-1, -1, 0, 0, 0)), ("init_module", 175, (0, 0, b"")), ("finit_module", 313, (0, b"", 0)),
    ("delete_module", 176, (b"x", 0)), ("pidfd_getfd", 438, (0, 0, 0)), ("fanotify_init", 300, (0, 0)),
    ("quotactl", 179, (0, 0, 0, 0)), ("swapon", 167, (b"/tmp/x", 0)), ("swapoff", 168, (b"/tmp/x",)), ("acct", 163, (0,)),
    ("syslog", 103, (3, 0, 0)), ("iopl", 172, (3,)), ("ioperm", 173, (0, 8, 1)), ("clock_settime", 227, (0, 0)),
    ("settimeofday", 164, (0, 0)), ("lookup_dcookie", 212, (0, 0, 0)), ("nfsservctl", 180, (0, 0, 0)),
    ("open_by_handle_at", 304, (-100, a, 0)), ("reboot", 169, (0xfee1dead, 672274793, 0, 0)), ("vhangup", 153, ()),
    ("sethostname", 170, (b"x", 1)), ("setdomainname", 171, (b"x", 1)), ("uselib", 134, (b"x",)), ("ustat", 136, (0, 0)),
    ("modify_ldt", 154, (0, 0, 0)), ("_sysctl", 156, (0,)), ("mbind", 237, (0, 0, 0, 0, 0, 0)),
    ("move_pages", 279, (1, 0, 0, 0, 0, 0)), ("personality RIE", 135, (0x0400000,)), ("personality NORAND", 135, (0x0040000,)),
    ("pivot_root up", 155, (b"/", b"/tmp"))):
    out[name] = in_child(lambda: native(nr, *args))
timex = ctypes.create_string_buffer(256); timex[0] = b"\\x01"  # ADJ_OFFSET
out["adjtimex"] = in_child(lambda: native(159, timex))
out["prctl PR_SET_MM"] = in_child(lambda: native(157, 35, 6, 0, 0, 0))
"""))

    @unittest.skipUnless(X86_64, "entries of x86-64")
    def test_the_32_bit_and_x32_entries_are_no_way_around(self):
        answers = self.probe("""
N = 0x10000000
for name, nr, args in (("unshare", 310, (N,)), ("mount", 21, (0, 0, 0)), ("keyctl", 288, (0, -3 & 0xffffffff, 0)),
                       ("bpf", 357, (0, 0, 0)), ("io_uring_setup", 425, (1, 0)), ("userfaultfd", 374, (1,)),
                       ("perf_event_open", 336, (0, 0, -1)), ("fsopen", 430, (0, 0)), ("setns", 346, (0, 0)), ("vm86", 166, (0, 0))):
    out["i386 " + name] = in_child(lambda: i386(nr, *args))
for name, nr, args in (("unshare", 272, (N,)), ("keyctl", 250, (0, -3, 0)), ("bpf", 321, (0, 0, 0)), ("io_uring_setup", 425, (1, 0))):
    out["x32 " + name] = in_child(lambda: native(nr | 0x40000000, *args))
""")
        # A kernel without 32-bit entries ends the caller by SIGSEGV.
        self.assert_refused({k: v for k, v in answers.items() if v != "SIGSEGV"})

    def test_socket_families_that_reach_the_kernel_are_refused(self):
        answers = self.probe("""
import socket
def make(family, kind, protocol=0):
    socket.socket(family, kind, protocol).close()
    return 0
for name, family, kind, protocol in (("alg", 38, 5, 0), ("vsock", 40, 1, 0), ("packet raw", 17, 3, 768), ("packet", 17, 2, 768),
        ("key", 15, 3, 2), ("bluetooth", 31, 3, 1), ("can", 29, 3, 1), ("tipc", 30, 5, 0), ("rds", 21, 5, 0), ("xdp", 44, 3, 0),
        ("inet raw", 2, 3, 1), ("inet6 raw", 10, 3, 58), ("netlink netfilter", 16, 3, 12), ("netlink audit", 16, 3, 9),
        ("netlink xfrm", 16, 3, 6)):
    out[name] = in_child(lambda: make(family, kind, protocol))
""")
        absent = {"EAFNOSUPPORT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT"}
        self.assert_refused({k: v for k, v in answers.items() if v not in absent})

    def test_input_cannot_be_pushed_into_a_terminal(self):  # CVE-2017-5226, CVE-2019-10063
        answers = self.probe("""
import fcntl, pty, termios
def push(request):
    master, slave = pty.openpty()
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    return native(16, slave, request, ctypes.create_string_buffer(b"x"))
out["TIOCSTI"] = in_child(lambda: push(0x5412))
out["TIOCSTI with high bits"] = in_child(lambda: push(0x5412 | 1 << 32))
out["TIOCLINUX"] = in_child(lambda: push(0x541c))
""")
        self.assert_refused({k: v for k, v in answers.items() if v not in ("EIO", "ENOTTY")})

    def test_new_namespaces_and_mounts_fail_by_their_tools_too(self):
        for command in ("unshare -Ur true", "unshare -m true", "unshare -UrC true", "mount -t tmpfs x /mnt", "mount -t proc x /mnt",
                        "mount --bind / /mnt", "umount /proc", "chroot /proc/1/root true", "nsenter -t 1 -m true"):
            self.assertNotEqual(self.try_sh(command)["exit_code"], 0, command)

    def test_ordinary_calls_work(self):
        """The filter must not break what programs do all day."""
        self.assertEqual(self.python("""
import ctypes, mmap, multiprocessing, os, select, socket, sqlite3, subprocess, tempfile, threading, time
if __name__ == "__main__":
    a, b = socket.socketpair(); a.send(b"x"); assert b.recv(1) == b"x"
    s = socket.create_server(("127.0.0.1", 0)); c = socket.create_connection(s.getsockname()); c.close(); s.close()
    e = select.epoll(); e.close()
    t = threading.Thread(target=lambda: None); t.start(); t.join()
    assert subprocess.run(["true"]).returncode == 0
    fd = os.memfd_create("m"); os.write(fd, b"x"); os.close(fd)
    os.eventfd(0)
    sqlite3.connect(tempfile.mktemp()).execute("create table t(x)")
    with multiprocessing.get_context("fork").Pool(2) as p: assert p.map(abs, [-1, -2]) == [1, 2]
    os.chown("/tmp", 0, 0)
    os.sched_getaffinity(0); os.getrandom(4); time.clock_gettime(time.CLOCK_MONOTONIC)
    print("all work")
"""), "all work\n")


class ProcAndSys(Inside):
    WRITE = ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/hotplug", "/proc/sysrq-trigger",
             "/proc/sys/fs/binfmt_misc/register", "/proc/sys/vm/drop_caches", "/proc/sys/kernel/panic", "/proc/irq/default_smp_affinity",
             "/sys/kernel/uevent_helper", "/sys/power/state", "/sys/kernel/mm/ksm/run", "/sys/module/kernel/parameters/panic",
             "/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/ns_last_pid", "/proc/sys/kernel/hostname")
    READ = ("/proc/kcore", "/proc/keys", "/proc/key-users", "/proc/timer_list", "/proc/latency_stats", "/proc/sched_debug",
            "/proc/interrupts", "/proc/kmsg", "/proc/kallsyms", "/dev/kmsg", "/dev/mem", "/proc/vmallocinfo",
            "/proc/slabinfo", "/sys/kernel/debug", "/sys/kernel/tracing", "/sys/kernel/security", "/sys/firmware", "/proc/acpi",
            "/proc/scsi", "/proc/asound", "/sys/devices/virtual/powercap", "/sys/fs/bpf")

    def test_switches_of_the_host_cannot_be_written(self):
        before = Path("/proc/sys/kernel/core_pattern").read_text()
        for path in self.WRITE:
            for way in (path, "/proc/self/root" + path, "/proc/thread-self/root" + path):
                done = self.try_sh(f"test -e {way} && (cat {way} > {way} || echo 1 > {way}) 2>/dev/null")
                self.assertNotEqual(done["exit_code"], 0, way)
        self.assertEqual(Path("/proc/sys/kernel/core_pattern").read_text(), before)

    def test_what_tells_about_the_host_is_masked(self):
        for path in self.READ:
            for way in (path, "/proc/self/root" + path):
                done = self.try_sh(f"if [ -d {way} ]; then ls -A {way}; else head -c 200 {way}; fi 2>/dev/null | tr -d '\\0'")
                if path == "/proc/kallsyms":  # addresses are zero for whoever has no power
                    self.assertRegex(done["stdout"], r"^(0+ .*\n?)*", way)
                    self.assertNotRegex(done["stdout"], r"(?m)^0*[1-9a-f][0-9a-f]* ", way)
                else:
                    self.assertEqual(done["stdout"], "", way)

    def test_no_control_group_can_be_written(self):
        found = self.try_sh("find /sys/fs/cgroup /sys -xdev -type f -writable 2>/dev/null | while read f; do"
                            " (cat \"$f\" > \"$f\") 2>/dev/null && echo \"$f\"; done | head")
        self.assertEqual(found["stdout"], "")
        self.assertNotEqual(self.try_sh("mkdir /sys/fs/cgroup/mine")["exit_code"], 0)
        for name in ("release_agent", "notify_on_release", "devices.allow", "cgroup.procs", "memory.max", "pids.max"):
            done = self.try_sh(f"find / -name {name} 2>/dev/null | while read f; do (echo 0 > $f) 2>/dev/null && echo $f; done")
            self.assertEqual(done["stdout"], "", name)

    def test_the_control_groups_path_on_the_host_is_hidden(self):
        self.assertNotIn("hutch", self.sh("cat /proc/self/cgroup"))

    def test_kernel_logs_are_closed(self):
        self.assertNotEqual(self.try_sh("dmesg")["exit_code"], 0)


class Network(Inside):
    def test_there_is_no_interface_but_loopback(self):
        lines = self.sh("cat /proc/net/dev").splitlines()[2:]
        self.assertEqual([line.split(":")[0].strip() for line in lines], ["lo"])
        self.assertEqual(len(self.sh("cat /proc/net/route").splitlines()), 1)

    def test_a_port_on_the_hosts_loopback_cannot_be_reached(self):
        with socket.create_server(("0.0.0.0", 0)) as listener:
            port = listener.getsockname()[1]
            came = []
            threading.Thread(target=lambda: came.append(self._accept(listener)), daemon=True).start()
            answers = self.probe(f"""
import socket
def connect(address):
    try: socket.create_connection((address, {port}), timeout=2).close()
    except socket.gaierror: return 113
    except TimeoutError: return 110
    return 0
for address in ("127.0.0.1", "0.0.0.0", "localhost", "::1", "::ffff:127.0.0.1", "2130706433", "0x7f000001", "127.1",
                "169.254.169.254", "10.0.0.1", "192.168.0.1", "172.17.0.1"):
    out[address] = in_child(lambda: connect(address))
""")
            self.assertEqual({k: v for k, v in answers.items() if v == "allowed"}, {})
            listener.shutdown(socket.SHUT_RDWR)
        self.assertFalse(any(came))

    @staticmethod
    def _accept(listener):
        try:
            listener.accept()[0].close()
            return True
        except OSError:
            return False

    def test_abstract_sockets_of_the_host_are_out_of_reach(self):  # CVE-2020-15257
        name = "\0hutch-" + SECRET
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(name)
            listener.listen()
            self.assertNotIn(SECRET, self.sh("cat /proc/net/unix"))
            answers = self.probe(f"""
import socket
def connect():
    socket.socket(socket.AF_UNIX).connect({name!r})
    return 0
out["abstract"] = in_child(connect)
""")
            self.assertNotEqual(answers["abstract"], "allowed")

    def test_names_are_not_resolved(self):
        self.assertNotEqual(self.try_sh("python3 -c 'import socket; socket.getaddrinfo(\"example.com\", 80)'")["exit_code"], 0)

    def test_loopback_inside_works(self):
        self.assertEqual(self.python("""
import socket
s = socket.create_server(("127.0.0.1", 0)); c = socket.create_connection(s.getsockname()); c.send(b"x")
print(s.accept()[0].recv(1).decode())"""), "x\n")


class TwoSandboxes(Inside):
    def test_one_cannot_see_or_reach_the_other(self):
        other = self.ok("sandbox_create")["sandbox_id"]
        self.ok("sandbox_exec", sandbox_id=other, command=f"echo {SECRET} > /tmp/x; (setsid sleep 1009 >/dev/null 2>&1 &); true")
        self.assertNotIn("1009", self.sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '"))
        self.assertEqual(self.try_sh(f"grep -r {SECRET} /tmp /workspace 2>/dev/null")["stdout"], "")
        mine, theirs = (wait_for("its first process", lambda b=b: first_process(b)) for b in (self.box, other))
        for kind in ("pid", "mnt", "net", "ipc"):
            self.assertNotEqual(os.readlink(f"/proc/{mine}/ns/{kind}"), os.readlink(f"/proc/{theirs}/ns/{kind}"))
        self.ok("sandbox_destroy", sandbox_id=other)

    def test_shared_memory_and_queues_of_the_host_are_not_visible(self):
        libc = ctypes.CDLL(None, use_errno=True)
        key = secrets.randbits(30) | 1
        shm = libc.shmget(key, 4096, 0o1666)
        self.assertGreaterEqual(shm, 0, errno.errorcode.get(ctypes.get_errno()))
        try:
            self.assertEqual(len(self.sh("cat /proc/sysvipc/shm").splitlines()), 1)
        finally:
            libc.shmctl(shm, 0, None)


if __name__ == "__main__":
    unittest.main()
