#include "agent/seccomp_policy.h"

#include <linux/netlink.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

namespace hutch::agent::policy {
namespace {

constexpr uint64_t kInt = 0xffffffff;
constexpr uint64_t kSocketType = 0xf;  // the rest are SOCK_NONBLOCK and SOCK_CLOEXEC
constexpr uint64_t kNamespaces = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER |
                                 CLONE_NEWPID | CLONE_NEWNET | 0x80 /* CLONE_NEWTIME */;

// clang-format off
constexpr Call kAllowed[] = {
    // files and folders
    {"access"}, {"chdir"}, {"chmod"}, {"chown"}, {"close"}, {"close_range"}, {"copy_file_range"}, {"creat"},
    {"dup"}, {"dup2"}, {"dup3"}, {"faccessat"}, {"faccessat2"}, {"fadvise64"}, {"fallocate"}, {"fchdir"},
    {"fchmod"}, {"fchmodat"}, {"fchmodat2", 452}, {"fchown"}, {"fchownat"}, {"fcntl"}, {"fdatasync"},
    {"fgetxattr"}, {"flistxattr"}, {"flock"}, {"fremovexattr"}, {"fsetxattr"}, {"fstat"}, {"fstatfs"},
    {"fsync"}, {"ftruncate"}, {"futimesat"}, {"getcwd"}, {"getdents"}, {"getdents64"}, {"getxattr"},
    {"lchown"}, {"lgetxattr"}, {"link"}, {"linkat"}, {"listxattr"}, {"llistxattr"}, {"lremovexattr"},
    {"lseek"}, {"lsetxattr"}, {"lstat"}, {"mkdir"}, {"mkdirat"}, {"mknod"}, {"mknodat"},
    {"name_to_handle_at"}, {"newfstatat"}, {"open"}, {"openat"}, {"openat2"}, {"pread64"}, {"preadv"},
    {"preadv2"}, {"pwrite64"}, {"pwritev"}, {"pwritev2"}, {"read"}, {"readahead"}, {"readlink"},
    {"readlinkat"}, {"readv"}, {"removexattr"}, {"rename"}, {"renameat"}, {"renameat2"}, {"rmdir"},
    {"sendfile"}, {"setxattr"}, {"splice"}, {"stat"}, {"statfs"}, {"statx"}, {"symlink"}, {"symlinkat"},
    {"sync"}, {"sync_file_range"}, {"syncfs"}, {"tee"}, {"truncate"}, {"umask"}, {"unlink"}, {"unlinkat"},
    {"utime"}, {"utimensat"}, {"utimes"}, {"vmsplice"}, {"write"}, {"writev"}, {"chroot"}, {"cachestat", 451},
    // waiting, events, asynchronous I/O of the old kind
    {"epoll_create"}, {"epoll_create1"}, {"epoll_ctl"}, {"epoll_ctl_old"}, {"epoll_pwait"}, {"epoll_pwait2"},
    {"epoll_wait"}, {"epoll_wait_old"}, {"eventfd"}, {"eventfd2"}, {"fanotify_mark"}, {"inotify_add_watch"},
    {"inotify_init"}, {"inotify_init1"}, {"inotify_rm_watch"}, {"io_cancel"}, {"io_destroy"},
    {"io_getevents"}, {"io_pgetevents"}, {"io_setup"}, {"io_submit"}, {"ioctl"}, {"pipe"}, {"pipe2"},
    {"poll"}, {"ppoll"}, {"pselect6"}, {"select"}, {"signalfd"}, {"signalfd4"}, {"timerfd_create"},
    {"timerfd_gettime"}, {"timerfd_settime"},
    // memory
    {"brk"}, {"madvise"}, {"map_shadow_stack", 453}, {"membarrier"}, {"memfd_create"},
    {"memfd_secret"}, {"mincore"}, {"mlock"}, {"mlock2"}, {"mlockall"}, {"mmap"}, {"mprotect"}, {"mremap"},
    {"mseal", 462}, {"msync"}, {"munlock"}, {"munlockall"}, {"munmap"}, {"pkey_alloc"}, {"pkey_free"},
    {"pkey_mprotect"}, {"process_mrelease"}, {"remap_file_pages"},
    // processes and threads; kernels since 4.8 check ptrace after the filter, so debuggers may have it
    {"arch_prctl"}, {"capget"}, {"capset"}, {"execve"}, {"execveat"}, {"exit"}, {"exit_group"}, {"fork"},
    {"futex"}, {"futex_requeue", 456}, {"futex_wait", 455}, {"futex_waitv", 449}, {"futex_wake", 454},
    {"get_robust_list"}, {"get_thread_area"}, {"getcpu"}, {"getegid"}, {"geteuid"}, {"getgid"},
    {"getgroups"}, {"getpgid"}, {"getpgrp"}, {"getpid"}, {"getppid"}, {"getpriority"}, {"getresgid"},
    {"getresuid"}, {"getrlimit"}, {"getrusage"}, {"getsid"}, {"gettid"}, {"getuid"}, {"ioprio_get"},
    {"ioprio_set"}, {"kill"}, {"landlock_add_rule"}, {"landlock_create_ruleset"}, {"landlock_restrict_self"},
    {"pidfd_open"}, {"pidfd_send_signal"}, {"prctl"}, {"prlimit64"}, {"process_vm_readv"},
    {"process_vm_writev"}, {"ptrace"}, {"rseq"}, {"sched_get_priority_max"}, {"sched_get_priority_min"},
    {"sched_getaffinity"}, {"sched_getattr"}, {"sched_getparam"}, {"sched_getscheduler"},
    {"sched_rr_get_interval"}, {"sched_setaffinity"}, {"sched_setattr"}, {"sched_setparam"},
    {"sched_setscheduler"}, {"sched_yield"}, {"seccomp"}, {"set_robust_list"}, {"set_thread_area"},
    {"set_tid_address"}, {"setfsgid"}, {"setfsuid"}, {"setgid"}, {"setgroups"}, {"setpgid"},
    {"setpriority"}, {"setregid"}, {"setresgid"}, {"setresuid"}, {"setreuid"}, {"setrlimit"}, {"setsid"},
    {"setuid"}, {"sysinfo"}, {"tgkill"}, {"tkill"}, {"uname"}, {"vfork"}, {"wait4"}, {"waitid"},
    // signals and time
    {"alarm"}, {"clock_getres"}, {"clock_gettime"}, {"clock_nanosleep"}, {"getitimer"}, {"gettimeofday"},
    {"nanosleep"}, {"pause"}, {"restart_syscall"}, {"rt_sigaction"}, {"rt_sigpending"}, {"rt_sigprocmask"},
    {"rt_sigqueueinfo"}, {"rt_sigreturn"}, {"rt_sigsuspend"}, {"rt_sigtimedwait"}, {"rt_tgsigqueueinfo"},
    {"setitimer"}, {"sigaltstack"}, {"time"}, {"timer_create"}, {"timer_delete"}, {"timer_getoverrun"},
    {"timer_gettime"}, {"timer_settime"}, {"times"},
    // adjtimex and clock_adjtime read the clock's state too; writing needs CAP_SYS_TIME
    {"adjtimex"}, {"clock_adjtime"},
    // sockets (socket itself: below) and System V IPC
    {"accept"}, {"accept4"}, {"bind"}, {"connect"}, {"getpeername"}, {"getsockname"}, {"getsockopt"},
    {"listen"}, {"recvfrom"}, {"recvmmsg"}, {"recvmsg"}, {"sendmmsg"}, {"sendmsg"}, {"sendto"},
    {"setsockopt"}, {"shutdown"}, {"socketpair"}, {"mq_getsetattr"}, {"mq_notify"}, {"mq_open"},
    {"mq_timedreceive"}, {"mq_timedsend"}, {"mq_unlink"}, {"msgctl"}, {"msgget"}, {"msgrcv"}, {"msgsnd"},
    {"semctl"}, {"semget"}, {"semop"}, {"semtimedop"}, {"shmat"}, {"shmctl"}, {"shmdt"}, {"shmget"},
    {"getrandom"},
};

constexpr Rule kAllowedWhen[] = {
    {"clone", 1, {{0, kNamespaces, 0}}},
    {"socket", 1, {{0, kInt, AF_UNIX}}},
    {"socket", 2, {{0, kInt, AF_INET}, {1, kSocketType, SOCK_STREAM}}},
    {"socket", 2, {{0, kInt, AF_INET}, {1, kSocketType, SOCK_DGRAM}}},
    {"socket", 2, {{0, kInt, AF_INET6}, {1, kSocketType, SOCK_STREAM}}},
    {"socket", 2, {{0, kInt, AF_INET6}, {1, kSocketType, SOCK_DGRAM}}},
    {"socket", 2, {{0, kInt, AF_NETLINK}, {2, kInt, NETLINK_ROUTE}}},  // not nf_tables (CVE-2024-1086)
    {"personality", 1, {{0, kInt, 0}}},           // PER_LINUX
    {"personality", 1, {{0, kInt, 0x8}}},         // PER_LINUX32
    {"personality", 1, {{0, kInt, 0x20000}}},     // UNAME26
    {"personality", 1, {{0, kInt, 0x20008}}},
    {"personality", 1, {{0, kInt, 0xffffffff}}},  // asks only
};

constexpr Rule kRefusedWhen[] = {
    {"ioctl", 1, {{1, kInt, TIOCSTI}}},    // types into the terminal (CVE-2017-5226)
    {"ioctl", 1, {{1, kInt, TIOCLINUX}}},  // pastes into a console
    {"prlimit64", 1, {{0, kInt, 1}}},      // a CPU limit of one second would end PID 1
    // Nor is it stopped or killed where the kernel would let root do that: gVisor's.
    {"kill", 1, {{0, kInt, 1}}},
    {"tkill", 1, {{0, kInt, 1}}},
    {"tgkill", 1, {{0, kInt, 1}}},
    {"rt_sigqueueinfo", 1, {{0, kInt, 1}}},
    {"rt_tgsigqueueinfo", 1, {{0, kInt, 1}}},
};

constexpr Call kPretendedMissing[] = {{"clone3"}};  // its flags lie in memory
// clang-format on

template <class T, size_t size>
constexpr Table<T> table(const T (&rows)[size]) {
  return {rows, size};
}

}  // namespace

Table<Call> allowed_calls() {
  return table(kAllowed);
}
Table<Rule> allowed_when() {
  return table(kAllowedWhen);
}
Table<Rule> refused_when() {
  return table(kRefusedWhen);
}
Table<Call> pretended_missing() {
  return table(kPretendedMissing);
}

}  // namespace hutch::agent::policy
