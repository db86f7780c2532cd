#include "sandbox/command.h"

#include <fmt/format.h>
#include <signal.h>

#include <poll.h>

#include <array>
#include <memory>
#include <thread>

#include "sandbox/request.h"

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
  }
  return "exited";
}

void check_environment(const std::map<std::string, std::string>& env) {
  for (const auto& [name, value] : env)
    if (name.empty() || name.find('=') != std::string::npos || (name + value).find('\0') != std::string::npos)
      throw Error(Errc::invalid_argument, fmt::format("'{}' cannot be an environment variable", name));
}

namespace {

constexpr auto kGrace = 2s;
constexpr auto kAfterGrace = 1500ms;  // for the sweeps and the answer, past the grace
constexpr auto kProgressEvery = 1s;

/// What has come of one command so far.
class CommandStream : public WaitedStream {
 public:
  CommandStream(Channel& channel, const CommandSpec& spec)
      : channel_(channel), spec_(spec), out_(spec.output_limit), err_(spec.output_limit) {}

  bool wait_for_main(std::stop_token stop, Clock::time_point deadline) {
    return wait_until(stop, deadline, [&] { return exited_ || failed() || closed(); });
  }
  bool wait_for_tree(Clock::time_point deadline) {
    return wait_until({}, deadline, [&] { return (exited_ && tree_gone_) || failed() || closed(); });
  }

  /// Bytes of input that may be sent now, at most `wanted`; waits for credit. 0: the command or its time has
  /// ended.
  size_t take_credit(size_t wanted, Clock::time_point deadline) {
    size_t taken = 0;
    wait_until(spec_.stop, deadline, [&] {
      if (exited_ || failed() || closed()) return true;
      taken = std::min<size_t>(wanted, credit_);
      credit_ -= taken;
      return taken > 0;
    });
    return taken;
  }

  std::string last_line() {
    const std::lock_guard lock(mutex_);
    return out_.total_bytes() >= err_.total_bytes() ? out_.last_line() : err_.last_line();
  }

  CommandResult result() {
    const std::lock_guard lock(mutex_);
    if (failed()) throw failure();
    if (closed() && !exited_) throw Error(Errc::unavailable, "the sandbox ended while the command ran");
    CommandResult r;
    r.exit_code = end_.exit_code;
    r.signal = static_cast<int>(end_.signal);
    r.end = end_.signal != 0 ? End::signaled : End::exited;
    r.out = out_.text(spec_.log_path);
    r.err = err_.text(spec_.log_path);
    r.truncated = out_.truncated() || err_.truncated();
    r.out_bytes = out_.total_bytes();
    r.err_bytes = err_.total_bytes();
    r.log_bytes = end_.log_bytes;
    r.left_running = end_.left_running;
    r.supervisor_lost = (end_.flags & wire::Exited::kSupervisorLost) != 0;
    r.cpu_us = end_.cpu_us;
    r.max_rss_kib = end_.max_rss_kib;
    return r;
  }

 private:
  void handle(const wire::Header& header, std::string_view payload) override {
    using wire::Type;
    wire::Credit credit;
    switch (header.type) {
      case Type::output:
        on_output(header.flags, payload);
        break;
      case Type::exited:
        exited_ = wire::decode(payload, end_);
        break;
      case Type::tree_gone:
        tree_gone_ = true;
        break;
      case Type::credit:
        if (wire::decode(payload, credit)) credit_ += credit.bytes;
        break;
      default:
        break;
    }
  }

  void on_output(uint8_t which, std::string_view bytes) {
    if (spec_.on_output)
      spec_.on_output(which == 0 ? 1 : 2, bytes);
    else
      (which == 0 ? out_ : err_).append(bytes);
    consumed_ += static_cast<uint32_t>(bytes.size());
    if (consumed_ >= wire::kWindow / 4)
      channel_.send(wire::Type::credit, id(), wire::Credit{std::exchange(consumed_, 0)});
  }

