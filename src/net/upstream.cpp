#include "net/upstream.h"

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/redirect_error.hpp>
#include <asio/system_error.hpp>
#include <asio/use_awaitable.hpp>
#include <chrono>

namespace hutch::net {

namespace {

constexpr auto kUpstreamHandshakeTime = std::chrono::seconds(30);

}  // namespace

Upstream::Upstream(std::unique_ptr<Duplex> raw)
    : raw_(std::move(raw)), done_(raw_->executor(), asio::steady_timer::time_point::max()) {}

asio::awaitable<std::shared_ptr<Upstream>> Upstream::open(const Connect& connect,
                                                          const TlsConnector& connector, std::string host) {
  std::shared_ptr<Upstream> upstream;
  try {
    upstream = std::make_shared<Upstream>(co_await connect());
  } catch (const asio::system_error& error) {
    throw Error(Errc::unavailable, "cannot connect to " + host + ": " + error.what());
  }
  const CloseAfter late(*upstream->raw_, kUpstreamHandshakeTime);
  upstream->tls_ = co_await connector.connect(*upstream->raw_, std::move(host));
  co_return upstream;
}

void Upstream::watch_for(Duplex& client) {
  waiting_ = &client;
  if (early_ != Early::none) return;
  early_ = Early::under_way;
  asio::co_spawn(
      executor(), [self = shared_from_this()] { return self->read_early(); }, asio::detached);
}

asio::awaitable<void> Upstream::read_early() {
  const auto self = shared_from_this();
  try {
    bytes_ = co_await tls_->read();
  } catch (const std::exception&) {
    failure_ = std::current_exception();
  }
  early_ = Early::done;
  if (waiting_ != nullptr) waiting_->close();
  done_.cancel();
}

asio::awaitable<std::string_view> Upstream::read() {
  waiting_ = nullptr;
  if (early_ == Early::under_way) {
    asio::error_code cancelled;
    co_await done_.async_wait(asio::redirect_error(asio::use_awaitable, cancelled));
  }
  if (early_ == Early::none) co_return co_await tls_->read();
  early_ = Early::none;
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  co_return bytes_;
}

}  // namespace hutch::net
