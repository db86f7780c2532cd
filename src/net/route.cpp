#include "net/route.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <asio/connect.hpp>
#include <asio/experimental/awaitable_operators.hpp>
#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/use_awaitable.hpp>

#include "base/unique_fd.h"
#include "net/http_body.h"
#include "net/upstream_proxy.h"

namespace hutch::net {

namespace {

using asio::ip::tcp;
using Reason = Refusal::Reason;
constexpr size_t kMaxAttempts = 4;  // addresses of one name

Refusal no_rule_for(const HostPort& target) {
  return {.host = target.host.to_string(),
          .port = target.port,
          .reason = Reason::no_rule,
          .why = fmt::format("no rule allows {}", target.to_string()),
          .rule = rule_for(target.host, target.port)};
}

Refusal special_refusal(const HostPort& target, const Address& address, std::string_view what) {
  const Host itself{{}, address};
  const std::string subject =
      target.host.address ? target.to_string()
                          : fmt::format("{} is at {}, which", target.to_string(), address.to_string());
  return {.host = target.host.to_string(),
          .port = target.port,
          .reason = Reason::special,
          .why = fmt::format("{} is {} and no rule names that address", subject, what),
          .rule = rule_for(itself, target.port)};
}

/// nullopt: by the rules as they are. Names that no rule allows are not even looked up: the question itself
/// would tell somebody something.
std::optional<Refusal> judge(const RuleSet& rules, const HostPort& target) {
  if (!target.host.address) {
    if (rules.allows_name(target.host.name, target.port)) return std::nullopt;
    return no_rule_for(target);
  }
  if (rules.allows_address(*target.host.address, target.port)) return std::nullopt;
  if (const auto special = special_range(*target.host.address))
    return special_refusal(target, *target.host.address, special->what);
  return no_rule_for(target);
}

asio::awaitable<bool> ask_or_no(const Egress& egress, const Refusal& refusal) {
  try {
    co_return co_await egress.hooks().ask(refusal);
  } catch (const std::exception&) {
    co_return false;
  }
}

/// Whether a person says yes.
asio::awaitable<bool> ask(const Egress& egress, const Refusal& refusal, asio::any_io_executor executor) {
  using namespace asio::experimental::awaitable_operators;
  const EgressHooks& hooks = egress.hooks();
  if (refusal.reason != Reason::no_rule || !hooks.ask) co_return false;
  // Who answers for the user is a program, too: what it could not add for the agent it cannot add so.
  if (hooks.callers_may_add && !hooks.callers_may_add(refusal.rule)) co_return false;
  asio::steady_timer deadline(executor, kAskWithin);
  const auto answer = co_await (ask_or_no(egress, refusal) || deadline.async_wait(asio::use_awaitable));
  co_return answer.index() == 0 && std::get<0>(answer);
}

/// Those of the name's addresses that may be connected to.
std::vector<Address> checked_addresses(Egress& egress, const HostPort& target, std::string_view protocol,
                                       const std::vector<Address>& resolved) {
  const auto rules = egress.rules();
  std::vector<Address> out;
  std::optional<Refusal> refusal;
  for (const Address& address : resolved) {
    const auto special = special_range(address);
    if (!special || rules->allows_address(address, target.port))
      out.push_back(address);
    else if (!refusal)
      refusal = special_refusal(target, address, special->what);
  }
  if (!out.empty()) return out;
  if (refusal) throw egress.refuse(protocol, std::move(*refusal));
  throw Error(Errc::unavailable, fmt::format("{} has no address", target.host.to_string()));
}

tcp::socket make_socket(const asio::any_io_executor& executor, const Address& address) {
  // Not asio's: that leaves out CLOEXEC.
  const int family = address.is_v4() ? AF_INET : AF_INET6;
  UniqueFd fd(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) throw sys_error(errno, "socket");
  tcp::socket socket(executor, address.is_v4() ? tcp::v4() : tcp::v6(), fd.get());
  (void)fd.release();
  return socket;
}

asio::awaitable<std::unique_ptr<Duplex>> connect_to(const Address& address, uint16_t port,
                                                    asio::any_io_executor executor,
                                                    std::chrono::milliseconds within) {
  using namespace asio::experimental::awaitable_operators;
  tcp::socket socket = make_socket(executor, address);
  asio::steady_timer deadline(executor, within);
  asio::error_code failure, ignored;
  const auto first = co_await (socket.async_connect(tcp::endpoint(address, port),
                                                    asio::redirect_error(asio::use_awaitable, failure)) ||
                               deadline.async_wait(asio::redirect_error(asio::use_awaitable, ignored)));
  if (first.index() == 1)
    throw Error(Errc::timeout, fmt::format("{} port {} did not answer within {} ms", address.to_string(),
                                           port, within.count()));
  if (failure)
    throw Error(Errc::unavailable,
                fmt::format("{} port {}: {}", address.to_string(), port, failure.message()));
  co_return std::make_unique<TcpDuplex>(std::move(socket));
}

/// The first of them that answers.
asio::awaitable<std::unique_ptr<Duplex>> connect_to_any(const std::vector<Address>& addresses, uint16_t port,
                                                        asio::any_io_executor executor,
                                                        std::chrono::milliseconds within,
                                                        Address& connected) {
  std::optional<Error> last;
  for (size_t i = 0; i < std::min(addresses.size(), kMaxAttempts); ++i) {
    try {
      auto stream = co_await connect_to(addresses[i], port, executor, within);
      connected = addresses[i];
      co_return stream;
    } catch (const Error& error) {
      last = error;
    }
  }
  throw last.value_or(Error(Errc::unavailable, "there is no address to connect to"));
}

asio::awaitable<std::vector<Address>> addresses_of(const Egress& egress, const Host& host) {
  if (host.address) co_return std::vector<Address>{*host.address};
  co_return co_await egress.hooks().resolve(host.name);
}

/// What is behind the proxy's answer, with what came after it.
class ThroughProxy final : public ForwardingOwner {
 public:
  explicit ThroughProxy(std::unique_ptr<Duplex> rest) : ForwardingOwner(std::move(rest)), ahead_(rest_) {}
  ReadAhead& ahead() { return ahead_; }
  asio::awaitable<std::string_view> read() override { return ahead_.read(); }

