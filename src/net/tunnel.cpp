#include "net/tunnel.h"

#include <fmt/format.h>

#include <asio/experimental/awaitable_operators.hpp>
#include <functional>

#include "net/error_answer.h"
#include "net/http_body.h"
#include "net/http_forward.h"
#include "net/tls_hello.h"

namespace hutch::net {

namespace {

using Reason = Refusal::Reason;
using namespace std::chrono_literals;

constexpr auto kBeginWithin = 30s;  // once it has begun
/// The fatal alert access_denied of TLS (RFC 8446, 6.2), for programs to show: they know no other reason.
constexpr std::string_view kAccessDenied("\x15\x03\x01\x00\x02\x02\x31", 7);

Refused refuse_inside(Egress& egress, const Route& route, Reason reason, std::string why) {
  return egress.refuse(route.protocol, {.host = route.target.host.to_string(),
                                        .port = route.target.port,
                                        .reason = reason,
                                        .why = std::move(why)});
}

/// Reads until `done` says so about all bytes so far, or the client has ended; they are still to be passed
/// on.
using Done = std::function<bool(std::string_view)>;
asio::awaitable<void> gather(Duplex& client, std::string& bytes, const Done& done) {
  const CloseAfter deadline(client, kBeginWithin);
  while (!done(bytes)) {
    const std::string_view more = co_await client.read();
    if (more.empty()) co_return;
    bytes += more;
  }
}

/// A name that cannot be one is as wrong as another one.
Host inner_host(Egress& egress, const Route& route, std::string_view text, bool with_port) {
  try {
    if (!with_port) return parse_host(text);
    const HostPort at = parse_host_port(text, route.target.port);
    if (at.port == route.target.port) return at.host;
  } catch (const Error&) {
  }
  throw refuse_inside(
      egress, route, Reason::mismatch,
      fmt::format("a connection to {} asks for {}", route.target.to_string(), printable(text)));
}

/// Adds what is missing of the client's first message, if it is for the host that was allowed.
asio::awaitable<void> gather_hello(ReadAhead& client, std::string& bytes, const Route& route,
                                   Egress& egress) {
  std::optional<ClientHello> hello;
  std::optional<std::string> wrong;
  const Done is_whole = [&](std::string_view all) {
    hello = parse_client_hello(all);
    return hello.has_value();
  };
  try {
    co_await gather(client, bytes, is_whole);
  } catch (const Error& error) {
    wrong = error.what();
  }
  if (!hello && !wrong) wrong = "the TLS connection ended before it began";
  if (wrong) throw refuse_inside(egress, route, Reason::malformed, *wrong);
  if (hello->server_name)
    check_inner_host(egress, route, inner_host(egress, route, *hello->server_name, false));
  else if (!route.target.host.address)
    throw refuse_inside(egress, route, Reason::mismatch,
                        fmt::format("the TLS connection to {} does not say for which host it is (SNI)",
                                    route.target.to_string()));
}

asio::awaitable<void> tunnel_tls(ReadAhead& client, std::string bytes, Route& route, Egress& egress) {
  bool refused = false;
  try {
    co_await gather_hello(client, bytes, route, egress);
  } catch (const Refused&) {
    refused = true;
  }
  if (refused) {
    co_await client.write(kAccessDenied);
    co_return co_await say_goodbye(client);
  }
  Rewound rewound(client, std::move(bytes));
  const EgressHooks& hooks = egress.hooks();
  if (hooks.needs_inspection && hooks.needs_inspection(route.target))
    co_await hooks.inspect(rewound, *route.ahead, route.target);
  else
    co_await relay(rewound, *route.ahead);
}

/// The next request, if it is for the host that was allowed; nothing: there is none.
asio::awaitable<std::optional<RequestHead>> next_inside(ReadAhead& client, const Route& route,
                                                        Egress& egress) {
  const auto text = co_await read_head(client);
  if (!text) co_return std::nullopt;
  RequestHead request = parse_request_head(*text);
  if (request.method == "CONNECT" || !(request.target.starts_with('/') || request.target == "*"))
    throw refuse_inside(egress, route, Reason::malformed, "a request inside a tunnel is for another proxy");
  if (const std::string* host = request.fields.find("Host"))
    check_inner_host(egress, route, inner_host(egress, route, *host, true));
  check_route(egress, route);
  co_return request;
}

Refused malformed_inside(Egress& egress, const Route& route, const BadHttp& error) {
  return refuse_inside(egress, route, Reason::malformed,
                       fmt::format("an HTTP request is malformed: {}", error.what()));
}

/// One request after the other, each with the Host that was allowed.
asio::awaitable<void> tunnel_http(ReadAhead& client, Route& route, Egress& egress) {
  for (bool stays = true; stays;) {
    std::optional<RequestHead> request;
    std::optional<ErrorAnswer> refused;
    try {
      request = co_await next_inside(client, route, egress);
    } catch (const BadHttp& error) {
      refused = answer_to(malformed_inside(egress, route, error));
    } catch (const Refused& error) {
      refused = answer_to(error);
    }
    if (refused) co_return co_await write_error(client, *refused);
    if (!request) co_return;
    if (egress.hooks().rewrite_plain) egress.hooks().rewrite_plain(*request, route.target);
    ForwardState state;
    const Forwarded after = co_await forward(client, std::move(*request), *route.ahead, state);
    stays = after.client_stays && after.upstream_stays;
  }
}

asio::awaitable<void> tunnel_plain(ReadAhead& client, std::string bytes, Route& route, Egress& egress) {
  Rewound rewound(client, std::move(bytes));
  ReadAhead ahead(rewound);
  try {
    co_await tunnel_http(ahead, route, egress);
  } catch (const BadHttp& error) {
    throw malformed_inside(egress, route, error);
  }
}

asio::awaitable<void> keep_read(ReadAhead& stream, std::optional<std::string_view>& bytes) {
  bytes = co_await stream.read();
}

/// Whether the server speaks first, as those of SSH and SMTP do and those of TLS and HTTP never. Nothing is
/// lost of what either has said.
asio::awaitable<bool> server_begins(ReadAhead& client, ReadAhead& upstream) {
  using namespace asio::experimental::awaitable_operators;
  std::optional<std::string_view> from_client, from_upstream;
  co_await (keep_read(client, from_client) || keep_read(upstream, from_upstream));
  if (from_client) client.unread(*from_client);
  if (from_upstream) upstream.unread(*from_upstream);
  co_return from_upstream.has_value() && !from_client.has_value();
}

bool is_token_like(char c) {
  return c > ' ' && c < 0x7f && std::string_view("()<>@,;:\\\"/[]?={}").find(c) == std::string_view::npos;
}

}  // namespace

Speech recognize(std::string_view bytes) {
  if (looks_like_tls(bytes)) return Speech::tls;
  // Servers forgive empty lines before a request, and any method.
  bytes.remove_prefix(std::min(bytes.find_first_not_of("\r\n"), bytes.size()));
  size_t method = 0;
  while (method < bytes.size() && is_token_like(bytes[method])) ++method;
  if (method > 64) return Speech::other;
  if (method == bytes.size()) return Speech::undecided;
  if (method == 0 || (bytes[method] != ' ' && bytes[method] != '\t')) return Speech::other;
  const size_t line_end = bytes.find('\n');
  if (line_end == bytes.npos) return bytes.size() > kMaxHeadBytes ? Speech::http : Speech::undecided;
  return to_lower(bytes.substr(0, line_end)).find("http/") != bytes.npos ? Speech::http : Speech::other;
}

asio::awaitable<void> run_tunnel(ReadAhead& client, Route& route, std::shared_ptr<Egress> egress) {
  const bool web = route.target.port == 80 || route.target.port == 443;
  if (!web && co_await server_begins(client, *route.ahead)) co_return co_await relay(client, *route.ahead);
  std::string bytes(co_await client.read());  // as late as it likes: idle connections are nobody's harm
  if (bytes.empty()) co_return;
  const Done is_clear = [](std::string_view all) { return recognize(all) != Speech::undecided; };
  co_await gather(client, bytes, is_clear);
  switch (recognize(bytes)) {
    case Speech::tls:
      co_return co_await tunnel_tls(client, std::move(bytes), route, *egress);
    case Speech::http:
      co_return co_await tunnel_plain(client, std::move(bytes), route, *egress);
    default:
      break;
  }
  if (web)
    throw refuse_inside(
        *egress, route, Reason::malformed,
        fmt::format("a connection to {} speaks neither TLS nor HTTP", route.target.to_string()));
  Rewound rewound(client, std::move(bytes));
  co_await relay(rewound, *route.ahead);
}

}  // namespace hutch::net
