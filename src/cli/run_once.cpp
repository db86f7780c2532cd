#include <fmt/format.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <stop_token>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "base/sys.h"
#include "cli/commands.h"
#include "sandbox/manager.h"

namespace hutch::cli {

using namespace std::chrono_literals;

namespace {

/// Turns Ctrl-C and its kin into a request to stop, on a thread of its own. The signals are blocked before
/// any other thread starts, so that nobody else gets them.
class StopOnSignal {
 public:
  StopOnSignal() {
    sigset_t signals;
    sigemptyset(&signals);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&signals, signal);
    ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    fd_ = UniqueFd(::signalfd(-1, &signals, SFD_CLOEXEC));
    std::thread([fd = fd_.get(), this] {
      signalfd_siginfo info{};
      if (sys::retry_eintr([&] { return ::read(fd, &info, sizeof info); }) != sizeof info) return;
      signal_ = static_cast<int>(info.ssi_signo);
      source_.request_stop();
    }).detach();  // it ends with the process
  }
  std::stop_token token() const { return source_.get_token(); }
  int signal() const { return signal_; }

 private:
  UniqueFd fd_;
  std::stop_source source_;
  std::atomic<int> signal_{0};
};

int exit_code(const sandbox::ExecResult& result, int signal, uint64_t memory_bytes) {
  switch (result.end) {
    case sandbox::End::exited:
      return result.exit_code;
    case sandbox::End::oom_killed:
      fmt::print(stderr, "hutch: out of memory: ended at the sandbox's limit of {}\n",
                 to_string(Bytes{memory_bytes}));
      return 128 + SIGKILL;
    case sandbox::End::cancelled:
      return 128 + signal;
    default:
      return 128 + result.signal;
  }
}

}  // namespace

int run_once(const Options& options) {
  if (options.words.empty())
    throw Error(Errc::invalid_argument, "no command is given").hint("hutch run -- python3 -c 'print(2+2)'");
  ::signal(SIGPIPE, SIG_IGN);
  config::LoadedConfig settings = load_settings(options);
  settings.config.pool.max = 0;  // one sandbox and no more
  // Never destroyed: its thread waits until the process ends.
  auto& stop = *new StopOnSignal;

  sandbox::Manager manager(settings.config);
  const auto sandbox =
      manager.create({.profile = options.profile.value_or(""),
                      .progress = [](std::string_view line) { fmt::print(stderr, "{}\n", line); },
                      .stop = stop.token()});
  sandbox::ExecSpec spec;
  spec.argv = options.words;
  spec.input_fd = STDIN_FILENO;
  spec.timeout = std::chrono::milliseconds(0);
  spec.stop = stop.token();
  spec.on_output = [](int which, std::string_view bytes) {
    try {
      sys::write_all(which, bytes);
    } catch (const Error&) {
      // Whoever read our output is gone; the command gets to its own end.
    }
  };
  int code = 0;
  try {
    const sandbox::ExecResult result = sandbox->exec(spec);
    code = exit_code(result, stop.signal(), sandbox->about().limits.memory_bytes);
  } catch (const Error& e) {
    // As a shell does: 127 for a program that is not there, 126 for one that cannot be run.
    if (e.os_error() != ENOENT && e.os_error() != EACCES && e.os_error() != ENOEXEC) throw;
    fmt::print(stderr, "hutch: {}\n", error_text(e));
    code = e.os_error() == ENOENT ? 127 : 126;
  }
  manager.shutdown(Clock::now() + 2s);
  ::_exit(code);
}

}  // namespace hutch::cli
