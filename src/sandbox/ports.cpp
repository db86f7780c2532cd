#include "sandbox/ports.h"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <unistd.h>

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/post.hpp>
#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/use_awaitable.hpp>
#include <asio/use_future.hpp>
#include <set>
#include <thread>

#include "base/log.h"
#include "base/sys.h"
#include "net/peer_user.h"

namespace hutch::sandbox {

using namespace std::chrono_literals;
using asio::ip::tcp;

namespace {

using Acceptor = std::shared_ptr<tcp::acceptor>;

/// Throws asio::system_error.
Acceptor listen_on(asio::io_context& io, const asio::ip::address& address, uint16_t port) {
  const tcp::endpoint endpoint(address, port);
  auto acceptor = std::make_shared<tcp::acceptor>(io);
  acceptor->open(endpoint.protocol());
  acceptor->set_option(tcp::acceptor::reuse_address(true));
  acceptor->bind(endpoint);
  acceptor->listen(1024);
  return acceptor;
}

Error cannot_listen(const asio::system_error& e, uint16_t port, const char* hint) {
  return Error(e.code() == asio::error::address_in_use ? Errc::conflict : Errc::unavailable,
               fmt::format("port {} of the host's loopback cannot be listened on: {}", port,
                           e.code().message()))
      .hint(hint);
}

Acceptor listen_on_ipv4(asio::io_context& io, uint16_t port) {
  try {
    return listen_on(io, asio::ip::address_v4::loopback(), port);
  } catch (const asio::system_error& e) {
    throw cannot_listen(e, port, "leave host_port out to take any free port");
  }
}

/// The same port of 127.0.0.1 and of ::1, where there is one. Browsers try ::1 first for *.localhost: another
/// user who listened there would be given the tokens.
std::vector<Acceptor> listen_on_both(asio::io_context& io, uint16_t port) {
  for (int tries = 1;; ++tries) {
    try {
      const Acceptor first = listen_on(io, asio::ip::address_v4::loopback(), port);
      try {
        return {first, listen_on(io, asio::ip::address_v6::loopback(), first->local_endpoint().port())};
      } catch (const asio::system_error& e) {
        // Without IPv6 nobody else has it either.
        if (e.code() == std::errc::address_family_not_supported ||
            e.code() == std::errc::address_not_available)
          return {first};
        throw;
      }
    } catch (const asio::system_error& e) {
      if (port == 0 && tries < 16 && e.code() == asio::error::address_in_use) continue;
      throw cannot_listen(e, port, "set ports.shared_port to a free one, or to 0 for any");
    }
  }
}

/// Hands what comes to `serve` until the acceptor is closed.
template <class Serve>
asio::awaitable<void> accept_all(Acceptor acceptor, Serve serve) {
  for (;;) {
    asio::error_code err;
    tcp::socket socket = co_await acceptor->async_accept(asio::redirect_error(asio::use_awaitable, err));
    if (err == asio::error::operation_aborted || !acceptor->is_open()) co_return;
    if (err) {  // such as no descriptor left: those that wait are served when there is one
      asio::steady_timer moment(acceptor->get_executor(), 100ms);
      co_await moment.async_wait(asio::use_awaitable);
      continue;
    }
    serve(std::move(socket));
  }
}

void close_later(asio::io_context& io, Acceptor acceptor) {
  asio::post(io, [acceptor = std::move(acceptor)] {
    asio::error_code ignored;
    acceptor->close(ignored);
  });
}

asio::awaitable<void> try_port(std::shared_ptr<Sandbox> sandbox, uint16_t port) {
  const auto connection = co_await sandbox->connect(port);
}

bool same_token(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace

/// The way to one port of one sandbox.
class Ports::Way : public std::enable_shared_from_this<Way> {
 public:
  using OnRefused = std::function<void(const Way&, std::string why)>;

  Way(asio::io_context& io, const std::shared_ptr<Sandbox>& sandbox, uint16_t port, OnRefused on_refused)
      : io_(io), sandbox_(sandbox), target_{sandbox->id(), port}, on_refused_(std::move(on_refused)) {
    sandbox->count_open_ports(1);
  }
  ~Way() {
    if (const auto sandbox = sandbox_.lock()) sandbox->count_open_ports(-1);
  }

  const net::PortTarget& target() const { return target_; }

  asio::awaitable<std::unique_ptr<net::Duplex>> connect() const {
    const auto sandbox = sandbox_.lock();
    if (!sandbox || !sandbox->running()) throw Error(Errc::not_found, "the sandbox has ended");
    co_return co_await sandbox->connect(target_.port);
  }

  /// As connect(), until the way is closed.
  asio::awaitable<std::unique_ptr<net::Duplex>> connect_while_open() {
    const auto self = shared_from_this();
    auto server = co_await connect();
    if (closed_) throw Error(Errc::not_found, "the port was closed");
    co_return std::make_unique<Closable>(self, std::move(server));
  }

  void listen(uint16_t host_port, bool other_users) {
    acceptor_ = listen_on_ipv4(io_, host_port);
    host_port_ = acceptor_->local_endpoint().port();
    auto serve = [weak = weak_from_this(), other_users](tcp::socket socket) {
      const auto self = weak.lock();
      if (self && (other_users || self->is_for(socket)))
        asio::co_spawn(self->io_, self->serve(std::move(socket)), asio::detached);
    };
    asio::co_spawn(io_, accept_all(acceptor_, std::move(serve)), asio::detached);
  }

  void close() {
    if (acceptor_) close_later(io_, acceptor_);
    asio::post(io_, [self = shared_from_this()] {
      self->closed_ = true;
      for (net::Duplex* connection : self->connected_) connection->close();
    });
  }

  uint16_t host_port() const { return host_port_; }
  size_t connections() const { return connections_; }
  uint64_t refused() const { return refused_; }

  std::string token;  // of its URLs; empty = it has none

 private:
  /// Whether who has connected may. Otherwise it is noted.
  bool is_for(tcp::socket& client) {
    const auto user = net::peer_user(client.native_handle());
    if (user == ::geteuid() || user == 0u) return true;
    ++refused_;
    on_refused_(*this,
                user ? fmt::format("user {} of the host has connected; `ports.other_users` allows it", *user)
                     : std::string("whose connection it was cannot be told"));
    return false;
  }

  asio::awaitable<void> serve(tcp::socket socket) {
    const auto self = shared_from_this();
    net::TcpDuplex client(std::move(socket));
    connected_.insert(&client);
    ++connections_;
    try {
      const auto server = co_await connect();
      co_await net::relay(client, *server);
    } catch (const std::exception& e) {
      log::debug("a connection to port {} of {}: {}", target_.port, target_.sandbox_id, e.what());
      client.reset();
    }
    --connections_;
    connected_.erase(&client);
  }

  /// Of which the way knows, so that it can close it.
  class Closable final : public net::ForwardingOwner {
   public:
    Closable(std::shared_ptr<Way> way, std::unique_ptr<net::Duplex> inner)
        : ForwardingOwner(std::move(inner)), way_(std::move(way)) {
      way_->connected_.insert(this);
    }
    ~Closable() override { way_->connected_.erase(this); }

   private:
    const std::shared_ptr<Way> way_;
  };

  asio::io_context& io_;
  const std::weak_ptr<Sandbox> sandbox_;
  const net::PortTarget target_;
  Acceptor acceptor_;
  uint16_t host_port_ = 0;
  const OnRefused on_refused_;
  std::atomic<size_t> connections_{0};
  std::atomic<uint64_t> refused_{0};
  // On the I/O thread:
  std::set<net::Duplex*> connected_;
  bool closed_ = false;
};

/// The listener that all ways share.
class Ports::Shared : public std::enable_shared_from_this<Shared> {
 public:
  Shared(asio::io_context& io, const config::Ports& settings, Ports& ports)
      : io_(io),
        acceptors_(listen_on_both(io, static_cast<uint16_t>(settings.shared_port))),
        port_(acceptors_.front()->local_endpoint().port()),
        max_connections_(static_cast<size_t>(settings.max_connections)),
        ports_(&ports) {
    hooks_.admits = [this](const net::PortTarget& target, std::string_view token) {
      const auto way = find(target);
      return way && !way->token.empty() && same_token(token, way->token);
    };
    hooks_.connect = [this](net::PortTarget target) { return connect(std::move(target)); };
  }

  void start() {
    auto serve = [self = shared_from_this()](tcp::socket socket) {
      if (self->connections_ >= self->max_connections_) return;  // closed
      asio::co_spawn(self->io_, self->serve(std::move(socket)), asio::detached);
    };
    for (const Acceptor& acceptor : acceptors_)
      asio::co_spawn(io_, accept_all(acceptor, serve), asio::detached);
  }

  void close() {
    {
      const std::lock_guard lock(mutex_);
      ports_ = nullptr;
    }
    for (const Acceptor& acceptor : acceptors_) close_later(io_, acceptor);
  }

  uint16_t port() const { return port_; }

 private:
  asio::awaitable<void> serve(tcp::socket socket) {
    const auto self = shared_from_this();
    ++connections_;
    co_await net::serve_port_requests(std::make_unique<net::TcpDuplex>(std::move(socket)), port_, hooks_);
    --connections_;
  }

  std::shared_ptr<Way> find(const net::PortTarget& target) const {
    const std::lock_guard lock(mutex_);
    if (ports_ == nullptr) return nullptr;
    const std::lock_guard inner(ports_->mutex_);
    const auto it = ports_->ways_.find({target.sandbox_id, target.port});
    return it == ports_->ways_.end() ? nullptr : it->second;
  }

  asio::awaitable<std::unique_ptr<net::Duplex>> connect(net::PortTarget target) const {
    const auto way = find(target);
    if (!way) throw Error(Errc::not_found, "the port was closed");
    co_return co_await way->connect_while_open();
  }

  asio::io_context& io_;
  const std::vector<Acceptor> acceptors_;
  const uint16_t port_;
  const size_t max_connections_;
  size_t connections_ = 0;  // on the I/O thread
  net::PortGatewayHooks hooks_;
  mutable std::mutex mutex_;
  Ports* ports_;  // nullptr: it has ended
};

Ports::Ports(asio::io_context& io, const config::Ports& settings, AuditLog& audit)
    : io_(io), settings_(settings), audit_(audit) {}

Ports::~Ports() {
  if (shared_) shared_->close();
  for (const auto& [_, way] : ways_) way->close();
}

/// With mutex_ held.
std::shared_ptr<Ports::Way> Ports::way_to(const std::shared_ptr<Sandbox>& sandbox, uint16_t port) {
  if (!sandbox->running()) throw Error(Errc::not_found, fmt::format("sandbox {} has ended", sandbox->id()));
  auto& way = ways_[{sandbox->id(), port}];
  if (!way)
    way = std::make_shared<Way>(io_, sandbox, port, [&audit = audit_](const Way& refusing, std::string why) {
      audit.write(refusing.target().sandbox_id, {.protocol = "port",
                                                 .host = "127.0.0.1",
                                                 .port = refusing.host_port(),
                                                 .address = {},
                                                 .why = std::move(why)});
    });
  return way;
}

OpenPort Ports::describe(const Way& way) const {
  OpenPort out{.port = way.target().port, .host_port = way.host_port(), .url = {}, .program_url = {}};
  out.connections = way.connections();
  out.refused = way.refused();
  if (way.token.empty()) return out;
  out.url = net::browser_url(way.target(), way.token, shared_->port());
  out.program_url = net::program_url(way.target(), way.token, shared_->port());
  return out;
}

OpenPort Ports::expose(const std::shared_ptr<Sandbox>& sandbox, uint16_t port, uint16_t host_port,
                       Clock::time_point deadline, const std::stop_token& stop) {
  std::string problem = "nothing listens there";
  for (auto pause = 5ms;; pause = std::min<std::chrono::milliseconds>(2 * pause, 200ms)) {
    try {
      auto attempt = asio::co_spawn(io_, try_port(sandbox, port), asio::use_future);
      // One that is not answered, such as by a full backlog, is left to itself.
      while (attempt.wait_for(10ms) != std::future_status::ready && !stop.stop_requested() &&
             Clock::now() < deadline) {
      }
      if (attempt.wait_for(0ms) == std::future_status::ready) {
        attempt.get();
        break;
      }
      problem = "it does not take the connection";
    } catch (const asio::system_error& e) {
      problem = e.code().message();
    }
    if (stop.stop_requested()) throw Error(Errc::unavailable, "the call was cancelled");
    if (Clock::now() + pause > deadline)
      throw Error(Errc::timeout,
                  fmt::format("port {} of sandbox {} does not answer: {}", port, sandbox->id(), problem))
          .hint(
              "start the server first (sandbox_exec with `background`) and have it listen on 127.0.0.1, "
              "::1 or 0.0.0.0; sandbox_process reads what it prints");
    std::this_thread::sleep_for(pause);
  }
  const std::lock_guard lock(mutex_);
  const auto way = way_to(sandbox, port);
  if (way->host_port() != 0 && host_port != 0 && host_port != way->host_port())
    throw Error(Errc::conflict,
                fmt::format("port {} is open already, as 127.0.0.1:{}", port, way->host_port()))
        .hint("close it first with sandbox_close_port");
  try {
    if (way->host_port() == 0) way->listen(host_port, settings_.other_users);
  } catch (const Error&) {
    if (way->token.empty()) ways_.erase({sandbox->id(), port});  // it was made for this
    throw;
  }
  return describe(*way);
}

OpenPort Ports::url(const std::shared_ptr<Sandbox>& sandbox, uint16_t port) {
  const std::lock_guard lock(mutex_);
  if (!shared_) {
    shared_ = std::make_shared<Shared>(io_, settings_, *this);
    shared_->start();
  }
  const auto way = way_to(sandbox, port);
  if (way->token.empty()) way->token = sys::random_hex(16);
  return describe(*way);
}

bool Ports::close(const std::string& sandbox_id, uint16_t port) {
  std::shared_ptr<Way> way;
  {
    const std::lock_guard lock(mutex_);
    const auto it = ways_.find({sandbox_id, port});
    if (it == ways_.end()) return false;
    way = std::move(it->second);
    ways_.erase(it);
  }
  way->close();
  return true;
}

std::vector<OpenPort> Ports::list(const std::string& sandbox_id) const {
  const std::lock_guard lock(mutex_);
  std::vector<OpenPort> out;
  for (const auto& [key, way] : ways_)
    if (key.first == sandbox_id) out.push_back(describe(*way));
  return out;
}

void Ports::close_all(const std::string& sandbox_id) noexcept {
  for (const OpenPort& open : list(sandbox_id)) close(sandbox_id, open.port);
}

}  // namespace hutch::sandbox
