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
#include <condition_variable>
#include <deque>
#include <mutex>
#include <system_error>
#include <thread>

#include "base/log.h"
#include "base/sys.h"

namespace hutch::sandbox {

using Protocol = asio::local::stream_protocol;

namespace {

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

}  // namespace

/// Answers that take their time, each on a thread that ends with it.
class ControlSocket::Workers : public std::enable_shared_from_this<Workers> {
 public:
  void submit(std::function<void()> job) {
    const std::lock_guard lock(mutex_);
    if (closed_) return;
    jobs_.push_back(std::move(job));
    if (running_ < kMaxAtWork) start();
  }

  /// Drops what has not begun, waits for the rest.
  void close() {
    std::unique_lock lock(mutex_);
    closed_ = true;
    jobs_.clear();
    ended_.wait(lock, [&] { return running_ == 0; });
  }

 private:
  /// With mutex_ held.
  void start() {
    try {
      std::thread([self = shared_from_this()] { self->run(); }).detach();
      ++running_;
    } catch (const std::system_error& e) {
      log::warning("a request on the control socket waits, since no thread can be started: {}", e.what());
    }
  }

  void run() {
    std::unique_lock lock(mutex_);
    while (!jobs_.empty()) {
      {
        const auto job = std::move(jobs_.front());
        jobs_.pop_front();
        lock.unlock();
        job();
      }
      lock.lock();
    }
    --running_;
    ended_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable ended_;
  std::deque<std::function<void()>> jobs_;
  int running_ = 0;
  bool closed_ = false;
};

class ControlSocket::Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(Protocol::socket socket, Handler handler, std::shared_ptr<Workers> workers)
      : socket_(std::move(socket)), handler_(std::move(handler)), workers_(std::move(workers)) {}

  void run() {
    asio::async_read_until(socket_, asio::dynamic_buffer(line_, ControlSocket::kMaxLine), '\n',
                           [self = shared_from_this()](asio::error_code err, size_t bytes) {
                             if (!err) self->answer(bytes);
                           });
  }

 private:
  void answer(size_t bytes) {
    Reply reply = handler_(std::string_view(line_).substr(0, bytes - 1));
    if (reply.take_over) return hand_over(reply, std::string_view(line_).substr(bytes));
    if (!reply.work) return send(std::move(reply.line));
    workers_->submit([self = shared_from_this(), work = std::move(reply.work)] {
      asio::post(self->socket_.get_executor(), [self, line = work()] { self->send(line); });
    });
  }

  void send(std::string line) {
    answer_ = std::move(line) + "\n";
    asio::async_write(socket_, asio::buffer(answer_),
                      [self = shared_from_this()](asio::error_code, size_t) {});
  }

  void hand_over(const Reply& reply, std::string_view received) {
    asio::error_code err;
    UniqueFd socket(socket_.release(err));
    if (err) return;
    ::fcntl(socket.get(), F_SETFL, ::fcntl(socket.get(), F_GETFL) & ~O_NONBLOCK);
    reply.take_over(std::move(socket), received);
  }

  Protocol::socket socket_;
  Handler handler_;
  std::shared_ptr<Workers> workers_;
  std::string line_, answer_;
};

class ControlSocket::Listener : public std::enable_shared_from_this<Listener> {
 public:
  Listener(asio::io_context& io, const std::string& folder, Handler handler, std::shared_ptr<Workers> workers)
      : acceptor_(io), handler_(std::move(handler)), workers_(std::move(workers)) {
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
        std::make_shared<Connection>(std::move(socket), self->handler_, self->workers_)->run();
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
  std::shared_ptr<Workers> workers_;
};

ControlSocket::ControlSocket(asio::io_context& io, const std::string& folder, Handler handler)
    : workers_(std::make_shared<Workers>()) {
  try {
    listener_ = std::make_shared<Listener>(io, folder, std::move(handler), workers_);
    asio::post(io, [listener = listener_] { listener->accept(); });
  } catch (const std::exception& e) {
    listener_.reset();
    log::warning("no control socket in {}, so the command line cannot reach this server: {}", folder,
                 e.what());
  }
}

ControlSocket::~ControlSocket() {
  if (listener_) listener_->close();
  workers_->close();
}

UniqueFd ControlSocket::connect(const std::string& folder, const std::string& line,
                                std::chrono::seconds timeout) {
  const UniqueFd dir = sys::open(folder, O_PATH | O_DIRECTORY);
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const timeval patience{.tv_sec = timeout.count(), .tv_usec = 0};
  for (const int option : {SO_RCVTIMEO, SO_SNDTIMEO})
    (void)::setsockopt(socket.get(), SOL_SOCKET, option, &patience, sizeof patience);
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  path_in(dir).copy(address.sun_path, sizeof address.sun_path - 1);
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    throw Error(Errc::unavailable, sys_error(errno, "connect", folder + "/control").what());
  during(fmt::format("asking the server of {}", folder), [&] { sys::write_all(socket.get(), line + "\n"); });
  return socket;
}

std::string ControlSocket::ask(const std::string& folder, const std::string& line,
                               std::chrono::seconds timeout) {
  const UniqueFd socket = connect(folder, line, timeout);
  try {
    std::string answer = sys::read_all(socket.get());
    if (!answer.ends_with('\n')) throw Error(Errc::unavailable, "it closed the connection");
    answer.pop_back();
    return answer;
  } catch (Error& e) {
    Error problem = e.os_error() == EAGAIN
                        ? Error(Errc::timeout, fmt::format("it does not answer within {} s", timeout.count()))
                        : std::move(e);
    problem.during(fmt::format("asking the server of {}", folder));
    throw problem;
  }
}

}  // namespace hutch::sandbox
