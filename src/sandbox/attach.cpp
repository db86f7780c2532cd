#include "sandbox/attach.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <deque>
#include <thread>
#include <utility>

#include "base/log.h"
#include "base/sys.h"
#include "sandbox/attach_frames.h"

namespace hutch::sandbox {

using namespace std::chrono_literals;

namespace {

constexpr auto kAttachStartTimeout = 8s;  // less than the client waits for the answer
constexpr auto kAfterHangUp = 1500ms;     // for sweeps and answers, past the grace

}  // namespace

/// One client and its command. Two threads: receive() takes what the client sends and never waits for the
/// command, so that a signal or the client's end is always noticed; run() waits for the command, and is the
/// only one that sends.
class Attachment {
 public:
  Attachment(UniqueFd socket, std::string_view received, AttachRequest request, Attachments::AnswerLine line)
      : socket_(std::move(socket)), request_(std::move(request)), line_(std::move(line)) {
    frames_.add(received);
  }

  void run(Manager& manager) noexcept;
  /// The answer, or where that was given the last frame, is this error. Does not wait.
  void refuse(const Error& error) noexcept;
  void hang_up() noexcept { ::shutdown(socket_.get(), SHUT_RDWR); }

 private:
  void serve(Sandbox& sandbox);
  void start(Sandbox& sandbox);
  bool relay();
  bool send_output();
  bool pass_input();
  bool send(std::string_view bytes);
  void end_command();
  std::string last_frame(Sandbox& sandbox, uint64_t oom_kills_before) const;
  void keep(int which, std::string_view bytes);
  void receive() noexcept;
  void take(const attach::Frame& frame);
  void take_input(std::string_view bytes);

  const UniqueFd socket_;
  const AttachRequest request_;
  const Attachments::AnswerLine line_;
  attach::Reader frames_;
  bool answered_ = false, input_ended_ = false;  // of run()
  std::shared_ptr<Process> process_;
  std::thread receiver_;

