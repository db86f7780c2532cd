#include "net/egress_proxy.h"

#include <fmt/format.h>

#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/use_awaitable.hpp>

#include "base/log.h"
#include "net/error_answer.h"
#include "net/http_body.h"
#include "net/http_forward.h"
#include "net/socks5.h"
#include "net/tunnel.h"

namespace hutch::net {

namespace {

using Reason = Refusal::Reason;
using namespace std::chrono_literals;

constexpr auto kHeadWithin = 30s;

/// The HTTP side of one connection: a CONNECT, or plain requests one after the other.
class HttpClient {
 public:
  HttpClient(ReadAhead& client, std::shared_ptr<Egress> egress)
      : client_(client), egress_(std::move(egress)) {}

  asio::awaitable<void> run() {
    std::optional<ErrorAnswer> problem;
    try {
      while (co_await one_request()) {
      }
    } catch (const Error& error) {
      if (!silent_) problem = answer_to(error);
    }
    if (problem) co_await write_error(client_, *problem);
  }

 private:
  asio::awaitable<bool> one_request() {
    auto request = co_await next_request();
    if (!request) co_return false;
    if (request->method == "CONNECT") {
      co_await connect(*request);
      co_return false;
    }
    co_return co_await plain(std::move(*request));
  }

  asio::awaitable<std::optional<RequestHead>> next_request() {
    const CloseAfter deadline(client_, kHeadWithin);
    try {
      const auto text = co_await read_head(client_);
      if (!text) co_return std::nullopt;
      co_return parse_request_head(*text);
    } catch (const BadHttp& error) {
      throw malformed(error.what());
    }
  }

  Refused malformed(std::string why, std::string_view target = {}) {
    return egress_->refuse("http",
                           {.host = printable(target), .reason = Reason::malformed, .why = std::move(why)});
  }

  /// Host, where there is one, must say the same as the target: somebody behind us may go by it.
  void check_host_field(const RequestHead& request, const HostPort& target, std::string_view protocol) {
    const std::string* field = request.fields.find("Host");
    if (field == nullptr) return;
    std::string why = fmt::format("a request for {} has the Host {}", target.to_string(), printable(*field));
    try {
      const HostPort named = parse_host_port(*field, target.port);
      if (named == target) return;
    } catch (const Error& error) {
      why = error.what();
    }
    throw egress_->refuse(protocol, {.host = target.host.to_string(),
                                     .port = target.port,
                                     .reason = Reason::mismatch,
                                     .why = std::move(why)});
  }

  asio::awaitable<void> connect(const RequestHead& request) {
    HostPort target;
    try {
      target = parse_host_port(request.target);
    } catch (const Error& error) {
      throw malformed(error.what(), request.target);
    }
    if (const BodyFraming body = request_framing(request);
        body.kind == BodyFraming::Kind::chunked || body.length > 0)
      throw malformed("a CONNECT has a body", request.target);
    check_host_field(request, target, "connect");
    Route route = co_await open_route(egress_, std::move(target), "connect", client_.executor());
    co_await client_.write("HTTP/1.1 200 Connection established\r\n\r\n");
    silent_ = true;
    co_await run_tunnel(client_, route, egress_);
  }

  /// Takes the host out of an absolute target, which is as a server wants it then.
  HostPort split_target(RequestHead& request) {
    const std::string given = request.target;
    const size_t scheme = given.find("://");
    if (scheme == given.npos)
      throw malformed("this is a proxy: it takes CONNECT host:port, or a whole URL http://host/path", given);
    const std::string_view rest = std::string_view(given).substr(scheme + 3);
    const std::string_view authority = rest.substr(0, rest.find_first_of("/?"));
    if (!same_word(std::string_view(given).substr(0, scheme), "http"))
      throw malformed(
          fmt::format("{}:// was asked for by URL, as only http:// can be; take a program that uses "
                      "CONNECT, such as curl (wget of busybox does not)",
                      printable(given.substr(0, scheme))),
          authority);
    request.target = rest.substr(authority.size());
    if (!request.target.starts_with('/')) request.target.insert(0, "/");
    try {
      return parse_host_port(authority, 80);
    } catch (const Error& error) {
      throw malformed(error.what(), authority);
    }
  }

