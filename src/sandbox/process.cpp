#include "sandbox/process.h"

#include <fmt/format.h>

#include <algorithm>

namespace hutch::sandbox {

void check_environment(const std::map<std::string, std::string>& env) {
  for (const auto& [name, value] : env)
    if (name.empty() || name.find('=') != std::string::npos || (name + value).find('\0') != std::string::npos)
      throw Error(Errc::invalid_argument, fmt::format("'{}' cannot be an environment variable", name));
}

namespace {

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

uint8_t options(const CommandSpec& spec, bool store) {
  using wire::Exec;
  int all = 0;
  if (spec.merge_output || spec.terminal) all |= Exec::kMergeOutput;
  if (spec.has_input || spec.terminal) all |= Exec::kInput;
  if (spec.terminal) all |= Exec::kTerminal;
  if (store) all |= Exec::kStore;
  return static_cast<uint8_t>(all);
}

void send_exec(Channel& channel, uint32_t stream, const CommandSpec& spec, bool store) {
  const std::string argv = packed(spec.argv), env = packed(assignments(spec.env));
  channel.send(wire::Type::exec, stream,
               wire::Exec{.argv = {argv},
                          .env = {env},
                          .workdir = spec.workdir,
                          .user = spec.user,
                          .log_path = spec.log_path,
                          .log_max_bytes = spec.log_max_bytes,
                          .logs_max_bytes = spec.logs_max_bytes,
                          .number = spec.number,
                          .timeout_ms = static_cast<uint64_t>(spec.timeout.count()),
                          .rows = static_cast<uint16_t>(spec.size.rows),
                          .columns = static_cast<uint16_t>(spec.size.columns),
                          .options = options(spec, store)});
}

uint64_t age_ms(Clock::time_point since) {
  return static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - since).count());
}

/// Takes the one answer to a ReadOutput.
class OutputStream : public WaitedStream {
 public:
  Process::Piece wait(Clock::time_point deadline) {
    const bool answered = wait_until({}, deadline, [&] { return answered_ || failed() || closed(); });
    const std::lock_guard lock(mutex_);
    if (failed()) throw failure();
    if (closed() && !answered_) throw Error(Errc::unavailable, "the sandbox ended meanwhile");
    if (!answered) throw Error(Errc::timeout, "the sandbox's agent does not answer");
    return std::move(piece_);
  }

 private:
  void handle(const wire::Header& header, std::string_view payload) override {
    wire::OutputPiece piece;
    if (header.type != wire::Type::output_piece || !wire::decode(payload, piece)) return;
    piece_ = {piece.first, piece.printed_bytes, std::string(piece.bytes)};
    answered_ = true;
  }

  Process::Piece piece_;
  bool answered_ = false;
};

}  // namespace

std::shared_ptr<Process> Process::start(std::shared_ptr<Channel> channel, const CommandSpec& spec, Sink sink,
                                        Flow flow) {
  Channel& link = *channel;
  const bool store = !sink;
  auto process = std::shared_ptr<Process>(
      new Process(std::move(channel), spec.has_input || spec.terminal, std::move(sink), flow));
  const uint32_t id = link.open_stream(process);
  process->attach(link, id);
  try {
    send_exec(link, id, spec, store);
  } catch (...) {
    process->close();
    throw;
  }
  return process;
}

std::shared_ptr<Process> Process::adopt(std::shared_ptr<Channel> channel, uint32_t stream,
                                        const wire::Started& started, Clock::time_point started_at) {
  Channel& link = *channel;
  const bool has_input = (started.state & wire::Started::kInput) != 0;
  auto process =
      std::shared_ptr<Process>(new Process(std::move(channel), has_input, Sink(), Flow::by_sink, started_at));
  process->state_.input_room = 0;  // the agent tells a new host how much there is
  process->input_ended_ = (started.state & wire::Started::kInputEnded) != 0;
  process->attach(link, stream);
  return process;
}

void Process::close() {
  detach();
  const bool kept = locked([&] { return stored_ || !state_.exited || state_.end.left_running > 0; });
  if (kept) link_->send_bytes(wire::Type::forget, id());
  link_->close_stream(id());
}

Process::State Process::state() const {
  const std::lock_guard lock(mutex_);
  return state_;
}

bool Process::running() const {
  return locked([&] { return !state_.tree_gone && !closed(); });
}

void Process::check() const {
  const std::lock_guard lock(mutex_);
  if (failed()) throw failure();
  if (closed() && !state_.exited) throw Error(Errc::unavailable, "the sandbox ended while the command ran");
}

