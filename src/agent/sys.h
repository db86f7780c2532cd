#pragma once

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

/// System calls as the agent uses them: no exceptions, no allocation, errno as the kernel left it.
namespace hutch::agent {

template <class Call>
auto retry_eintr(Call&& call) {
  decltype(call()) result;
  do result = call();
  while (result == -1 && errno == EINTR);
  return result;
}

/// Milliseconds that go on while the machine sleeps: a lifetime is not prolonged by a suspended laptop.
inline uint64_t now_ms() {
  timespec now{};
  clock_gettime(CLOCK_BOOTTIME, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000 + static_cast<uint64_t>(now.tv_nsec) / 1000000;
}

/// glibc 2.36 has no wrapper for openat2 (kernel 5.6). With RESOLVE_IN_ROOT it gives EAGAIN when a rename
/// elsewhere races with "..": tried again, but not for ever, because what runs inside can rename for ever.
inline int openat2(int folder, const char* path, uint64_t flags, uint64_t mode, uint64_t resolve) {
  open_how how{};
  how.flags = flags;
  how.mode = mode;
  how.resolve = resolve;
  constexpr int kTries = 32;
  int fd = -1;
  for (int i = 0; i < kTries; ++i) {
    fd = static_cast<int>(retry_eintr([&] { return syscall(SYS_openat2, folder, path, &how, sizeof how); }));
    if (fd >= 0 || errno != EAGAIN) break;
  }
  if (fd >= 0 || errno != ENOSYS) return fd;
  // gVisor: what runs there sees nothing of the host, and the root of PID 1 is the sandbox's. Of links only
  // the last one can be refused.
  const int last = (resolve & RESOLVE_NO_SYMLINKS) != 0 ? O_NOFOLLOW : 0;
  return static_cast<int>(
      retry_eintr([&] { return openat(folder, path, static_cast<int>(flags) | last, mode); }));
}

/// A time past this is never; it keeps sums of times from overflowing.
inline constexpr uint64_t kForeverMs = uint64_t{1} << 50;

/// Descriptors with a fixed number, opened at start-up before anything untrusted runs.
inline constexpr int kHostInFd = 0;
inline constexpr int kHostOutFd = 1;
inline constexpr int kProcFd = 3;     // the folder /proc
inline constexpr int kRootFd = 4;     // the sandbox's root folder
inline constexpr int kNullFd = 5;     // what a command without input reads
inline constexpr int kPtsFd = 6;      // the folder /dev/pts; ENOTDIR or EBADF where there is none
inline constexpr int kControlFd = 7;  // in a supervisor only: its end of the socket to the agent

}  // namespace hutch::agent
