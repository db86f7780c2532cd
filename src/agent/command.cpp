#include "agent/command.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstring>

#include "agent/sys.h"
#include "agent/terminal.h"

namespace hutch::agent {
namespace {

constexpr size_t kTerminalHolds = 64 * 1024;   // more than any kernel keeps in one (Linux 6.18: 12 KiB)
constexpr uint64_t kSupervisorSlackMs = 1000;  // after the grace, before PID 1 does it itself

size_t bytes_waiting(int fd) {
  int count = 0;
  return fd >= 0 && ioctl(fd, FIONREAD, &count) == 0 ? static_cast<size_t>(count) : 0;
}

}  // namespace

void Command::on_event(Source source, Services& services) {
  if (!live()) return;  // of a descriptor that was closed in the same round
  if (source == Source::control) control_ready_ = true;
  if (source == Source::out) outputs_[0].ready = true;
  if (source == Source::err) outputs_[1].ready = true;
  if (source == Source::input) input_.pump();
  services.turns.add(index_);
}

void Command::on_supervisor_gone(bool killed, Services& services) {
  supervisor_ = -1;
  kill_at_ms_ = 0;
  if (phase_ == Phase::over) phase_ = Phase::free;
  if (!live() || phase_ == Phase::kept) return;
  lost_ = killed;
  control_ready_ = true;
  services.turns.add(index_);
}

void Command::on_main_reaped(int status) {
  if (main_ended_) return;
  main_ended_ = true;
  ended_ = {Report::Kind::ended, status};
}

void Command::on_strays_gone(Services& services) {
  if (!live() || !lost_ || phase_ == Phase::kept) return;
  strays_gone_ = true;
  services.turns.add(index_);
}

/// After the last report is read: what the supervisor could not say any more.
void Command::finish_lost() {
  // Killed before it could say that the command runs: that was so, under a number we do not know.
  if (phase_ == Phase::starting) {
    phase_ = Phase::running;
    announce_ = true;
    main_ = 0;
  }
  if (!main_ended_) ended_ = {Report::Kind::ended, SIGKILL};  // as a wait status: ended by signal 9
  ended_.left_running = 0;
  main_ended_ = tree_gone_ = true;
  ran_ms_ = now_ms() - started_at_ms_;
  begin_drain();
}

void Command::read_reports(Services& services) {
  struct {
    Report report;
    char text[kMaxReportText];
  } message;
  while (live() && control_ready_ && !tree_gone_) {
    const auto size =
        retry_eintr([&] { return recv(control_.get(), &message, sizeof message, MSG_DONTWAIT); });
    if (size < static_cast<ssize_t>(sizeof(Report))) {
      control_ready_ = false;
      return;
    }
    on_report(message.report, {message.text, static_cast<size_t>(size) - sizeof(Report)}, services);
  }
}

void Command::on_report(const Report& report, std::string_view text, Services& services) {
  switch (report.kind) {
    case Report::Kind::started:
      main_ = report.value;
      phase_ = Phase::running;
      announce_ = true;
      handover_.reset();
      input_.connect(std::move(input_pipe_));
      break;
    case Report::Kind::failed:
      services.channel.send_failed(stream_, report.value, text);
      release();
      return;
    case Report::Kind::ended:
      ended_ = report;
      main_ended_ = true;
      ran_ms_ = std::clamp(report.at_ms, started_at_ms_, now_ms()) - started_at_ms_;
      timeout_at_ms_ = 0;
      tree_gone_ = report.last;
      begin_drain();
      break;
    case Report::Kind::gone:
      tree_gone_ = true;
      begin_drain();
      break;
  }
  services.turns.add(index_);
}

/// What is in the pipes now is the answer. Waiting for the end of the file instead would hang on any
/// process that keeps the pipe; waiting for an empty pipe would never end behind `yes &`. What is in a
/// terminal cannot be asked for: the kernel passes it on in pieces, the next one when somebody reads.
void Command::begin_drain() {
  const bool terminal = (options_ & wire::Exec::kTerminal) != 0;
  for (Output& output : outputs_) {
    output.owed = terminal && output.fd ? kTerminalHolds : bytes_waiting(output.fd.get());
    if (output.owed > 0) output.ready = true;
  }
}

bool Command::can_relay(const Output& output) const {
  if (!output.fd || !output.ready) return false;
  if (phase_ == Phase::exited) return true;
  return (credit_ > 0 || !relay_) && (!main_ended_ || output.owed > 0);
}

/// True when the pipe had something to say.
bool Command::relay(Output& output, Services& services) {
  const bool send = sends();
  size_t limit = wire::kDataChunk;
  if (send) limit = std::min<size_t>(limit, credit_);
  if (output.owed > 0) limit = std::min(limit, output.owed);
  char* space = services.channel.chunk_space();
  const ssize_t count = retry_eintr([&] { return read(output.fd.get(), space, limit); });
  if (count <= 0) {
    output.ready = false;
    output.owed = 0;
    if (count == 0 || errno == EIO) output.fd.reset();  // EIO: nobody has the terminal open any more
    return false;
  }
  const auto size = static_cast<size_t>(count);
  store_.append({space, size});
  output.owed -= std::min(output.owed, size);
  if (!send) return true;
  credit_ -= static_cast<uint32_t>(size);
  services.channel.send_filled(wire::Type::output, stream_, size, &output == &outputs_[1] ? 1 : 0);
  return true;
}

void Command::take_turn(Services& services) {
  if (!live()) return;
  read_reports(services);
  if (live() && can_start_again()) start_again(services);
  if (live() && lost_ && strays_gone_ && !tree_gone_) finish_lost();
  if (!live()) return;
  if (announce_) send_announcement(services);
  if (phase_ == Phase::starting) return;
  if (send_piece(services) || phase_ == Phase::kept) return;
  send_credit(services);
  for (int tries = 0; tries < 2; ++tries) {
    Output& output = outputs_[next_output_];
    next_output_ = 1 - next_output_;
    if (can_relay(output) && relay(output, services)) break;
  }
  if (phase_ == Phase::running && main_ended_ && drained() && (!lost_ || tree_gone_)) {
    send_exited(services);
    phase_ = Phase::exited;
    if (tree_gone_) begin_drain();  // came since: for the log
  }
  if (phase_ == Phase::exited && tree_gone_ && drained()) {
    services.channel.send(wire::Type::tree_gone, stream_);
    services.channel.flush();  // closing takes time that the host need not wait for
    if (!keep_) return release();
    close_streams();
    phase_ = Phase::kept;
  }
  send_printed(services);
  const bool more = can_relay(outputs_[0]) || can_relay(outputs_[1]);
  if (more) services.turns.add(index_);
}

void Command::reattach(Services& services) {
  if (!live()) return;
  credit_ = wire::kWindow;
  announce_ = true;
  watching_ = false;
  reader_ = 0;
  input_.restart_credit();
  services.turns.add(index_);
}

void Command::send_announcement(Services& services) {
  announce_ = false;
  wire::Started started;
  started.pid = static_cast<uint32_t>(std::max(main_, 0));
  started.printed_bytes = store_.printed_bytes();
  started.number = number_;
  started.age_ms = now_ms() - started_at_ms_;
  if ((options_ & wire::Exec::kInput) != 0) started.state |= wire::Started::kInput;
  if (input_.ended() || phase_ == Phase::kept) started.state |= wire::Started::kInputEnded;
  if ((options_ & wire::Exec::kTerminal) != 0) started.state |= wire::Started::kTerminal;
  if (keep_) started.state |= wire::Started::kKept;
  if (relay_) started.state |= wire::Started::kRelayed;
  services.channel.send(wire::Type::started, stream_, started);
  // The host before may have died with these unread.
  if (phase_ == Phase::exited || phase_ == Phase::kept) send_exited(services);
  if (phase_ == Phase::kept) services.channel.send(wire::Type::tree_gone, stream_);
}

void Command::set_relay(bool on, Services& services) {
  relay_ = on;
  keep_ = keep_ || (!on && !forgotten_);
  if (on) {
    credit_ = wire::kWindow;
    services.channel.send(wire::Type::relaying, stream_, wire::Position{store_.printed_bytes()});
  }
  services.turns.add(index_);
}

void Command::watch(uint64_t bytes, Services& services) {
  watched_ = watching_ ? std::min(watched_, bytes) : bytes;  // who is told too early asks again
  watching_ = true;
  services.turns.add(index_);
}

void Command::send_printed(Services& services) {
  if (!watching_ || store_.printed_bytes() <= watched_) return;
  watching_ = false;
  services.channel.send(wire::Type::printed, stream_, wire::Position{store_.printed_bytes()});
}

void Command::read_output(const wire::ReadOutput& request, uint32_t stream, Services& services) {
  if (reader_ != 0) return services.channel.send_failed(stream, EBUSY, "read_output");
  wanted_ = request;
  reader_ = stream;
  services.turns.add(index_);
}

/// True when that was this turn's chunk.
bool Command::send_piece(Services& services) {
  if (reader_ == 0) return false;
  // Read to where the encoded bytes will lie: behind two numbers and their length.
  constexpr size_t kBefore = 2 * sizeof(uint64_t) + sizeof(uint32_t);
  char* space = services.channel.chunk_space();
  uint64_t first = wanted_.from;
  const size_t limit = std::min<size_t>(wanted_.max_bytes, wire::kDataChunk - kBefore);
  const size_t size = store_.read(first, space + kBefore, limit);
  wire::FixedEncoder encoder(space, wire::kDataChunk);
  wire::OutputPiece piece{first, store_.printed_bytes(), {space + kBefore, size}};
  piece.fields(encoder);
  services.channel.send_filled(wire::Type::output_piece, std::exchange(reader_, 0), encoder.size());
  services.turns.add(index_);
  return true;
}

void Command::forget(Services& services) {
  if (reader_ != 0) services.channel.send_failed(std::exchange(reader_, 0), ESRCH, "read_output");
  forgotten_ = true;
  keep_ = false;
  if (phase_ == Phase::kept) release();
}

void Command::send_credit(Services& services) {
  if (phase_ == Phase::exited) return;
  if (const uint32_t bytes = input_.take_credit(); bytes > 0) {
    services.channel.send(wire::Type::credit, stream_, wire::Credit{bytes});
  }
}

void Command::send_exited(Services& services) {
  wire::Exited exited;
  if (WIFEXITED(ended_.value))
    exited.exit_code = WEXITSTATUS(ended_.value);
  else
    exited.signal = static_cast<uint32_t>(WTERMSIG(ended_.value));
  exited.left_running = ended_.left_running;
  exited.cpu_us = ended_.cpu_us;
  exited.max_rss_kib = ended_.max_rss_kib;
  keep_ = keep_ || (exited.left_running > 0 && !forgotten_);
  exited.ran_ms = ran_ms_;
  exited.log_bytes = store_.log_bytes();
  exited.printed_bytes = store_.printed_bytes();
  if (lost_) exited.flags |= wire::Exited::kSupervisorLost;
  if (timed_out_) exited.flags |= wire::Exited::kTimedOut;
  services.channel.send(wire::Type::exited, stream_, exited);
}

void Command::add_input(std::string_view bytes, Services& services) {
  input_.add(bytes);
  services.turns.add(index_);
}

void Command::end_input(Services& services) {
  input_.end();
  services.turns.add(index_);
}

void Command::add_credit(uint32_t bytes, Services& services) {
  // A host that gives more than it was sent gains nothing by it.
  credit_ = static_cast<uint32_t>(std::min<uint64_t>(uint64_t{credit_} + bytes, wire::kWindow));
  services.turns.add(index_);
}

void Command::order(Order::Kind kind, uint32_t value, int with_fd) {
  ordered_ = ordered_ || kind != Order::Kind::start;
  if (supervisor_ <= 0) return;
  Order message{kind, value};
  iovec part{&message, sizeof message};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  if (with_fd >= 0) {
    header.msg_control = control;
    header.msg_controllen = sizeof control;
    cmsghdr* rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(rights), &with_fd, sizeof with_fd);
  }
  // What runs inside may have stopped it; the socket keeps the order until it runs.
  if (kind != Order::Kind::start) (void)kill(supervisor_, SIGCONT);
  (void)retry_eintr([&] { return sendmsg(control_.get(), &header, MSG_DONTWAIT | MSG_NOSIGNAL); });
}