void Process::handle(const wire::Header& header, std::string_view payload) {
  using wire::Type;
  wire::Credit credit;
  wire::Started started;
  wire::Position position;
  switch (header.type) {
    case Type::started:
      if (!wire::decode(payload, started)) return;
      state_.pid = started.pid;
      printed_ = std::max(printed_, started.printed_bytes);
      return;
    case Type::output:
      return on_output(header.flags, payload);
    case Type::exited:
      state_.exited = wire::decode(payload, state_.end);
      state_.end.ran_ms = std::min(state_.end.ran_ms, age_ms(started_at_));
      if (state_.exited) sink_ = nullptr;  // its caller may be gone, whatever the agent still sends
      printed_ = std::max(printed_, state_.end.printed_bytes);
      return;
    case Type::tree_gone:
      state_.tree_gone = true;
      return;
    case Type::credit:
      // No more than the agent promises to buffer, whatever it says.
      if (wire::decode(payload, credit))
        state_.input_room = std::min<size_t>(state_.input_room + credit.bytes, wire::kInputWindow);
      return;
    case Type::printed:
      if (wire::decode(payload, position)) printed_ = std::max(printed_, position.bytes);
      return;
    case Type::relaying:
      if (wire::decode(payload, position)) relay_begin_ = received_ = position.bytes;
      relay_answered_ = true;
      return;
    default:
      return;
  }
}

void Process::on_output(uint8_t which, std::string_view bytes) {
  if (!sink_ || !relay_answered_) return;  // it is stored
  received_ += bytes.size();
  sink_(which == 0 ? 1 : 2, bytes);
  if (flow_ == Flow::by_sink) give_credit(bytes.size());
}

void Process::consumed(size_t bytes) {
  locked([&] { give_credit(bytes); });
}

/// With the lock held.
void Process::give_credit(size_t bytes) {
  consumed_ += static_cast<uint32_t>(bytes);
  if (consumed_ >= wire::kWindow / 4)
    link_->send(wire::Type::credit, id(), wire::Credit{std::exchange(consumed_, 0)});
}

void Process::end_tree(std::chrono::milliseconds grace) {
  link_->send(wire::Type::end_tree, id(), wire::EndTree{static_cast<uint32_t>(grace.count())});
}

void Process::signal(int number) {
  link_->send(wire::Type::signal, id(), wire::Signal{static_cast<uint32_t>(number)});
}

void Process::resize(const TerminalSize& size) {
  link_->send(wire::Type::resize, id(),
              wire::WindowSize{static_cast<uint16_t>(size.rows), static_cast<uint16_t>(size.columns)});
}

size_t Process::write(std::string_view input, std::stop_token stop, Clock::time_point deadline) {
  size_t written = 0;
  while (written < input.size()) {
    size_t piece = 0;
    const size_t wanted = std::min<size_t>(input.size() - written, wire::kDataChunk);
    wait(stop, deadline, [&](const State& state) {
      if (state.exited) return true;
      piece = std::min(wanted, state_.input_room);
      state_.input_room -= piece;
      return piece > 0;
    });
    if (piece == 0) break;
    link_->send_bytes(wire::Type::input, id(), input.substr(written, piece));
    written += piece;
  }
  return written;
}

void Process::end_input() {
  locked([&] { input_ended_ = true; });
  link_->send_bytes(wire::Type::input_end, id());
}

void Process::begin_relay(Sink sink) {
  locked([&] {
    sink_ = std::move(sink);
    relay_answered_ = false;
    consumed_ = 0;
  });
  link_->send(wire::Type::relay, id(), wire::Relay{1});
}

uint64_t Process::relay_begin() const {
  return locked([&] { return relay_begin_; });
}

uint64_t Process::relay_end() const {
  return locked([&] { return received_; });
}

uint64_t Process::end_relay() {
  const uint64_t end = locked([&] {
    sink_ = nullptr;  // first: the sandbox may have ended, and then nothing can be sent
    stored_ = true;
    return received_;
  });
  link_->send(wire::Type::relay, id(), wire::Relay{0});
  return end;
}

Process::Piece Process::read(uint64_t from, size_t max_bytes, Clock::time_point deadline) {
  const std::lock_guard one_at_a_time(read_mutex_);
  Piece all{.first = from, .printed = from, .bytes = {}};
  while (all.bytes.size() < max_bytes) {
    Registered stream(*link_, std::make_shared<OutputStream>());
    const auto wanted =
        static_cast<uint32_t>(std::min<size_t>(max_bytes - all.bytes.size(), wire::kDataChunk));
    const uint64_t next = all.first + all.bytes.size();
    link_->send(wire::Type::read_output, stream.id(), wire::ReadOutput{id(), next, wanted});
    Piece piece = stream->wait(deadline);
    // A gap: what comes before it is one piece, what comes behind it the next.
    if (piece.first != next && !all.bytes.empty()) break;
    all.first = all.bytes.empty() ? piece.first : all.first;
    all.printed = piece.printed;
    all.bytes += piece.bytes;
    if (piece.bytes.empty() || all.first + all.bytes.size() >= piece.printed) break;
  }
  return all;
}

bool Process::wait_for_output(uint64_t bytes, std::stop_token stop, Clock::time_point deadline) {
  uint64_t printed = locked([&] { return printed_; });
  while (printed <= bytes && running()) {
    // Another who waits for less may be told of first, in place of this one.
    const uint64_t known = printed;
    link_->send(wire::Type::watch, id(), wire::Watch{bytes});
    const bool news = wait(stop, deadline, [&](const State& state) {
      printed = printed_;
      return printed > known || state.tree_gone;
    });
    if (!news) break;
  }
  return printed > bytes;
}

}  // namespace hutch::sandbox
