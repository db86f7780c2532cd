#pragma once

#include <sys/types.h>

#include <array>
#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "base/unique_fd.h"

namespace hutch {

using Clock = std::chrono::steady_clock;

struct SpawnOptions {
  std::vector<std::string> argv;         // argv[0] is a path, not searched in PATH
  std::vector<std::string> env;          // exactly this; nothing is inherited
  std::array<int, 3> stdio{-1, -1, -1};  // -1 = /dev/null
  std::vector<std::pair<int, int>> fds;  // ours -> the child's number, beyond stdio
  bool own_group = false;                // what it starts is killed with it, unless that leaves the group
};

/// How a process ended.
struct ExitStatus {
  int code = -1;   // -1 when a signal ended it
  int signal = 0;  // 0 when it exited
  bool ok() const noexcept { return code == 0; }
};

/// A child of this process, held by pidfd so that its number can never mean another process.
/// The destructor kills and reaps one that is still there.
class Process {
 public:
  /// posix_spawn: no code of ours runs between clone and exec. Signals are default and unblocked in the
  /// child.
  static Process spawn(const SpawnOptions& options);

  Process() noexcept = default;
  Process(Process&& other) noexcept
      : pid_(std::exchange(other.pid_, 0)), own_group_(other.own_group_), pidfd_(std::move(other.pidfd_)) {}
  Process& operator=(Process&& other) noexcept;
  ~Process();

  pid_t pid() const noexcept { return pid_; }
  /// Throws timeout when it has not ended by `deadline`; it lives on.
  ExitStatus wait(Clock::time_point deadline);
  void kill(int signal) noexcept;
  /// Lets it go on without us; init reaps it.
  void detach() noexcept;

 private:
  pid_t pid_ = 0;  // 0 = none, or reaped
  bool own_group_ = false;
  UniqueFd pidfd_;
};

/// From now on, what our children leave behind becomes our child and not init's, which on many hosts
/// (containers without an init) never reaps. Then reap_orphans() has to be called now and then.
void adopt_orphans() noexcept;
/// Reaps the ended children that no Process owns.
void reap_orphans() noexcept;

UniqueFd pidfd_open(pid_t pid);
/// True when the process behind `pidfd` has ended before `deadline`.
bool wait_for_end(int pidfd, Clock::time_point deadline) noexcept;
void pidfd_signal(int pidfd, int signal) noexcept;

/// Clock ticks after boot at which `pid` started (field 22 of /proc/PID/stat); 0 when there is none.
/// Together with the number it names one process for good, also across a restart of the server.
uint64_t process_start_time(pid_t pid) noexcept;

/// The first executable `name` in $PATH or the usual folders; empty when there is none.
std::string find_program(const std::string& name);

}  // namespace hutch
