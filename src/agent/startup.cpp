#include "agent/startup.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <net/if.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <charconv>
#include <cstring>

#include "agent/close_from.h"
#include "agent/seccomp_filter.h"
#include "agent/sys.h"
#include "base/unique_fd.h"

namespace hutch::agent {
namespace {

[[noreturn]] void fail_closed(const char* step) {
  constexpr int kSoftwareError = 70;  // EX_SOFTWARE of sysexits.h
  const int error = errno;
  dprintf(2, "hutch-agent: %s: %s\n", step, strerrorname_np(error));
  _exit(kSoftwareError);
}

/// All blocked: what matters is read from a signalfd, a write to a closed pipe gives EPIPE, and what runs
/// inside can wake PID 1 but not end it. All default: commands inherit the dispositions through exec.
void reset_signals() {
  for (int number = 1; number < NSIG; ++number) ::signal(number, SIG_DFL);
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, nullptr);
}

void fix_descriptor(int fd, int wanted, const char* step) {
  if (fd < 0) fail_closed(step);
  if (fd == wanted) return;
  if (dup3(fd, wanted, O_CLOEXEC) < 0) fail_closed(step);
  close(fd);
}

/// /dev/null, or the read end of a pipe that is at its end: no sandbox lacks a standard input.
int open_null() {
  const int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
  int ends[2];
  if (fd >= 0 || pipe2(ends, O_CLOEXEC) != 0) return fd;
  close(ends[1]);
  return ends[0];
}

/// Held open from before the first command: none can put something else in their place.
void open_fixed_descriptors() {
  fix_descriptor(open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC), kProcFd, "open /proc");
  fix_descriptor(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC), kRootFd, "open /");
  fix_descriptor(open_null(), kNullFd, "open /dev/null");
  const int pts = open("/dev/pts", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (pts >= 0) fix_descriptor(pts, kPtsFd, "open /dev/pts");
}

/// A new network namespace has its loopback down. Not permitted is fine: then it is not ours to set.
void bring_loopback_up() {
  UniqueFd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::memcpy(request.ifr_name, "lo", sizeof "lo");
  if (!fd || ioctl(fd.get(), SIOCGIFFLAGS, &request) != 0) return;
  if ((request.ifr_flags & IFF_UP) != 0) return;
  request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
  (void)ioctl(fd.get(), SIOCSIFFLAGS, &request);
}

void drop_net_admin() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3]{};
  if (syscall(SYS_capget, &header, data) != 0) fail_closed("capget");
  constexpr uint32_t kBit = CAP_TO_MASK(CAP_NET_ADMIN);
  auto& set = data[CAP_TO_INDEX(CAP_NET_ADMIN)];
  // The bounding set first: it needs CAP_SETPCAP, and without that nothing can bring the capability back
  // anyway, because no_new_privs follows.
  (void)prctl(PR_CAPBSET_DROP, CAP_NET_ADMIN, 0, 0, 0);
  (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_LOWER, CAP_NET_ADMIN, 0, 0);
  if (((set.permitted | set.effective | set.inheritable) & kBit) == 0) return;
  set.permitted &= ~kBit;
  set.effective &= ~kBit;
  set.inheritable &= ~kBit;
  if (syscall(SYS_capset, &header, data) != 0) fail_closed("capset");
}

/// A command has four descriptors in this process. Commands get the old limit back in spawn().
rlimit raise_open_files() {
  rlimit before{};
  getrlimit(RLIMIT_NOFILE, &before);
  const rlimit raised{before.rlim_max, before.rlim_max};
  (void)setrlimit(RLIMIT_NOFILE, &raised);
  return before;
}

int read_oom_score_adj() {
  char text[16];
  UniqueFd fd(openat(kProcFd, "self/oom_score_adj", O_RDONLY | O_CLOEXEC));
  const ssize_t size = fd ? read(fd.get(), text, sizeof text) : -1;
  int score = 0;
  if (size > 0) std::from_chars(text, text + size, score);
  return score;
}

}  // namespace

Inherited start_up(bool load_seccomp) {
  close_from(3);
  reset_signals();
  // From here on what runs inside cannot trace us, or read /proc/1/mem, fd or exe (CVE-2016-9962).
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) fail_closed("prctl PR_SET_DUMPABLE");
  prctl(PR_SET_NAME, "hutch-agent");
  umask(022);
  if (chdir("/") != 0) fail_closed("chdir /");
  open_fixed_descriptors();
  bring_loopback_up();
  drop_net_admin();
  const rlimit no_core{};
  (void)setrlimit(RLIMIT_CORE, &no_core);
  const Inherited inherited{raise_open_files(), read_oom_score_adj()};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) fail_closed("prctl PR_SET_NO_NEW_PRIVS");
  if (load_seccomp && !load_seccomp_filters()) fail_closed("seccomp");
  return inherited;
}

}  // namespace hutch::agent
