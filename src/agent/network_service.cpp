#include "agent/network_service.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>

#include "agent/sys.h"

namespace hutch::agent {
namespace {

constexpr uint64_t kAcceptAgainMs = 100;

/// A socket that listens, or one that is not open and errno.
UniqueFd listen_on(uint16_t port) {
  constexpr int kBacklog = 1024;
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int on = 1;
  if (fd) (void)setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (!fd || bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(fd.get(), kBacklog) != 0) {
    const int error = errno;
    fd.reset();
    errno = error;
  }
  return fd;
}

}  // namespace

Connection* NetworkService::find(uint32_t stream) {
  const auto it = std::find_if(connections_.begin(), connections_.end(),
                               [&](const Connection& c) { return c.stream() == stream; });
  return it == connections_.end() ? nullptr : it;
}

NetworkService::Listener* NetworkService::listener_of(uint32_t stream) {
  const auto it = std::find_if(listeners_.begin(), listeners_.end(),
                               [&](const Listener& l) { return l.stream == stream; });
  return it == listeners_.end() ? nullptr : it;
}

void NetworkService::connect(const wire::Connect& request, uint32_t stream, Services& services) {
  Connection* connection = connections_.find_free();
  if (connection == nullptr) return services.channel.send_failed(stream, EMFILE, "connect");
  connection->connect(request, stream, connections_.index(*connection), services);
}

void NetworkService::listen(const wire::Listen& request, uint32_t stream, Services& services) {
  Listener* listener = listeners_.find_free();
  if (listener == nullptr) return services.channel.send_failed(stream, EMFILE, "listen");
  UniqueFd fd = listen_on(request.port);
  if (!fd) return services.channel.send_failed(stream, errno, "listen");
  if (!services.poller.watch(fd.get(), EPOLLIN, Source::listener, listeners_.index(*listener)))
    return services.channel.send_failed(stream, errno, "epoll_ctl");
  listener->fd = std::move(fd);
  listener->stream = stream;
  services.channel.send(wire::Type::ready, stream);
}

void NetworkService::on_frame(const Frame& frame, Services& services) {
  if (Connection* connection = find(frame.header.stream)) return connection->on_frame(frame, services);
  Listener* listener = listener_of(frame.header.stream);
  if (listener != nullptr && frame.header.type == wire::Type::cancel) *listener = Listener();
}

void NetworkService::on_event(Source source, size_t index, uint32_t events, Services& services) {
  if (source == Source::connection) return connections_[index].on_event(events, services);
  if (!listeners_[index].free()) accept_all(listeners_[index], services);
}

void NetworkService::accept_all(Listener& listener, Services& services) {
  for (;;) {
    UniqueFd fd(retry_eintr(
        [&] { return accept4(listener.fd.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK); }));
    if (!fd && (errno == ECONNABORTED || errno == EPROTO)) continue;
    if (!fd) {
      // Such as no descriptor left, here or on the whole machine: whoever waits already is no event again.
      if (errno != EAGAIN) due_at_ms_ = now_ms() + kAcceptAgainMs;
      return;
    }
    Connection* connection = connections_.find_free();
    if (connection == nullptr) continue;  // closed at once
    const uint32_t stream = wire::kAgentsStream | ++accepted_;
    connection->accept(std::move(fd), stream, listener.stream, connections_.index(*connection), services);
  }
}

void NetworkService::accept_again(Services& services) {
  due_at_ms_ = 0;
  for (Listener& listener : listeners_)
    if (!listener.free()) accept_all(listener, services);
}

void NetworkService::take_turn(size_t index, Services& services) {
  connections_[index].take_turn(services);
}

void NetworkService::drop_all() {
  for (Connection& connection : connections_)
    if (!connection.free()) connection.drop();
  for (Listener& listener : listeners_) listener = Listener();
}

}  // namespace hutch::agent
