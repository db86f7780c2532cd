#include "base/process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <set>
#include <sstream>

#include "base/sys.h"

namespace hutch {

namespace {

std::vector<char*> pointers(const std::vector<std::string>& strings) {
  std::vector<char*> out;
  for (const auto& s : strings) out.push_back(const_cast<char*>(s.c_str()));
  out.push_back(nullptr);
  return out;
}

struct FileActions {
  posix_spawn_file_actions_t value;
  FileActions() { posix_spawn_file_actions_init(&value); }
  ~FileActions() { posix_spawn_file_actions_destroy(&value); }
  FileActions(const FileActions&) = delete;
  FileActions& operator=(const FileActions&) = delete;
};

struct SpawnAttributes {
  posix_spawnattr_t value;
  explicit SpawnAttributes(bool own_group) {
    // Ignored signals and the mask survive exec: a child must not inherit our ignored SIGPIPE.
    posix_spawnattr_init(&value);
    sigset_t all, none;
    sigfillset(&all);
    sigemptyset(&none);
    posix_spawnattr_setsigdefault(&value, &all);
    posix_spawnattr_setsigmask(&value, &none);
    const int group = own_group ? POSIX_SPAWN_SETPGROUP : 0;  // of its own number, which is the default
    posix_spawnattr_setflags(&value,
                             static_cast<short>(POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK | group));
  }
  ~SpawnAttributes() { posix_spawnattr_destroy(&value); }
  SpawnAttributes(const SpawnAttributes&) = delete;
  SpawnAttributes& operator=(const SpawnAttributes&) = delete;
};

/// The children that a Process owns and reaps. Allocated once and never destroyed: threads may still end
/// processes while the program exits.
class Owned {
 public:
  static Owned& instance() {
    static auto& owned = *new Owned;
    return owned;
  }
  /// Starting and noting a child is one step, so that reap_orphans() never takes a child for an orphan.
  template <class Start>
  pid_t add(Start start) {
    const std::lock_guard lock(mutex_);
    const pid_t pid = start();
    if (pid > 0) pids_.insert(pid);
    return pid;
  }
  void remove(pid_t pid) {
    const std::lock_guard lock(mutex_);
    pids_.erase(pid);
  }
  void reap_others() {
    const std::lock_guard lock(mutex_);
    for (;;) {
      siginfo_t info{};
      // Looked at first and left where it is: it may be somebody's. Then the rest waits for the next time.
      if (::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0) return;
      if (pids_.contains(info.si_pid)) return;
      (void)::waitpid(info.si_pid, nullptr, WNOHANG);
    }
  }