  struct Piece {
    attach::Type type{};
    std::string bytes;
  };
  // What follows is guarded by the process' lock.
  std::deque<Piece> out_;
  size_t out_bytes_ = 0;  // in out_, or being sent
  std::string in_;        // not passed on yet
  size_t in_bytes_ = 0;   // received, and not answered by `taken` yet
  bool in_complete_ = false, client_gone_ = false;
  bool overrun_ = false;  // the sandbox sent more than it was allowed to
};

void Attachment::run(Manager& manager) noexcept {
  try {
    const auto sandbox = manager.find(request_.sandbox_id);
    sandbox->during_call([&] { serve(*sandbox); });
  } catch (const Error& e) {
    refuse(e);
  } catch (const std::exception& e) {
    refuse(Error(Errc::internal, e.what()));
  }
  hang_up();
  if (receiver_.joinable()) receiver_.join();
}

void Attachment::refuse(const Error& error) noexcept {
  try {
    const std::string text = error_text(error).substr(0, attach::kMaxPayload / 2);
    const std::string bytes = answered_
                                  ? attach::frame_of(attach::Type::ended, attach::Ended{.message = text})
                                  : line_(&error) + "\n";
    (void)::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  } catch (const std::exception& e) {
    log::error("a connection of `hutch exec` ends: {}", e.what());
  }
}

void Attachment::serve(Sandbox& sandbox) {
  const uint64_t oom_kills_before = sandbox.cgroup().oom_kills();
  start(sandbox);
  // What it leaves running lives on, as that of a command that a model runs does.
  struct Closes {
    Process& process;
    ~Closes() { process.close(); }
  } const closes{*process_};
  const bool starts = process_->wait({}, Clock::now() + kAttachStartTimeout,
                                     [](const Process::State& s) { return s.pid != 0 || s.exited; });
  if (!starts) {
    process_->end_tree(0ms);
    throw Error(Errc::timeout, "the sandbox's agent does not answer");
  }
  answered_ = true;
  if (!send(line_(nullptr) + "\n")) return end_command();
  receiver_ = std::thread([this] { receive(); });
  if (!relay()) return end_command();
  (void)send(last_frame(sandbox, oom_kills_before));
}

void Attachment::start(Sandbox& sandbox) {
  ExecSpec spec;
  spec.argv = request_.argv;
  spec.workdir = request_.workdir;
  spec.env = request_.env;
  if (request_.terminal)
    spec.terminal = TerminalSize{static_cast<int>(request_.rows), static_cast<int>(request_.columns)};
  process_ =
      sandbox.start(spec, request_.input, [this](int which, std::string_view bytes) { keep(which, bytes); });
}

/// Until the command's end; false when the client went first.
bool Attachment::relay() {
  for (;;) {
    bool exited = false, gone = false, overrun = false;
    process_->wait({}, Clock::time_point::max(), [&](const Process::State& state) {
      exited = state.exited;
      gone = client_gone_;
      overrun = overrun_;
      const bool input = in_.empty() ? in_complete_ && !input_ended_ : state.input_room > 0;
      return exited || gone || overrun || input || !out_.empty();
    });
    if (gone) return false;
    if (overrun) {
      process_->end_tree(0ms);
      throw Error(Errc::internal, "the sandbox's agent sends more than it may");
    }
    if (!exited && !pass_input()) return false;
    if (!send_output()) return false;
    if (exited) return true;
  }
}

/// All that was printed so far. Only then the command may print as much again: a client that does not read
/// makes it wait.
bool Attachment::send_output() {
  std::deque<Piece> pieces;
  process_->locked([&] { pieces.swap(out_); });
  for (const Piece& piece : pieces) {
    if (!send(attach::frame(piece.type, piece.bytes))) return false;
    process_->locked([&] { out_bytes_ -= piece.bytes.size(); });
    process_->consumed(piece.bytes.size());
  }
  return true;
}

/// As much as the command's side takes now.
bool Attachment::pass_input() {
  std::string input;
  bool complete = false;
  process_->locked([&] {
    input.swap(in_);
    complete = in_complete_;
  });
  const size_t taken = input.empty() ? 0 : process_->write(input, {}, Clock::now());
  process_->locked([&] {
    in_.insert(0, input, taken, std::string::npos);
    in_bytes_ -= taken;
  });
  const attach::Taken answer{static_cast<uint32_t>(taken)};
  if (taken > 0 && !send(attach::frame_of(attach::Type::taken, answer))) return false;
  if (complete && taken == input.size() && !std::exchange(input_ended_, true)) process_->end_input();
  return true;
}

bool Attachment::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n =
        sys::retry_eintr([&] { return ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL); });
    if (n < 0) return false;
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

/// What a terminal that is closed does to what runs in it; what does not end by that is ended like anything
/// else.
void Attachment::end_command() {
  const auto over = [](const Process::State& state) { return state.exited && state.tree_gone; };
  process_->end_relay();  // its end is told only when all output has been taken
  process_->signal(SIGHUP);
  process_->signal(SIGCONT);  // a stopped process takes the SIGHUP only when it runs
  if (process_->wait({}, Clock::now() + kGrace, over)) return;
  process_->end_tree(kGrace);
  process_->wait({}, Clock::now() + kGrace + kAfterHangUp, over);
}

std::string Attachment::last_frame(Sandbox& sandbox, uint64_t oom_kills_before) const {
  const wire::Exited end = process_->state().end;
  std::string message;
  const bool was_killed = end.signal == SIGKILL || end.exit_code == 128 + SIGKILL;
  if (was_killed && sandbox.cgroup().oom_kills() > oom_kills_before)
    message = fmt::format("out of memory: ended at the sandbox's limit of {}",
                          to_string(Bytes{sandbox.about().limits.memory_bytes}));
  return attach::frame_of(attach::Type::ended, attach::Ended{end.exit_code, end.signal, message});
}

