#include <linux/netlink.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

/// Tries system calls from inside a sandbox and prints "name=errno name" for each; "name=0" when the call
/// went through. Arguments are such that a kernel without a filter answers something else, or does no harm.
namespace {

constexpr long kHighBits = 0x7fffffffL << 32;  // ignored by the kernel: a filter must ignore them too

struct Probe {
  const char* name;
  long number;
  long arguments[6];
};

constexpr Probe kProbes[] = {
    {"unshare_user", SYS_unshare, {CLONE_NEWUSER}},
    {"unshare_mount", SYS_unshare, {CLONE_NEWNS}},
    {"setns", SYS_setns, {0, 0}},
    {"clone3", SYS_clone3, {0, 0}},
    {"mount", SYS_mount, {0, 0, 0, 0, 0}},
    {"umount2", SYS_umount2, {0, 0}},
    {"pivot_root", SYS_pivot_root, {0, 0}},
    {"fsopen", SYS_fsopen, {0, 0}},
    {"fsconfig", SYS_fsconfig, {-1, 0, 0, 0, 0}},
    {"fsmount", SYS_fsmount, {-1, 0, 0}},
    {"open_tree", SYS_open_tree, {-1, 0, 0}},
    {"move_mount", SYS_move_mount, {-1, 0, -1, 0, 0}},
    {"mount_setattr", SYS_mount_setattr, {-1, 0, 0, 0, 0}},
    {"keyctl", SYS_keyctl, {0, 0, 0}},
    {"add_key", SYS_add_key, {0, 0, 0, 0, 0}},
    {"request_key", SYS_request_key, {0, 0, 0, 0}},
    {"bpf", SYS_bpf, {0, 0, 0}},
    {"perf_event_open", SYS_perf_event_open, {0, 0, -1, -1, 0}},
    {"userfaultfd", SYS_userfaultfd, {0}},
    {"io_uring_setup", SYS_io_uring_setup, {1, 0}},
    {"io_uring_enter", SYS_io_uring_enter, {-1, 0, 0, 0, 0}},
    {"io_uring_register", SYS_io_uring_register, {-1, 0, 0, 0}},
    {"kexec_load", SYS_kexec_load, {0, 0, 0, ~0L}},
    {"init_module", SYS_init_module, {0, 0, 0}},
    {"finit_module", SYS_finit_module, {-1, 0, 0}},
    {"delete_module", SYS_delete_module, {0, 0}},
    {"open_by_handle_at", SYS_open_by_handle_at, {-1, 0, 0}},
    {"fanotify_init", SYS_fanotify_init, {~0L, 0}},
    {"kcmp", SYS_kcmp, {0, 0, 99, 0, 0}},
    {"pidfd_getfd", SYS_pidfd_getfd, {-1, 0, 0}},
    {"process_madvise", SYS_process_madvise, {-1, 0, 0, 0, 0}},
    {"quotactl", SYS_quotactl, {0, 0, 0, 0}},
    {"swapon", SYS_swapon, {0, 0}},
    {"acct", SYS_acct, {1}},
    {"syslog", SYS_syslog, {10, 0, 0}},
    {"vhangup", SYS_vhangup, {}},
    {"reboot", SYS_reboot, {0, 0, 0, 0}},
    {"clock_settime", SYS_clock_settime, {99, 0}},
    {"settimeofday", SYS_settimeofday, {1, 1}},
    {"mbind", SYS_mbind, {0, 0, 99, 0, 0, 0}},
    {"set_mempolicy", SYS_set_mempolicy, {99, 0, 0}},
    {"lookup_dcookie", 212, {0, 0, 0}},
    {"iopl", SYS_iopl, {4}},
    {"ioperm", SYS_ioperm, {0, 0, 0}},
    {"modify_ldt", SYS_modify_ldt, {99, 0, 0}},
    {"newer_than_known", 900, {}},
    {"personality_no_random", SYS_personality, {ADDR_NO_RANDOMIZE}},
    {"personality_high_bits", SYS_personality, {kHighBits | READ_IMPLIES_EXEC}},
    {"socket_alg", SYS_socket, {AF_ALG, SOCK_SEQPACKET, 0}},
    {"socket_vsock", SYS_socket, {AF_VSOCK, SOCK_STREAM, 0}},
    {"socket_key", SYS_socket, {AF_KEY, SOCK_RAW, 2}},
    {"socket_packet", SYS_socket, {AF_PACKET, SOCK_RAW, 0}},
    {"socket_packet_high_bits", SYS_socket, {kHighBits | AF_PACKET, SOCK_RAW, 0}},
    {"socket_bluetooth", SYS_socket, {AF_BLUETOOTH, SOCK_STREAM, 0}},
    {"socket_raw", SYS_socket, {AF_INET, SOCK_RAW, 1}},
    {"socket_raw_cloexec", SYS_socket, {AF_INET6, SOCK_RAW | SOCK_CLOEXEC, 58}},
    {"socket_netfilter", SYS_socket, {AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER}},
    {"ioctl_sti", SYS_ioctl, {-1, TIOCSTI, 0}},
    {"ioctl_sti_high_bits", SYS_ioctl, {-1, kHighBits | TIOCSTI, 0}},
    {"ioctl_linux", SYS_ioctl, {-1, TIOCLINUX, 0}},
    {"prlimit_of_pid_1", SYS_prlimit64, {1, 0, 0, 0}},
    {"kill_pid_1", SYS_kill, {1, 0, 0, 0}},
    {"tkill_pid_1", SYS_tkill, {1, 0, 0, 0}},
    {"tgkill_pid_1", SYS_tgkill, {1, 1, 0, 0}},
    {"rt_sigqueueinfo_pid_1", SYS_rt_sigqueueinfo, {1, 0, 0, 0}},
    {"rt_tgsigqueueinfo_pid_1", SYS_rt_tgsigqueueinfo, {1, 1, 0, 0}},
    {"ok_kill_self", SYS_kill, {0, 0, 0, 0}},
    // what must keep working
    {"ok_getpid", SYS_getppid, {}},
    {"ok_socket_unix", SYS_socket, {AF_UNIX, SOCK_STREAM, 0}},
    {"ok_socket_inet", SYS_socket, {AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0}},
    {"ok_socket_inet6", SYS_socket, {AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK, 0}},
    {"ok_socket_route", SYS_socket, {AF_NETLINK, SOCK_RAW, NETLINK_ROUTE}},
    {"ok_personality_query", SYS_personality, {0xffffffff}},
    {"ok_prlimit_self", SYS_prlimit64, {0, 0, 0, 0}},
    {"ok_setuid", SYS_setuid, {0}},
};

void print(const char* name, long result, int error) {
  std::printf("%s=%s\n", name, result >= 0 ? "0" : strerrorname_np(error));
}

/// In a child, because a call that goes through may change or end the process.
template <class Call>
void isolated(const char* name, Call call) {
  std::fflush(stdout);
  const pid_t pid = fork();
  if (pid == 0) {
    const long result = call();
    print(name, result, errno);
    std::fflush(stdout);
    _exit(0);
  }
  int status = 0;
  if (pid < 0 || waitpid(pid, &status, 0) < 0)
    std::printf("%s=fork failed\n", name);
  else if (WIFSIGNALED(status))
    std::printf("%s=signal %d\n", name, WTERMSIG(status));
}

#if defined(__x86_64__)
long from_raw(long result) {
  if (result >= 0) return result;
  errno = static_cast<int>(-result);
  return -1;
}

/// The i386 entry, where the same numbers mean other calls (20 is getpid).
long call_i386(long number) {
  long result;
  asm volatile("int $0x80" : "=a"(result) : "a"(number), "b"(0), "c"(0), "d"(0) : "memory");
  return from_raw(static_cast<int>(result));
}

void try_other_entries() {
  constexpr long kX32 = 0x40000000;
  isolated("i386_getpid", [] { return call_i386(20); });
  isolated("i386_unshare", [] { return call_i386(310); });
  isolated("x32_getpid", [] { return syscall(kX32 | SYS_getpid); });
  isolated("x32_ptrace", [] { return syscall(kX32 | 521, 0, 0, 0, 0); });
}
#else
void try_other_entries() {}
#endif

}  // namespace

int main() {
  for (const Probe& probe : kProbes) {
    const long* a = probe.arguments;
    isolated(probe.name, [&] { return syscall(probe.number, a[0], a[1], a[2], a[3], a[4], a[5]); });
  }
  constexpr int kNamespaces[] = {CLONE_NEWNS,  CLONE_NEWUTS, CLONE_NEWIPC,   CLONE_NEWUSER,
                                 CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWCGROUP};
  for (const int flag : kNamespaces) {
    char name[32];
    std::snprintf(name, sizeof name, "clone_%x", static_cast<unsigned>(flag));
    isolated(name, [flag] {
      const long pid = syscall(SYS_clone, flag | SIGCHLD, 0, 0, 0, 0);
      if (pid == 0) _exit(0);
      return pid;
    });
  }
  try_other_entries();
}