  Channel& channel_;
  const CommandSpec& spec_;
  BoundedOutput out_, err_;
  size_t credit_ = wire::kInputWindow;
  uint32_t consumed_ = 0;
  wire::Exited end_;
  bool exited_ = false, tree_gone_ = false;
};

std::string packed(const std::vector<std::string>& strings) {
  std::string out;
  for (const auto& s : strings) {
    if (s.find('\0') != std::string::npos)
      throw Error(Errc::invalid_argument, "a NUL byte in a command, argument or environment variable");
    out += s + '\0';
  }
  return out;
}

std::vector<std::string> assignments(const std::map<std::string, std::string>& env) {
  check_environment(env);
  std::vector<std::string> out;
  for (const auto& [name, value] : env) out.push_back(name + "=" + value);
  return out;
}

void send_exec(Channel& channel, uint32_t id, const CommandSpec& spec) {
  const std::string argv = packed(spec.argv), env = packed(assignments(spec.env));
  const bool has_input = !spec.input.empty() || spec.input_fd >= 0;
  const auto options = static_cast<uint8_t>((spec.merge_output ? wire::Exec::kMergeOutput : 0) |
                                            (has_input ? wire::Exec::kInput : 0));
  channel.send(wire::Type::exec, id,
               wire::Exec{.argv = {argv},
                          .env = {env},
                          .workdir = spec.workdir,
                          .log_path = spec.log_path,
                          .log_max_bytes = spec.log_max_bytes,
                          .logs_max_bytes = spec.log_max_bytes,
                          .options = options});
}

/// False when the command ended, or its time, before all of the piece was taken.
bool send_input(Channel& channel, CommandStream& stream, uint32_t id, std::string_view input,
                Clock::time_point deadline) {
  while (!input.empty()) {
    const size_t n = stream.take_credit(std::min<size_t>(input.size(), wire::kDataChunk), deadline);
    if (n == 0) return false;
    channel.send_bytes(wire::Type::input, id, input.substr(0, n));
    input.remove_prefix(n);
  }
  return true;
}

/// Passes on what comes from `spec.input_fd` until its end, the command's, or a stop.
void pass_input(Channel& channel, CommandStream& stream, uint32_t id, const CommandSpec& spec,
                std::stop_token stop, Clock::time_point deadline) {
  std::array<char, wire::kDataChunk> piece;
  while (!stop.stop_requested()) {
    pollfd source{.fd = spec.input_fd, .events = POLLIN, .revents = 0};
    if (::poll(&source, 1, 50) <= 0) continue;
    const ssize_t n = ::read(spec.input_fd, piece.data(), piece.size());
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (n <= 0) return channel.send_bytes(wire::Type::input_end, id);
    if (!send_input(channel, stream, id, {piece.data(), static_cast<size_t>(n)}, deadline)) return;
  }
}

bool wait_for_main(CommandStream& stream, const CommandSpec& spec, Clock::time_point deadline) {
  while (!spec.stop.stop_requested() && Clock::now() < deadline) {
    const auto until =
        spec.on_progress ? std::min<Clock::time_point>(deadline, Clock::now() + kProgressEvery) : deadline;
    if (stream.wait_for_main(spec.stop, until)) return true;
    if (spec.on_progress && !spec.stop.stop_requested()) spec.on_progress(stream.last_line());
  }
  return false;
}

}  // namespace

CommandResult run_command(Channel& channel, const CommandSpec& spec) {
  const auto start = Clock::now(), deadline = start + spec.timeout;
  Registered stream(channel, std::make_shared<CommandStream>(channel, spec));
  send_exec(channel, stream.id(), spec);
  if (!spec.input.empty() && send_input(channel, *stream, stream.id(), spec.input, deadline))
    channel.send_bytes(wire::Type::input_end, stream.id());
  std::jthread input;
  if (spec.input_fd >= 0)
    input = std::jthread(
        [&](std::stop_token stop) { pass_input(channel, *stream, stream.id(), spec, stop, deadline); });

  const bool ended_by_itself = wait_for_main(*stream, spec, deadline);
  bool tree_ended = true;
  if (!ended_by_itself) {
    const auto grace = static_cast<uint32_t>(std::chrono::milliseconds(kGrace).count());
    channel.send(wire::Type::end_tree, stream.id(), wire::EndTree{grace});
    tree_ended = stream->wait_for_tree(Clock::now() + kGrace + kAfterGrace);
  }
  CommandResult result = stream->result();
  if (!ended_by_itself) result.end = spec.stop.stop_requested() ? End::cancelled : End::timed_out;
  result.tree_ended = tree_ended;
  result.duration = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start);
  return result;
}

}  // namespace hutch::sandbox
