#include <fcntl.h>
#include <linux/sched.h>
#include <regex.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <string>
#include <string_view>

/// Runs a program and kills it, all threads at once, right before or after the N-th of its system calls that
/// change something outside of it and whose line matches a pattern (an extended regular expression):
///
///     kill_at [--list | --before | --after] [--report FILE] N PATTERN -- PROGRAM [ARGUMENT...]
///
/// Its lines look like `mkdir /data/servers/1a2b`. FILE gets the line it died at; with --list, where nothing
/// is killed, all of them. Exit status 88 when the point was reached, else the program's own. Standard input,
/// output and signals are the program's; its children are not traced and live on. What is written into mapped
/// memory is not seen.
namespace {

constexpr int kReached = 88;

enum class Shape { path, path_at, two_paths, two_paths_at, fd, process };

struct Call {
  long number;
  const char* name;
  Shape shape;
  size_t path = 0;  // the argument with the path, its folder before it where the shape says so
};

constexpr Call kCalls[] = {
#ifdef SYS_mkdir  // not on newer architectures
    {SYS_open, "open", Shape::path},
    {SYS_creat, "creat", Shape::path},
    {SYS_mkdir, "mkdir", Shape::path},
    {SYS_mknod, "mknod", Shape::path},
    {SYS_rmdir, "rmdir", Shape::path},
    {SYS_unlink, "unlink", Shape::path},
    {SYS_rename, "rename", Shape::two_paths},
    {SYS_link, "link", Shape::two_paths},
    {SYS_symlink, "symlink", Shape::two_paths},
    {SYS_fork, "fork", Shape::process},
    {SYS_vfork, "vfork", Shape::process},
#endif
    {SYS_openat, "open", Shape::path_at, 1},
    {SYS_mkdirat, "mkdir", Shape::path_at, 1},
    {SYS_mknodat, "mknod", Shape::path_at, 1},
    {SYS_unlinkat, "unlink", Shape::path_at, 1},
    {SYS_renameat, "rename", Shape::two_paths_at, 1},
    {SYS_renameat2, "rename", Shape::two_paths_at, 1},
    {SYS_linkat, "link", Shape::two_paths_at, 1},
    {SYS_symlinkat, "symlink", Shape::path_at, 2},
    {SYS_write, "write", Shape::fd},
    {SYS_pwrite64, "write", Shape::fd},
    {SYS_writev, "write", Shape::fd},
    {SYS_ftruncate, "truncate", Shape::fd},
    {SYS_fallocate, "allocate", Shape::fd},
    {SYS_flock, "flock", Shape::fd},
    {SYS_ioctl, "ioctl", Shape::fd},
    {SYS_clone, "start", Shape::process},
    {SYS_clone3, "start", Shape::process},
    {SYS_kill, "kill", Shape::process},
    {SYS_pidfd_send_signal, "signal", Shape::process},
};

struct Options {
  enum { list, before, after } what = before;
  const char* report = nullptr;
  unsigned long nth = 0;
  regex_t pattern{};
  char** program = nullptr;
};

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "kill_at: %s: %s\n", what, std::strerror(errno));
  std::exit(125);
}

Options parse(int argc, char** argv) {
  Options options;
  int i = 1;
  for (; i < argc && std::strncmp(argv[i], "--", 2) == 0; ++i) {
    const std::string_view word = argv[i];
    if (word == "--list")
      options.what = Options::list;
    else if (word == "--before")
      options.what = Options::before;
    else if (word == "--after")
      options.what = Options::after;
    else if (word == "--report" && i + 1 < argc)
      options.report = argv[++i];
    else
      break;
  }
  if (i + 3 >= argc || std::strcmp(argv[i + 2], "--") != 0 ||
      ::regcomp(&options.pattern, argv[i + 1], REG_EXTENDED | REG_NOSUB) != 0) {
    std::fputs(
        "usage: kill_at [--list|--before|--after] [--report FILE] N PATTERN -- PROGRAM [ARGUMENT...]\n",
        stderr);
    std::exit(125);
  }
  options.nth = std::strtoul(argv[i], nullptr, 10);
  options.program = argv + i + 3;
  return options;
}

pid_t program = 0;  // for the signal handler

