#pragma once

#include <asio/steady_timer.hpp>
#include <exception>
#include <functional>
#include <memory>
#include <string>

#include "net/tls.h"

namespace hutch::net {

/// Makes a connection to a host that is allowed, to the address that was checked; without TLS.
using Connect = std::function<asio::awaitable<std::unique_ptr<Duplex>>()>;

/// A connection with TLS to a server that is asked again and again. Its end is noticed also between two
/// questions, so that its client does not ask into a closed connection: most would take that for a failure.
class Upstream final : public Duplex, public std::enable_shared_from_this<Upstream> {
 public:
  /// Throws Error when there is no connection, or none to who it should be.
  static asio::awaitable<std::shared_ptr<Upstream>> open(const Connect& connect,
                                                         const TlsConnector& connector, std::string host);
  explicit Upstream(std::unique_ptr<Duplex> raw);

  /// Until the next read(), or forget(): closes `client` as soon as the server ends or says anything.
  void watch_for(Duplex& client);
  void forget() noexcept { waiting_ = nullptr; }

  asio::awaitable<std::string_view> read() override;
  asio::awaitable<void> write(std::string_view bytes) override { return tls_->write(bytes); }
  asio::awaitable<void> end() override { return tls_->end(); }
  void close() noexcept override { raw_->close(); }
  asio::any_io_executor executor() override { return raw_->executor(); }

 private:
  asio::awaitable<void> read_early();

  const std::unique_ptr<Duplex> raw_;
  TlsStream tls_;
  Duplex* waiting_ = nullptr;
  enum class Early { none, under_way, done } early_ = Early::none;  // a read() before anybody asked
  std::string_view bytes_;
  std::exception_ptr failure_;
  asio::steady_timer done_;
};

}  // namespace hutch::net