void Command::end_tree(uint32_t grace_ms) {
  order(Order::Kind::end_tree, grace_ms);
  const uint64_t kill_at = now_ms() + grace_ms + kSupervisorSlackMs;
  if (supervisor_ > 0) kill_at_ms_ = kill_at_ms_ == 0 ? kill_at : std::min(kill_at_ms_, kill_at);
}

void Command::signal(uint32_t number) {
  if (number == 0 || number >= static_cast<uint32_t>(NSIG)) return;
  const bool terminal = (options_ & wire::Exec::kTerminal) != 0 && outputs_[0].fd;
  if (terminal && signal_foreground(outputs_[0].fd.get(), static_cast<int>(number))) return;
  order(Order::Kind::signal, number);
}

void Command::resize(const wire::WindowSize& size) {
  if ((options_ & wire::Exec::kTerminal) != 0 && outputs_[0].fd) resize_terminal(outputs_[0].fd.get(), size);
}

uint64_t Command::deadline_ms() const {
  if (timeout_at_ms_ == 0 || kill_at_ms_ == 0) return std::max(timeout_at_ms_, kill_at_ms_);
  return std::min(timeout_at_ms_, kill_at_ms_);
}

void Command::on_deadline(Services& services) {
  const uint64_t now = now_ms();
  // Without a host its end may not have been looked at.
  if (phase_ != Phase::starting) read_reports(services);
  if (timeout_at_ms_ != 0 && timeout_at_ms_ <= now) {
    timeout_at_ms_ = 0;
    timed_out_ = true;
    end_tree(wire::kGraceMs);
  }
  if (kill_at_ms_ == 0 || kill_at_ms_ > now) return;
  kill_at_ms_ = 0;
  if (supervisor_ > 0) (void)kill(supervisor_, SIGKILL);  // its tree becomes strays of PID 1
}

void Command::close_streams() {
  control_.reset();
  handover_.reset();
  input_pipe_.reset();
  for (Output& output : outputs_) output = Output();
  input_.close();
}

void Command::release() {
  const pid_t unreaped = supervisor_;
  close_streams();
  store_.close();
  *this = Command();
  supervisor_ = unreaped;  // or PID 1 would take it for a stray
  if (unreaped > 0) phase_ = Phase::over;
}

}  // namespace hutch::agent