/// Reads the memory of a thread that is stopped.
class Memory {
 public:
  explicit Memory(pid_t pid) : pid_(pid) {}

  uint64_t word(uint64_t address) const {
    uint64_t value = 0;
    (void)read(address, &value, sizeof value);
    return value;
  }
  std::string text(uint64_t address) const {
    std::string out;
    std::array<char, 256> piece{};
    while (out.size() < 4096) {
      // Up to the next such border: a page that is not there begins at one.
      const size_t size = piece.size() - address % piece.size();
      const ssize_t n = read(address, piece.data(), size);
      if (n <= 0) break;
      char* const end = std::find(piece.data(), piece.data() + n, '\0');
      out.append(piece.data(), end);
      if (end != piece.data() + n) break;
      address += static_cast<uint64_t>(n);
    }
    return out;
  }

 private:
  ssize_t read(uint64_t address, void* to, size_t size) const {
    iovec local{to, size}, remote{reinterpret_cast<void*>(address), size};
    return ::process_vm_readv(pid_, &local, 1, &remote, 1, 0);
  }
  pid_t pid_;
};

/// One system call of the program, at its entry.
class Entry {
 public:
  Entry(pid_t thread, const __ptrace_syscall_info& info) : memory_(thread), info_(info) {}

  /// What it is about to do outside; empty when nothing.
  std::string line() const {
    const auto nr = static_cast<long>(info_.entry.nr);
    const Call* call =
        std::find_if(std::begin(kCalls), std::end(kCalls), [&](const Call& c) { return c.number == nr; });
    if (call == std::end(kCalls)) return {};
    const std::string object = object_of(*call);
    return object.empty() ? "" : std::string(call->name) + " " + object;
  }

 private:
  uint64_t arg(size_t i) const { return info_.entry.args[i]; }

  std::string object_of(const Call& call) const {
    if (call.name == std::string_view("open") && (open_flags(call) & O_CREAT) == 0) return {};
    switch (call.shape) {
      case Shape::path:
        return memory_.text(arg(call.path));
      case Shape::path_at:
        return path_at(call.path);
      case Shape::two_paths:
        return memory_.text(arg(0)) + " " + memory_.text(arg(1));
      case Shape::two_paths_at:
        return path_at(1) + " " + path_at(3);
      case Shape::fd:
        return file(call);
      case Shape::process:
        return process(call);
    }
    return {};
  }

  uint64_t open_flags(const Call& call) const { return arg(call.path + 1); }

  std::string path_at(size_t i) const {
    const std::string path = memory_.text(arg(i));
    if (path.empty() || path.front() == '/' || static_cast<int>(arg(i - 1)) == AT_FDCWD) return path;
    return file_name(arg(i - 1)) + "/" + path;
  }

  static std::string link(uint64_t fd) {
    return "/proc/" + std::to_string(program) + "/fd/" + std::to_string(static_cast<int>(fd));
  }
  static std::string file_name(uint64_t fd) {
    std::array<char, 4096> name{};
    const ssize_t n = ::readlink(link(fd).c_str(), name.data(), name.size());
    return n > 0 ? std::string(name.data(), static_cast<size_t>(n)) : "";
  }

  /// Pipes, sockets and files without a name are nothing that is left behind.
  std::string file(const Call& call) const {
    struct stat st {};
    if (::stat(link(arg(0)).c_str(), &st) != 0) return {};
    if (call.number == SYS_ioctl) {
      const bool loop = (S_ISBLK(st.st_mode) || S_ISCHR(st.st_mode)) && (arg(1) >> 8) == 0x4c;  // LOOP_...
      return loop ? file_name(arg(0)) + " " + std::to_string(arg(1)) : "";
    }
    const bool stays = (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) && st.st_nlink > 0;
    return stays ? file_name(arg(0)) : "";
  }

  std::string process(const Call& call) const {
    if (call.number == SYS_kill || call.number == SYS_pidfd_send_signal)
      return std::to_string(static_cast<int>(arg(0))) + " " + std::to_string(static_cast<int>(arg(1)));
    uint64_t flags = 0;
    if (call.number == SYS_clone) flags = arg(0);
    if (call.number == SYS_clone3) flags = memory_.word(arg(0));  // the first field of its argument
    return (flags & CLONE_THREAD) != 0 ? "" : "a process";
  }

