#include "sandbox/control_socket.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <asio/buffer.hpp>
#include <asio/local/stream_protocol.hpp>
#include <asio/post.hpp>
#include <asio/read_until.hpp>
#include <asio/write.hpp>

#include "base/log.h"
#include "base/sys.h"

namespace hutch::sandbox {

using Protocol = asio::local::stream_protocol;

namespace {

constexpr timeval kAnswerTimeout{.tv_sec = 10, .tv_usec = 0};

/// Through an open folder, since a socket's path may have 107 bytes at most and a data folder's may have
/// more.
std::string path_in(const UniqueFd& folder) {
  return fmt::format("/proc/self/fd/{}/control", folder.get());
}

bool may_ask(int socket) {
  ucred peer{};
  socklen_t bytes = sizeof peer;
  return ::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) == 0 &&
         (peer.uid == ::geteuid() || peer.uid == 0);
}

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(Protocol::socket socket, ControlSocket::Handler handler)
      : socket_(std::move(socket)), handler_(std::move(handler)) {}

  void run() {
    asio::async_read_until(socket_, asio::dynamic_buffer(line_, ControlSocket::kMaxLine), '\n',
                           [self = shared_from_this()](asio::error_code err, size_t bytes) {
                             if (!err) self->answer(bytes);
                           });
  }

 private:
  void answer(size_t bytes) {
    const ControlSocket::Reply reply = handler_(std::string_view(line_).substr(0, bytes - 1));
    if (reply.take_over) return hand_over(reply, std::string_view(line_).substr(bytes));
    answer_ = reply.line + "\n";
    asio::async_write(socket_, asio::buffer(answer_),
                      [self = shared_from_this()](asio::error_code, size_t) {});
  }

  void hand_over(const ControlSocket::Reply& reply, std::string_view received) {
    asio::error_code err;
    UniqueFd socket(socket_.release(err));
    if (err) return;
    ::fcntl(socket.get(), F_SETFL, ::fcntl(socket.get(), F_GETFL) & ~O_NONBLOCK);
    reply.take_over(std::move(socket), received);
  }

  Protocol::socket socket_;
  ControlSocket::Handler handler_;
  std::string line_, answer_;
};

}  // namespace

class ControlSocket::Listener : public std::enable_shared_from_this<Listener> {
 public:
  Listener(asio::io_context& io, const std::string& folder, Handler handler)
      : acceptor_(io), handler_(std::move(handler)) {
    const UniqueFd dir = sys::open(folder, O_PATH | O_DIRECTORY);
    const std::string path = path_in(dir);
    acceptor_.open();
    // Nobody else may connect from the first moment on: the mode is that of the socket's own inode.
    (void)::fchmod(acceptor_.native_handle(), 0600);
    acceptor_.bind(path);
    acceptor_.listen();
  }

  void accept() {
    acceptor_.async_accept([self = shared_from_this()](asio::error_code err, Protocol::socket socket) {
      if (err == asio::error::operation_aborted) return;
      if (!err && may_ask(socket.native_handle()))
        std::make_shared<Connection>(std::move(socket), self->handler_)->run();
      self->accept();
    });
  }

  void close() {
    asio::post(acceptor_.get_executor(), [self = shared_from_this()] {
      asio::error_code ignored;
      self->acceptor_.close(ignored);
    });
  }

 private:
  Protocol::acceptor acceptor_;
  Handler handler_;
};

ControlSocket::ControlSocket(asio::io_context& io, const std::string& folder, Handler handler) {
  try {
    listener_ = std::make_shared<Listener>(io, folder, std::move(handler));
    asio::post(io, [listener = listener_] { listener->accept(); });
  } catch (const std::exception& e) {
    listener_.reset();
    log::warning("no control socket in {}, so `hutch pool` and `hutch exec` cannot reach this server: {}",
                 folder, e.what());
  }
}

ControlSocket::~ControlSocket() {
  if (listener_) listener_->close();
}

UniqueFd ControlSocket::connect(const std::string& folder, const std::string& line) {
  const UniqueFd dir = sys::open(folder, O_PATH | O_DIRECTORY);
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  for (const int option : {SO_RCVTIMEO, SO_SNDTIMEO})
    (void)::setsockopt(socket.get(), SOL_SOCKET, option, &kAnswerTimeout, sizeof kAnswerTimeout);
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  path_in(dir).copy(address.sun_path, sizeof address.sun_path - 1);
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    throw Error(Errc::unavailable, sys_error(errno, "connect", folder + "/control").what());
  during(fmt::format("asking the server of {}", folder), [&] { sys::write_all(socket.get(), line + "\n"); });
  return socket;
}

std::string ControlSocket::ask(const std::string& folder, const std::string& line) {
  const UniqueFd socket = connect(folder, line);
  try {
    std::string answer = sys::read_all(socket.get());
    if (!answer.ends_with('\n')) throw Error(Errc::unavailable, "it closed the connection");
    answer.pop_back();
    return answer;
  } catch (Error& e) {
    e.during(fmt::format("asking the server of {}", folder));
    throw;
  }
}

}  // namespace hutch::sandbox