 private:
  ReadAhead ahead_;
};

asio::awaitable<std::unique_ptr<Duplex>> connect_through(const Egress& egress, const UpstreamProxy& proxy,
                                                         const HostPort& target,
                                                         asio::any_io_executor executor) {
  Address connected;
  const auto within = egress.limits().connect_timeout;
  const auto addresses = co_await addresses_of(egress, proxy.at().host);
  auto stream = std::make_unique<ThroughProxy>(
      co_await connect_to_any(addresses, proxy.at().port, executor, within, connected));
  const CloseAfter deadline(*stream, 3 * within);  // it resolves and connects, too
  co_await stream->write(proxy.connect_request(target));
  const auto head = co_await read_head(stream->ahead());
  if (!head)
    throw Error(Errc::unavailable, fmt::format("the upstream proxy {} hung up", proxy.at().to_string()));
  const ResponseHead answer = parse_response_head(*head);
  if (answer.status < 200 || answer.status > 299)
    throw Error(Errc::unavailable, fmt::format("the upstream proxy {} answers {} to a connection to {}",
                                               proxy.at().to_string(), answer.status, target.to_string()));
  co_return stream;
}

void check_budget(Egress& egress, const HostPort& target, std::string_view protocol) {
  if (egress.used_up())
    throw egress.refuse(protocol,
                        {.host = target.host.to_string(),
                         .port = target.port,
                         .reason = Reason::limit,
                         .why = "the sandbox has used all of its network traffic (egress.max_bytes)"});
}

/// To a target that a rule allows.
asio::awaitable<std::unique_ptr<Duplex>> reach(Egress& egress, Route& route, asio::any_io_executor executor) {
  const HostPort& target = route.target;
  if (const UpstreamProxy* proxy = egress.upstream_proxy();
      proxy != nullptr && !proxy->is_bypassed(target.host)) {
    egress.allowed(route.protocol, target, {});
    co_return co_await connect_through(egress, *proxy, target, executor);
  }
  std::vector<Address> addresses = co_await addresses_of(egress, target.host);
  if (!target.host.address) addresses = checked_addresses(egress, target, route.protocol, addresses);
  if (addresses.empty()) throw Error(Errc::unavailable, "there is no address");
  egress.allowed(route.protocol, target, addresses.front().to_string());
  co_return co_await connect_to_any(addresses, target.port, executor, egress.limits().connect_timeout,
                                    route.address.emplace());
}

}  // namespace

asio::awaitable<Route> open_route(const std::shared_ptr<Egress>& egress, HostPort target,
                                  std::string_view protocol, asio::any_io_executor executor) {
  Route route{.target = std::move(target), .protocol = protocol};
  check_budget(*egress, route.target, protocol);
  if (auto refusal = judge(*egress->rules(), route.target)) {
    route.asked = co_await ask(*egress, *refusal, executor);
    if (!route.asked) throw egress->refuse(protocol, std::move(*refusal));
  }
  std::unique_ptr<Duplex> stream;
  try {
    stream = co_await reach(*egress, route, executor);
  } catch (const Refused&) {
    throw;
  } catch (const Error& error) {
    egress->failed(protocol, route.target, error);
    throw;
  }
  route.stream = std::make_unique<Metered>(std::move(stream), egress);
  route.ahead = std::make_unique<ReadAhead>(*route.stream);
  co_return route;
}

void check_route(Egress& egress, const Route& route) {
  check_budget(egress, route.target, route.protocol);
  if (route.asked) return;
  if (auto refusal = judge(*egress.rules(), route.target))
    throw egress.refuse(route.protocol, std::move(*refusal));
  if (route.address && !route.target.host.address)
    (void)checked_addresses(egress, route.target, route.protocol, {*route.address});
}

void check_inner_host(Egress& egress, const Route& route, const Host& inner) {
  const HostPort& target = route.target;
  if (inner == target.host) return;
  const bool by_address = target.host.address.has_value();
  if (by_address && !inner.name.empty() && egress.rules()->allows_name(inner.name, target.port)) return;
  throw egress.refuse(
      route.protocol,
      {.host = inner.to_string(),
       .port = target.port,
       .reason = Reason::mismatch,
       .why = fmt::format("a connection to {} asks for {}", target.to_string(), inner.to_string()),
       .rule = by_address && !inner.name.empty() ? rule_for(inner, target.port) : std::string()});
}

}  // namespace hutch::net
