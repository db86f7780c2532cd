#include "sandbox/setup.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "base/sys.h"
#include "sandbox/output.h"

namespace hutch::sandbox {

using namespace std::chrono_literals;

namespace {

constexpr size_t kShownBytes = 3000, kShownCommand = 200;

/// All that the commands print: in a file, and what is shown of the one that runs. Where the file cannot be
/// written, for want of room, the commands go on.
class SetupLog {
 public:
  SetupLog(const std::string& path, uint64_t max_bytes)
      : path_(path), file_(sys::open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600)), room_(max_bytes) {}

  void begin(const std::string& command) {
    shown_ = BoundedOutput(kShownBytes);
    write("$ " + command + "\n");
  }
  void add(std::string_view bytes) {
    shown_.append(bytes);
    write(bytes);
  }
  std::string shown() const { return shown_.text(path_); }
  std::string last_line() const { return shown_.last_line(); }

 private:
  void write(std::string_view bytes) {
    bytes = bytes.substr(0, room_);
    room_ -= bytes.size();
    if (sys::retry_eintr([&] { return ::write(file_.get(), bytes.data(), bytes.size()); }) < 0) room_ = 0;
  }

  const std::string path_;
  const UniqueFd file_;
  uint64_t room_;
  BoundedOutput shown_{kShownBytes};
};

std::string first_line(const std::string& command) {
  std::string line = command.substr(0, std::min(command.find('\n'), kShownCommand));
  if (line.size() == command.size()) return line;
  line.resize(whole_characters(line));
  return line + " ...";
}

/// What the command did instead of ending with 0.
Error failure_of(const Setup& setup, const ExecResult& result) {
  const std::string field = "profiles." + setup.profile;
  const std::string correct = fmt::format("correct `{}.setup` in the configuration", field);
  switch (result.end) {
    case End::cancelled:
      return {Errc::conflict, "was stopped: cancelled"};
    case End::timed_out:
      return Error(Errc::timeout,
                   fmt::format("did not get done: all have {} s together", setup.timeout.count()))
          .hint(fmt::format("raise `{}.setup_timeout_s` in the configuration", field));
    case End::oom_killed:
      return Error(Errc::limit_exceeded, "ran out of memory")
          .hint(fmt::format("raise `{}.memory` in the configuration", field));
    case End::exited:
      return Error(Errc::unavailable, fmt::format("ended with exit code {}", result.exit_code)).hint(correct);
    default:
      return Error(Errc::unavailable, fmt::format("ended with signal {}", result.signal)).hint(correct);
  }
}

void run_setup_command(Sandbox& sandbox, const Setup& setup, size_t index, Clock::time_point deadline,
                       SetupLog& log) {
  const std::string& command = setup.commands[index];
  const std::string place = fmt::format("setup {} of {}", index + 1, setup.commands.size());
  const std::string shown = first_line(command);
  log.begin(command);
  if (setup.progress) setup.progress(fmt::format("{}: {}", place, shown));
  ExecSpec spec{.command = command};
  // 0 would be never.
  spec.timeout = std::max(1ms, std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()));
  spec.stop = setup.stop;
  spec.on_output = [&log](int, std::string_view bytes) { log.add(bytes); };
  spec.last_line = [&log] { return log.last_line(); };
  if (setup.progress)
    spec.on_progress = [&](const std::string& line) {
      setup.progress(fmt::format("{}: {}", place, line.empty() ? shown : line));
    };
  const ExecResult result = during(fmt::format("running {} of profile '{}'", place, setup.profile),
                                   [&] { return sandbox.exec(spec); });
  if (result.end == End::exited && result.exit_code == 0) return;
  const Error cause = failure_of(setup, result);
  const std::string printed = log.shown();
  throw Error(cause.code(), fmt::format("{} of profile '{}' {}: `{}`\n{}", place, setup.profile, cause.what(),
                                        shown, printed.empty() ? "It printed nothing." : printed))
      .hint(fmt::format("{}{}all that was printed is in {}", cause.hint(), cause.hint().empty() ? "" : "; ",
                        setup.log));
}

}  // namespace

void run_setup(Sandbox& sandbox, const Setup& setup) {
  SetupLog log(setup.log, setup.log_max_bytes);
  const auto deadline = Clock::now() + setup.timeout;
  for (size_t i = 0; i < setup.commands.size(); ++i) run_setup_command(sandbox, setup, i, deadline, log);
}

}  // namespace hutch::sandbox