  Memory memory_;
  const __ptrace_syscall_info& info_;
};

/// The child waits until it is traced: from its first instruction on nothing is missed.
pid_t start(char** argv) {
  int go[2];
  if (::pipe2(go, O_CLOEXEC) != 0) fail("pipe");
  const pid_t pid = ::fork();
  if (pid < 0) fail("fork");
  if (pid == 0) {
    char word = 0;
    (void)::close(go[1]);
    (void)!::read(go[0], &word, 1);
    ::execvp(argv[0], argv);
    fail(argv[0]);
  }
  // Only threads: a posix_spawn()ed child is neither traced nor ended with us.
  const long traced = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL;
  // From here on it runs as it did: only a stop begins to show its calls, and this one comes before its next.
  if (::ptrace(PTRACE_SEIZE, pid, nullptr, traced) != 0 ||
      ::ptrace(PTRACE_INTERRUPT, pid, nullptr, nullptr) != 0)
    fail("trace");
  (void)::close(go[0]);
  (void)::close(go[1]);
  return pid;
}

class Tracer {
 public:
  explicit Tracer(const Options& options) : options_(options) {
    if (options.report != nullptr && (report_ = std::fopen(options.report, "we")) == nullptr)
      fail(options.report);
  }

  /// Until the program has ended; the exit status.
  int run() {
    for (;;) {
      int status = 0;
      const pid_t thread = ::waitpid(-1, &status, __WALL);
      if (thread < 0 && errno == EINTR) continue;
      if (thread < 0) fail("wait");
      if (WIFSTOPPED(status)) {
        stopped(thread, status);
      } else if (thread == program) {
        if (report_ != nullptr) std::fclose(report_);
        if (killed_) return kReached;
        return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
      }
    }
  }

 private:
  void stopped(pid_t thread, int status) {
    const int signal = WSTOPSIG(status), event = status >> 16;
    if (event == PTRACE_EVENT_STOP &&
        (signal == SIGSTOP || signal == SIGTSTP || signal == SIGTTIN || signal == SIGTTOU)) {
      ::ptrace(PTRACE_LISTEN, thread, nullptr, nullptr);
      return;
    }
    if (signal == (SIGTRAP | 0x80)) at_call(thread);
    const bool its_own = event == 0 && signal != (SIGTRAP | 0x80);  // a signal that is for the program
    ::ptrace(PTRACE_SYSCALL, thread, nullptr, static_cast<long>(its_own ? signal : 0));
  }

  void at_call(pid_t thread) {
    __ptrace_syscall_info info{};
    if (killed_ || ::ptrace(PTRACE_GET_SYSCALL_INFO, thread, sizeof info, &info) <= 0) return;
    if (info.op == PTRACE_SYSCALL_INFO_EXIT && thread == last_) kill();
    if (info.op != PTRACE_SYSCALL_INFO_ENTRY || last_ != 0) return;
    const std::string line = Entry(thread, info).line();
    if (line.empty() || ::regexec(&options_.pattern, line.c_str(), 0, nullptr, 0) != 0) return;
    ++count_;
    const bool reached = count_ == options_.nth && options_.what != Options::list;
    if (report_ != nullptr && (reached || options_.what == Options::list)) {
      std::fprintf(report_, "%s\n", line.c_str());
      std::fflush(report_);
    }
    if (reached && options_.what == Options::before) kill();
    if (reached && options_.what == Options::after) last_ = thread;
  }

  /// A thread that stands at the entry of a call does not make it any more.
  void kill() {
    killed_ = true;
    ::kill(program, SIGKILL);
  }

  const Options& options_;
  std::FILE* report_ = nullptr;
  unsigned long count_ = 0;
  pid_t last_ = 0;  // the thread after whose call it ends
  bool killed_ = false;
};

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  program = start(options.program);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP})
    ::signal(signal, [](int number) { ::kill(program, number); });
  // Whoever waits for the end of the program's output must not wait for us.
  const int nothing = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO}) ::dup2(nothing, fd);
  return Tracer(options).run();
}
