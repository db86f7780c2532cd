#include "agent/connection.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "agent/sys.h"

namespace hutch::agent {
namespace {

socklen_t loopback(int family, uint16_t port, sockaddr_storage& out) {
  if (family == AF_INET) {
    auto& address = reinterpret_cast<sockaddr_in&>(out);
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return sizeof address;
  }
  auto& address = reinterpret_cast<sockaddr_in6&>(out);
  address.sin6_family = AF_INET6;
  address.sin6_port = htons(port);
  address.sin6_addr = in6addr_loopback;
  return sizeof address;
}

}  // namespace

void Connection::connect(const wire::Connect& request, uint32_t stream, size_t index, Services& services) {
  *this = Connection();
  stream_ = stream;
  index_ = index;
  port_ = request.port;
  credit_ = wire::kConnectionWindow;
  if (const char* step = open_next(services)) fail(errno, step, services);
}

/// The call that failed, or nullptr.
const char* Connection::open_next(Services& services) {
  family_ = family_ == 0 ? AF_INET : AF_INET6;
  fd_.reset(socket(family_, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd_) return "socket";
  sockaddr_storage address{};
  const socklen_t size = loopback(family_, port_, address);
  const int result =
      retry_eintr([&] { return ::connect(fd_.get(), reinterpret_cast<sockaddr*>(&address), size); });
  if (result != 0 && errno == ECONNREFUSED && family_ == AF_INET) return open_next(services);
  if (result != 0 && errno != EINPROGRESS) return "connect";
  return watch(services) ? nullptr : "epoll_ctl";
}

bool Connection::watch(Services& services) {
  const int on = 1;
  (void)setsockopt(fd_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return services.poller.watch(fd_.get(), EPOLLIN | EPOLLOUT | EPOLLRDHUP, Source::connection, index_);
}

void Connection::accept(UniqueFd fd, uint32_t stream, uint32_t listener, size_t index, Services& services) {
  *this = Connection();
  stream_ = stream;
  index_ = index;
  fd_ = std::move(fd);
  connected_ = true;
  credit_ = wire::kConnectionWindow;
  listener_ = listener;
  if (!watch(services)) return drop();
  queue(services);
}

void Connection::on_event(uint32_t events, Services& services) {
  if (free() || error_ != 0) return;
  if (!connected_) {
    if ((events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0) on_connected(services);
    return;
  }
  if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) peer_ended_ = true;
  if ((events & ~static_cast<uint32_t>(EPOLLOUT)) != 0) readable_ = true;
  if (told_end_ && (events & EPOLLERR) != 0) return fail(ECONNRESET, "send", services);
  if ((events & EPOLLOUT) != 0) pump(services);
  queue(services);
}

void Connection::on_connected(Services& services) {
  int error = 0;
  socklen_t size = sizeof error;
  (void)getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &error, &size);
  if (error == ECONNREFUSED && family_ == AF_INET) {
    if (const char* step = open_next(services)) fail(errno, step, services);
    return;
  }
  if (error != 0) return fail(error, "connect", services);
  sockaddr_storage peer{};
  size = sizeof peer;
  // Not yet: the event was for the one that had this slot before.
  if (getpeername(fd_.get(), reinterpret_cast<sockaddr*>(&peer), &size) != 0) return;
  connected_ = readable_ = tell_ready_ = true;
  queue(services);
}

void Connection::on_frame(const Frame& frame, Services& services) {
  wire::Credit credit;
  if (error_ != 0 && frame.header.type != wire::Type::cancel) return;
  switch (frame.header.type) {
    case wire::Type::input:
      return add_input(frame.payload, services);
    case wire::Type::input_end:
      input_ended_ = true;
      return pump(services);
    case wire::Type::credit:
      if (!wire::decode(frame.payload, credit)) return;
      credit_ = std::min(credit_ + std::min(credit.bytes, wire::kConnectionWindow), wire::kConnectionWindow);
      return queue(services);
    case wire::Type::cancel:
      return drop();
    default:
      return;
  }
}

void Connection::add_input(std::string_view bytes, Services& services) {
  if (!connected_ || input_ended_) return;
  if (input_.empty()) {
    // Mostly the socket takes it at once, and nothing is copied.
    const ssize_t sent =
        retry_eintr([&] { return send(fd_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL); });
    if (sent < 0 && errno != EAGAIN) return fail(errno, "send", services);
    const size_t gone = sent < 0 ? 0 : static_cast<size_t>(sent);
    consumed_ += static_cast<uint32_t>(gone);
    bytes.remove_prefix(gone);
  }
  if (!bytes.empty() && !make_room(bytes.size())) return fail(ENOBUFS, "mmap", services);
  input_.add(bytes);
  pump(services);
}

/// Memory for what the socket does not take, which most connections never need. False when there is none, or
/// when the host has broken its rule.
bool Connection::make_room(size_t bytes) {
  if (!input_.is_open()) {
    void* memory = mmap(nullptr, wire::kConnectionWindow, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return false;
    (void)madvise(memory, wire::kConnectionWindow, MADV_DONTFORK);
    memory_ = static_cast<char*>(memory);
    input_.open(memory_);
  }
  return bytes <= input_.room();
}

void Connection::pump(Services& services) {
  while (!input_.empty()) {
    const std::string_view piece = input_.front();
    const ssize_t sent =
        retry_eintr([&] { return send(fd_.get(), piece.data(), piece.size(), MSG_DONTWAIT | MSG_NOSIGNAL); });
    if (sent < 0 && errno == EAGAIN) break;
    if (sent < 0) return fail(errno, "send", services);
    input_.drop(static_cast<size_t>(sent));
    consumed_ += static_cast<uint32_t>(sent);
  }
  if (consumed_ >= wire::kConnectionWindow / 4) queue(services);
  if (!input_.empty() || !input_ended_ || std::exchange(shut_, true)) return;
  (void)shutdown(fd_.get(), SHUT_WR);
  if (told_end_) finish();
}

void Connection::take_turn(Services& services) {
  if (free()) return;
  if (error_ != 0) {
    services.channel.send_failed(stream_, error_, step_);
    return drop();
  }
  if (std::exchange(tell_ready_, false)) services.channel.send(wire::Type::ready, stream_);
  if (const uint32_t listener = std::exchange(listener_, 0); listener != 0)
    services.channel.send(wire::Type::accepted, stream_, wire::Accepted{listener});
  if (consumed_ >= wire::kConnectionWindow / 4)
    services.channel.send(wire::Type::credit, stream_, wire::Credit{std::exchange(consumed_, 0)});
  if (connected_ && send_piece(services)) queue(services);
}

/// Whether there may be more to send.
bool Connection::send_piece(Services& services) {
  if (!readable_ || told_end_ || credit_ == 0) return false;
  char* space = services.channel.chunk_space();
  const size_t wanted = std::min(wire::kDataChunk, credit_);
  const ssize_t count = retry_eintr([&] { return recv(fd_.get(), space, wanted, MSG_DONTWAIT); });
  if (count < 0 && errno == EAGAIN) return readable_ = false;
  if (count < 0) return fail(errno, "recv", services), false;
  if (count == 0) {
    told_end_ = true;
    services.channel.send(wire::Type::done, stream_);
    if (shut_) finish();
    return false;
  }
  credit_ -= static_cast<uint32_t>(count);
  services.channel.send_filled(wire::Type::data, stream_, static_cast<size_t>(count));
  // Less than was asked for: what comes next is an event of its own, see epoll(7), question 9.
  readable_ = static_cast<size_t>(count) == wanted || peer_ended_;
  return readable_;
}

/// The host is told in the next turn, when there is room for it.
void Connection::fail(int error, const char* step, Services& services) {
  error_ = error;
  step_ = step;
  queue(services);
}

void Connection::drop() {
  const linger reset{1, 0};  // whoever is connected learns that not everything came
  if (fd_) (void)setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  finish();
}

void Connection::finish() {
  if (memory_ != nullptr) munmap(memory_, wire::kConnectionWindow);
  *this = Connection();
}

void Connection::queue(Services& services) const {
  services.turns.add(kMaxCommands + kMaxFileStreams + index_);
}

}  // namespace hutch::agent
