#include "sandbox/exec.h"

#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <thread>
#include <utility>

#include "sandbox/output.h"

namespace hutch::sandbox {

using namespace std::chrono_literals;

std::string_view end_name(End end) noexcept {
  switch (end) {
    case End::exited:
      return "exited";
    case End::signaled:
      return "signaled";
    case End::timed_out:
      return "timed_out";
    case End::oom_killed:
      return "oom_killed";
    case End::cancelled:
      return "cancelled";
    case End::running:
      return "running";
  }
  return "exited";
}

namespace {

constexpr auto kAfterGrace = 1500ms;  // for the sweeps and the answer, past the grace
constexpr auto kProgressEvery = 1s;
constexpr auto kStartTimeout = 10s;
constexpr auto kInputPatience = 1s;

/// Closes the process unless somebody goes on with it.
class Owned {
 public:
  explicit Owned(std::shared_ptr<Process> process) : process_(std::move(process)) {}
  ~Owned() {
    if (process_) process_->close();
  }
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  Process& operator*() { return *process_; }
  Process* operator->() { return process_.get(); }
  std::shared_ptr<Process> release() { return std::exchange(process_, nullptr); }

 private:
  std::shared_ptr<Process> process_;
};

struct Captured {
  BoundedOutput out, err;
  std::string last_line() const {
    return out.total_bytes() >= err.total_bytes() ? out.last_line() : err.last_line();
  }
};

/// When this call is over whatever happens. The agent keeps the deadline; it gets time to do so.
Clock::time_point call_end(Clock::time_point start, const ExecSpec& spec) {
  auto end = Clock::time_point::max();
  if (spec.timeout > 0ms) end = start + spec.timeout + kGrace + kAfterGrace;
  if (spec.yield) end = std::min<Clock::time_point>(end, start + *spec.yield);
  return end;
}

/// Passes on what comes from `spec.input_fd` until its end, the command's, or a stop.
void pass_input(Process& process, int fd, std::stop_token stop, Clock::time_point end) {
  std::array<char, wire::kDataChunk> piece;
  try {
    while (!stop.stop_requested()) {
      pollfd source{.fd = fd, .events = POLLIN, .revents = 0};
      if (::poll(&source, 1, 50) <= 0) continue;
      const ssize_t n = ::read(fd, piece.data(), piece.size());
      if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
      if (n <= 0) return process.end_input();
      const std::string_view bytes(piece.data(), static_cast<size_t>(n));
      if (process.write(bytes, stop, end) < bytes.size()) return;
    }
  } catch (const Error&) {
    // It could not be started, or the sandbox has ended: the caller's wait says so.
  }
}

/// True when the main process has ended.
bool wait_for_main(Process& process, const ExecSpec& spec, const Captured& captured, Clock::time_point end) {
  const auto exited = [](const Process::State& state) { return state.exited; };
  if (!spec.on_progress) return process.wait(spec.stop, end, exited);
  while (!spec.stop.stop_requested() && Clock::now() < end) {
    if (process.wait(spec.stop, std::min<Clock::time_point>(end, Clock::now() + kProgressEvery), exited))
      return true;
    if (!spec.stop.stop_requested())
      spec.on_progress(
          process.locked([&] { return spec.last_line ? spec.last_line() : captured.last_line(); }));
  }
  return false;
}

void end_command(Process& process, ExecResult& result, End why) {
  process.end_tree(kGrace);
  result.tree_ended = process.wait({}, Clock::now() + kGrace + kAfterGrace, [](const Process::State& state) {
    return state.exited && state.tree_gone;
  });
  note_end(process.state().end, result);
  result.end = why;
}

}  // namespace

void note_end(const wire::Exited& end, ExecResult& result) {
  result.exit_code = end.exit_code;
  result.signal = static_cast<int>(end.signal);
  result.end = end.signal != 0 ? End::signaled : End::exited;
  if ((end.flags & wire::Exited::kTimedOut) != 0) result.end = End::timed_out;
  result.log_bytes = end.log_bytes;
  result.left_running = end.left_running;
  result.supervisor_lost = (end.flags & wire::Exited::kSupervisorLost) != 0;
  result.cpu_us = end.cpu_us;
  result.max_rss_kib = end.max_rss_kib;
}

Started run_command(const std::shared_ptr<Channel>& channel, CommandSpec command, const ExecSpec& spec) {
  const auto start = Clock::now(), end = call_end(start, spec);
  command.has_input = !spec.input.empty() || spec.input_fd >= 0 || spec.background;
  const bool store = spec.background || command.terminal;
  Captured captured{BoundedOutput(spec.output_limit), BoundedOutput(spec.output_limit)};
  Process::Sink sink;
  if (!store) sink = spec.on_output;
  if (!store && !sink)
    sink = [&](int which, std::string_view bytes) {
      (which == 1 ? captured.out : captured.err).append(bytes);
    };

  Started started;
  ExecResult& result = started.result;
  Owned process(Process::start(channel, command, std::move(sink)));
  if (!spec.input.empty()) {
    // A call that returns at once does not wait for a command that is slow to read.
    const auto taken_by = spec.background ? std::min<Clock::time_point>(end, start + kInputPatience) : end;
    result.input_left = spec.input.size() - process->write(spec.input, spec.stop, taken_by);
    if (result.input_left == 0 && !command.terminal) process->end_input();
  }
  std::jthread input;
  if (spec.input_fd >= 0)
    input = std::jthread(
        [&p = *process, &spec, end](std::stop_token stop) { pass_input(p, spec.input_fd, stop, end); });

  bool goes_on = false;
  if (spec.background) {
    goes_on = process->wait(spec.stop, start + kStartTimeout,
                            [](const Process::State& state) { return state.pid != 0 || state.exited; });
    if (!goes_on) end_command(*process, result, End::cancelled);
  } else if (wait_for_main(*process, spec, captured, end)) {
    note_end(process->state().end, result);
    goes_on = result.left_running > 0 || command.terminal;
    if (goes_on && !store) process->end_relay();  // whatever the agent sends: `captured` is gone then
    started.next_unread = process->state().end.printed_bytes;
  } else if (spec.stop.stop_requested()) {
    // Nobody waits for what it printed any more, but it can be asked for.
    goes_on = !spec.on_output;
    if (goes_on) process->end_relay();
    end_command(*process, result, End::cancelled);
  } else if (spec.yield && Clock::now() >= start + *spec.yield) {
    result.end = End::running;
    started.next_unread = process->end_relay();
    goes_on = true;
  } else {
    end_command(*process, result, End::timed_out);  // the agent should have: it is late
  }
  if (spec.background && goes_on) result.end = End::running;
  if (command.terminal || spec.background) started.next_unread = 0;
  process->locked([&] {
    result.out = captured.out.text(command.log_path);
    result.err = captured.err.text(command.log_path);
    result.truncated = captured.out.truncated() || captured.err.truncated();
  });
  result.duration = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start);
  if (goes_on) started.process = process.release();
  return started;
}

}  // namespace hutch::sandbox