  asio::awaitable<bool> plain(RequestHead request) {
    HostPort target = split_target(request);
    check_host_field(request, target, "http");
    request.fields.set("Host", target.port == 80 ? target.host.to_string() : target.to_string());
    for (bool again = false;; again = true) {
      const bool kept = route_ && route_->target == target && !again;
      if (kept)
        check_route(*egress_, *route_);
      else
        route_ = co_await open_route(egress_, target, "http", client_.executor());
      if (kept)
        egress_->allowed("http", target, route_->address ? route_->address->to_string() : std::string());
      RequestHead outgoing = request;
      if (egress_->hooks().rewrite_plain) egress_->hooks().rewrite_plain(outgoing, target);
      ForwardState state;
      bool stale = false;
      try {
        const Forwarded after = co_await forward(client_, std::move(outgoing), *route_->ahead, state);
        if (!after.upstream_stays) route_.reset();
        co_return after.client_stays;
      } catch (const std::exception& error) {
        // A server may end a kept connection just when the next request is on its way.
        stale = kept && !state.answered && !state.used_body;
        silent_ = state.answered;
        if (state.bad_body)
          throw egress_->refuse("http", {.host = target.host.to_string(),
                                         .port = target.port,
                                         .reason = Reason::malformed,
                                         .why = error.what()});
        if (!stale) fail(error);
      }
    }
  }

  [[noreturn]] static void fail(const std::exception& error) {
    if (dynamic_cast<const Refused*>(&error) != nullptr) throw;
    throw Error(Errc::unavailable, fmt::format("the server's answer cannot be passed on: {}", error.what()));
  }

  ReadAhead& client_;
  const std::shared_ptr<Egress> egress_;
  std::optional<Route> route_;  // of plain requests
  bool silent_ = false;         // the client has its answer already
};

asio::awaitable<void> serve_socks(ReadAhead& client, std::shared_ptr<Egress> egress) {
  SocksHandshake handshake;
  {
    const CloseAfter deadline(client, kHeadWithin);
    while (!handshake.done() && !handshake.failed()) {
      const std::string_view bytes = co_await client.read();
      if (bytes.empty()) co_return;
      std::string answer;
      const size_t taken = handshake.take(bytes, answer);
      client.unread(bytes.substr(taken));
      if (handshake.failed())
        (void)egress->refuse("socks5", {.reason = Reason::malformed, .why = handshake.why()});
      if (!answer.empty()) co_await client.write(answer);
    }
  }
  if (handshake.failed()) co_return co_await say_goodbye(client);
  std::optional<Route> route;
  SocksReply reply = SocksReply::succeeded;
  try {
    route = co_await open_route(egress, handshake.target(), "socks5", client.executor());
  } catch (const Refused&) {
    reply = SocksReply::not_allowed;
  } catch (const Error&) {
    reply = SocksReply::host_unreachable;
  }
  co_await client.write(socks_reply(reply));
  if (route) co_return co_await run_tunnel(client, *route, egress);
  co_await say_goodbye(client);
}

/// The caller keeps `egress`: the place in it must not outlive it.
asio::awaitable<void> serve_one(Duplex& stream, const std::shared_ptr<Egress>& egress) {
  ReadAhead client(stream);
  const Egress::Place place(*egress);
  if (!place) {
    const Refused refused = egress->refuse(
        "limit", {.reason = Reason::limit,
                  .why = fmt::format("the sandbox has {} connections already (egress.max_connections)",
                                     egress->limits().max_connections)});
    co_return co_await write_error(client, answer_to(refused));
  }
  std::string_view first;
  {
    const CloseAfter deadline(client, kHeadWithin);
    first = co_await client.read();
  }
  if (first.empty()) co_return;
  client.unread(first);
  if (first[0] == 5) co_return co_await serve_socks(client, egress);
  HttpClient http(client, egress);
  co_await http.run();
}

}  // namespace

asio::awaitable<void> serve_egress(std::shared_ptr<Duplex> client, std::shared_ptr<Egress> egress) {
  try {
    co_await serve_one(*client, egress);
  } catch (const std::exception& error) {
    log::debug("egress: {}", error.what());
  }
  client->close();
}

}  // namespace hutch::net