 private:
  std::mutex mutex_;
  std::set<pid_t> pids_;
};

}  // namespace

void adopt_orphans() noexcept {
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
}

void reap_orphans() noexcept {
  Owned::instance().reap_others();
}

Process Process::spawn(const SpawnOptions& options) {
  FileActions actions;
  for (int i = 0; i < 3; ++i) {
    const int fd = options.stdio[static_cast<size_t>(i)];
    if (fd < 0)
      posix_spawn_file_actions_addopen(&actions.value, i, "/dev/null", O_RDWR, 0);
    else
      posix_spawn_file_actions_adddup2(&actions.value, fd, i);
  }
  // Out of the way first: a number of ours may be one that the child gets for another descriptor.
  int highest = 2;
  for (const auto& [_, theirs] : options.fds) highest = std::max(highest, theirs);
  std::vector<UniqueFd> moved;
  for (const auto& [ours, theirs] : options.fds) {
    moved.emplace_back(::fcntl(ours, F_DUPFD_CLOEXEC, highest + 1));
    if (!moved.back()) throw sys_error(errno, "dup");
    posix_spawn_file_actions_adddup2(&actions.value, moved.back().get(), theirs);
  }

  const SpawnAttributes attributes(options.own_group);
  const auto argv = pointers(options.argv);
  const auto env = pointers(options.env);
  Process process;
  process.own_group_ = options.own_group;
  int err = 0;
  process.pid_ = Owned::instance().add([&]() -> pid_t {
    pid_t pid = 0;
    err = ::posix_spawn(&pid, argv[0], &actions.value, &attributes.value, argv.data(), env.data());
    return err == 0 ? pid : 0;
  });
  if (err != 0) {
    throw sys_error(err, "start", options.argv.at(0));
  }
  process.pidfd_ = pidfd_open(process.pid_);
  return process;
}

Process& Process::operator=(Process&& other) noexcept {
  std::swap(pid_, other.pid_);
  std::swap(own_group_, other.own_group_);
  std::swap(pidfd_, other.pidfd_);
  return *this;
}

Process::~Process() {
  if (pid_ == 0) return;
  kill(SIGKILL);
  int status = 0;
  (void)sys::retry_eintr([&] { return ::waitpid(pid_, &status, 0); });
  Owned::instance().remove(pid_);
}

ExitStatus Process::wait(Clock::time_point deadline) {
  if (!wait_for_end(pidfd_.get(), deadline))
    throw Error(Errc::timeout, fmt::format("process {} has not ended in time", pid_));
  int status = 0;
  const pid_t reaped = sys::retry_eintr([&] { return ::waitpid(pid_, &status, 0); });
  if (reaped < 0) throw sys_error(errno, "waitpid");
  Owned::instance().remove(std::exchange(pid_, 0));
  pidfd_.reset();
  if (WIFSIGNALED(status)) return {.code = -1, .signal = WTERMSIG(status)};
  return {.code = WEXITSTATUS(status), .signal = 0};
}

void Process::detach() noexcept {
  Owned::instance().remove(std::exchange(pid_, 0));
  pidfd_.reset();
}

void Process::kill(int signal) noexcept {
  if (pid_ == 0) return;
  if (own_group_) ::kill(-pid_, signal);  // nobody else's: the number is taken until we have reaped it
  pidfd_signal(pidfd_.get(), signal);
}

UniqueFd pidfd_open(pid_t pid) {
  const long fd = ::syscall(SYS_pidfd_open, pid, 0);
  if (fd < 0) throw sys_error(errno, "pidfd_open", std::to_string(pid));
  return UniqueFd(static_cast<int>(fd));
}

bool wait_for_end(int pidfd, Clock::time_point deadline) noexcept {
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd poll_fd{.fd = pidfd, .events = POLLIN, .revents = 0};
    const int n = ::poll(&poll_fd, 1, static_cast<int>(std::clamp<long>(left, 0, 1'000'000)));
    if (n > 0) return true;
    if (n == 0 && left <= 1'000'000) return false;
    if (n < 0 && errno != EINTR) return false;
  }
}

void pidfd_signal(int pidfd, int signal) noexcept {
  (void)::syscall(SYS_pidfd_send_signal, pidfd, signal, nullptr, 0);
}

uint64_t process_start_time(pid_t pid) noexcept {
  try {
    const std::string stat = sys::read_file(fmt::format("/proc/{}/stat", pid));
    // The name in field 2 may hold spaces and parentheses: count from the last one.
    std::istringstream fields(stat.substr(stat.rfind(')') + 1));
    std::string skipped;
    for (int field = 3; field < 22; ++field) fields >> skipped;
    uint64_t start = 0;
    fields >> start;
    return start;
  } catch (const std::exception&) {
    return 0;
  }
}

std::string find_program(const std::string& name) {
  if (name.find('/') != std::string::npos) return ::access(name.c_str(), X_OK) == 0 ? name : "";
  const char* path = std::getenv("PATH");
  // Hosts start servers with a short PATH; runtimes are often in sbin.
  std::istringstream folders(std::string(path != nullptr ? path : "") +
                             ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin");
  for (std::string folder; std::getline(folders, folder, ':');) {
    if (folder.empty()) continue;
    const std::string candidate = folder + "/" + name;
    struct stat st {};
    if (::stat(candidate.c_str(), &st) == 0 && S_ISREG(st.st_mode) && ::access(candidate.c_str(), X_OK) == 0)
      return candidate;
  }
  return "";
}

}  // namespace hutch
