#include "cli/attach_client.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <initializer_list>

#include "base/error.h"
#include "base/sys.h"

namespace hutch::cli {

namespace attach = sandbox::attach;

namespace {

constexpr size_t kPipeRoom = 4096;  // what a pipe takes at once when poll() says that it takes something

bool is_ready(const pollfd& source) {
  return source.fd >= 0 && source.revents != 0;
}

bool takes_output(int fd) {
  pollfd target{.fd = fd, .events = POLLOUT, .revents = 0};
  return ::poll(&target, 1, 0) > 0;
}

}  // namespace

UniqueFd watch_signals(bool terminal) {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) sigaddset(&signals, signal);
  if (terminal)  // whatever else would end us has to wait until the terminal is as it was
    for (const int signal : {SIGWINCH, SIGUSR1, SIGUSR2, SIGALRM}) sigaddset(&signals, signal);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  UniqueFd fd(::signalfd(-1, &signals, SFD_CLOEXEC));
  if (!fd) throw sys_error(errno, "signalfd");
  return fd;
}

attach::Size terminal_size() {
  winsize size{};
  if (::ioctl(STDIN_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_row == 0 || size.ws_col == 0) return {24, 80};
  return {size.ws_row, size.ws_col};
}

AttachClient::Target::Target(int number) : fd(number) {
  struct stat info {};
  if (::fstat(number, &info) != 0) return;
  never_waits = S_ISREG(info.st_mode);
  // O_NONBLOCK on the description that we were given would hit the shell and all others that have it.
  if (S_ISFIFO(info.st_mode) || ::isatty(number) == 1)
    own = UniqueFd(::open(fmt::format("/proc/self/fd/{}", number).c_str(),
                          O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (!own) return;
  fd = own.get();
  never_waits = true;
}

AttachClient::AttachClient(UniqueFd server, std::string_view received, UniqueFd signals, bool input,
                           bool terminal)
    : server_(std::move(server)),
      signals_(std::move(signals)),
      reads_input_(input),
      terminal_(terminal),
      outputs_{Target(STDOUT_FILENO), Target(STDERR_FILENO)} {
  frames_.add(received);
}

AttachClient::End AttachClient::run() {
  // It may have changed since the request, when nobody was told.
  if (terminal_) send(attach::Type::resize, wire::encode(terminal_size()));
  take_frames();
  while (!end_) wait();
  return std::move(*end_);
}

void AttachClient::end(int exit_code, std::string message) {
  if (!end_) end_ = {exit_code, std::move(message)};
}

void AttachClient::wait() {
  const bool receives = out_.empty() && !server_gone_, sends = !to_server_.empty() && !server_gone_;
  const bool reads = reads_input_ && window_ > 0;
  const auto events = static_cast<short>((receives ? POLLIN : 0) | (sends ? POLLOUT : 0));
  // One that is not waited for is left out: an error on it would be reported all the time.
  std::array<pollfd, 4> sources = {
      {{.fd = events != 0 ? server_.get() : -1, .events = events, .revents = 0},
       {.fd = reads ? STDIN_FILENO : -1, .events = POLLIN, .revents = 0},
       {.fd = signals_.get(), .events = POLLIN, .revents = 0},
       {.fd = out_.empty() ? -1 : out_target_->fd, .events = POLLOUT, .revents = 0}}};
  if (sys::retry_eintr([&] { return ::poll(sources.data(), sources.size(), -1); }) < 0)
    throw sys_error(errno, "poll");
  if (is_ready(sources[2])) take_signal();
  if (is_ready(sources[3])) write_output();
  if (is_ready(sources[0]) && sends) send_more();
  if (is_ready(sources[0]) && receives) receive();
  if (is_ready(sources[1])) take_input();
  take_frames();
}

void AttachClient::take_signal() {
  signalfd_siginfo info{};
  if (::read(signals_.get(), &info, sizeof info) != sizeof info) return;
  const int number = static_cast<int>(info.ssi_signo);
  if (number == SIGWINCH)
    send(attach::Type::resize, wire::encode(terminal_size()));
  else if (terminal_)
    end(128 + number);  // what the person types reaches the command as bytes: this is meant for us
  else
    send(attach::Type::signal, wire::encode(attach::Signal{info.ssi_signo}));
}

void AttachClient::take_input() {
  std::array<char, attach::kMaxPayload> piece;
  const ssize_t n = ::read(STDIN_FILENO, piece.data(), std::min(piece.size(), window_));
  if (n < 0 && (errno == EINTR || errno == EAGAIN)) return;
  if (n <= 0) {
    reads_input_ = false;
    if (terminal_) return end(128 + SIGHUP);  // it was closed
    return send(attach::Type::input_end);
  }
  window_ -= static_cast<size_t>(n);
  send(attach::Type::input, {piece.data(), static_cast<size_t>(n)});
}

void AttachClient::send(attach::Type type, std::string_view payload) {
  to_server_ += attach::frame(type, payload);
  send_more();
}

void AttachClient::send_more() {
  const ssize_t n = sys::retry_eintr([&] {
    return ::send(server_.get(), to_server_.data(), to_server_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  });
  if (n > 0) to_server_.erase(0, static_cast<size_t>(n));
  // It is gone. What it said last may still be there to be received.
  if (n < 0 && errno != EAGAIN) to_server_.clear();
}

void AttachClient::receive() {
  std::array<char, attach::kMaxPayload> piece;
  const ssize_t n = ::recv(server_.get(), piece.data(), piece.size(), MSG_DONTWAIT);
  if (n < 0 && (errno == EINTR || errno == EAGAIN)) return;
  server_gone_ = n <= 0;
  if (n > 0) frames_.add({piece.data(), static_cast<size_t>(n)});
}

/// Up to the first one that cannot be printed at once.
void AttachClient::take_frames() {
  while (out_.empty() && !end_) {
    const auto frame = frames_.next();
    if (!frame) {
      if (server_gone_) end(-1, "the server ended, and the sandbox with it");
      return;
    }
    take(*frame);
  }
}

void AttachClient::take(const attach::Frame& frame) {
  attach::Taken taken;
  attach::Ended ended;
  if (frame.type == attach::Type::output || frame.type == attach::Type::error_output) {
    out_ = frame.payload;
    out_target_ = &outputs_[frame.type == attach::Type::output ? 0 : 1];
    write_output();
  } else if (frame.type == attach::Type::taken && wire::decode(frame.payload, taken)) {
    window_ = std::min<size_t>(window_ + taken.bytes, attach::kInputWindow);
  } else if (frame.type == attach::Type::ended && wire::decode(frame.payload, ended)) {
    end(ended.signal != 0 ? 128 + static_cast<int>(ended.signal) : ended.exit_code,
        std::string(ended.message));
  } else {
    throw Error(Errc::internal, "the server sent a frame that has no meaning");
  }
}

void AttachClient::write_output() {
  Target& target = *out_target_;
  while (!out_.empty()) {
    if (!target.never_waits && !takes_output(target.fd)) return;
    const size_t size = target.never_waits ? out_.size() : std::min(out_.size(), kPipeRoom);
    const ssize_t n = sys::retry_eintr([&] { return ::write(target.fd, out_.data(), size); });
    if (n < 0 && errno == EAGAIN) return;
    if (n < 0) {
      const int error = errno;
      out_.clear();
      // As a program of its own would have it: nobody reads its output, so it ends. Its messages may be lost.
      if (&target == &outputs_[0] && error == EPIPE) return end(128 + SIGPIPE);
      if (&target == &outputs_[0]) throw sys_error(error, "write", "standard output");
      return;
    }
    out_.erase(0, static_cast<size_t>(n));
  }
}

}  // namespace hutch::cli
