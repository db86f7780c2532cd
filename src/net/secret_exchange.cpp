#include "net/secret_exchange.h"

#include <fmt/format.h>

#include <chrono>

#include "net/http_head.h"
#include "net/secret_session.h"

namespace hutch::net {

namespace {

constexpr auto kClientHandshakeTime = std::chrono::seconds(30);

}  // namespace

SecretExchange::SecretExchange(const std::string& data_folder, const std::string& ca_file)
    : authority_(data_folder), connector_(ca_file) {}

asio::awaitable<void> SecretExchange::inspect(Duplex& client, std::shared_ptr<const Secrets> secrets,
                                              std::string host, uint16_t port, Connect connect) {
  host = to_lower(host);
  const auto identity = authority_.identity_for(host);
  TlsStream tls;
  try {
    const CloseAfter late(client, kClientHandshakeTime);
    tls = co_await acceptor_.accept(client, host, *identity);
  } catch (Error& error) {
    error.during(fmt::format("ending the sandbox's TLS to {}, which a secret goes to", host));
    throw;
  }
  SecretSession session(*tls, connector_, std::move(secrets), std::move(host), port, std::move(connect));
  co_await session.run();
}

}  // namespace hutch::net