/// With the process' lock held, from whoever reads the channel.
void Attachment::keep(int which, std::string_view bytes) {
  overrun_ = overrun_ || out_bytes_ + bytes.size() > wire::kWindow;
  if (overrun_) return;
  out_bytes_ += bytes.size();
  const auto type = which == 1 ? attach::Type::output : attach::Type::error_output;
  while (!bytes.empty()) {
    if (out_.empty() || out_.back().type != type || out_.back().bytes.size() == attach::kMaxPayload)
      out_.push_back({type, {}});
    std::string& piece = out_.back().bytes;
    const size_t fits = std::min(bytes.size(), attach::kMaxPayload - piece.size());
    piece += bytes.substr(0, fits);
    bytes.remove_prefix(fits);
  }
}

void Attachment::receive() noexcept {
  try {
    std::array<char, attach::kMaxPayload> piece;
    for (;;) {
      while (const auto frame = frames_.next()) take(*frame);
      const ssize_t n =
          sys::retry_eintr([&] { return ::recv(socket_.get(), piece.data(), piece.size(), 0); });
      if (n <= 0) break;
      frames_.add({piece.data(), static_cast<size_t>(n)});
    }
  } catch (const std::exception& e) {
    log::warning("a client of the control socket is hung up on: {}", e.what());
  }
  process_->locked([&] { client_gone_ = true; });
  hang_up();  // ends a send() that waits
  process_->look_again();
}

void Attachment::take(const attach::Frame& frame) {
  attach::Size size;
  attach::Signal number;
  if (frame.type == attach::Type::input) {
    take_input(frame.payload);
  } else if (frame.type == attach::Type::input_end && frame.payload.empty()) {
    process_->locked([&] { in_complete_ = true; });
    process_->look_again();
  } else if (frame.type == attach::Type::resize && wire::decode(frame.payload, size)) {
    process_->resize({size.rows, size.columns});
  } else if (frame.type == attach::Type::signal && wire::decode(frame.payload, number)) {
    process_->signal(static_cast<int>(number.number));
  } else {
    throw Error(Errc::invalid_argument, "it sent a frame that has no meaning");
  }
}

void Attachment::take_input(std::string_view bytes) {
  const bool allowed = process_->locked([&] {
    if (in_complete_ || !process_->has_input() || in_bytes_ + bytes.size() > attach::kInputWindow)
      return false;
    in_ += bytes;
    in_bytes_ += bytes.size();
    return true;
  });
  if (!allowed) throw Error(Errc::invalid_argument, "it sent input that it must not send");
  process_->look_again();
}

Attachments::~Attachments() {
  std::unique_lock lock(mutex_);
  for (const auto& attachment : live_) attachment->hang_up();
  changed_.wait(lock, [&] { return live_.empty(); });
}

void Attachments::begin(UniqueFd socket, std::string_view received, AttachRequest request, AnswerLine line) {
  auto attachment =
      std::make_shared<Attachment>(std::move(socket), received, std::move(request), std::move(line));
  const std::lock_guard lock(mutex_);
  if (live_.size() >= kMax)
    return attachment->refuse(
        Error(Errc::limit_exceeded, fmt::format("{} are attached to this server already", kMax))
            .hint("end a `hutch exec` that runs"));
  live_.insert(attachment);
  try {
    std::thread([this, attachment]() mutable { run(std::move(attachment)); }).detach();
  } catch (const std::system_error& e) {
    live_.erase(attachment);
    attachment->refuse(Error(Errc::unavailable, fmt::format("no thread can be started: {}", e.what())));
  }
}

/// Whoever waits until none is left may then end what they use: the last reference goes before.
void Attachments::run(std::shared_ptr<Attachment> attachment) {
  attachment->run(manager_);
  const std::lock_guard lock(mutex_);
  const auto last = live_.find(attachment);
  attachment.reset();
  live_.erase(last);
  changed_.notify_all();
}

}  // namespace hutch::sandbox
