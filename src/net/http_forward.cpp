#include "net/http_forward.h"

#include <fmt/format.h>

#include "net/http_body.h"

namespace hutch::net {

namespace {

using Kind = BodyFraming::Kind;
using namespace std::chrono_literals;

constexpr auto kAnswerWithin = 10min;
constexpr int kMaxInformational = 16;

/// Sends the body; a server that does not want all of it may have answered already.
asio::awaitable<bool> send_body(ReadAhead& client, ReadAhead& upstream, const BodyFraming& framing,
                                ForwardState& state) {
  try {
    co_await copy_body(client, upstream, framing);
    co_return true;
  } catch (const asio::system_error&) {
    co_return false;
  } catch (const BadHttp&) {
    state.bad_body = true;
    throw;
  }
}

/// The final answer's head, those before it passed on.
asio::awaitable<ResponseHead> read_answer(ReadAhead& client, ReadAhead& upstream, bool wants_early,
                                          ForwardState& state) {
  const CloseAfter deadline(upstream, kAnswerWithin);
  for (int i = 0; i < kMaxInformational; ++i) {
    const auto head = co_await read_head(upstream);
    if (!head) throw Error(Errc::unavailable, "the server hung up without an answer");
    ResponseHead answer = parse_response_head(*head);
    if (answer.status >= 200 || answer.status == 101) co_return answer;
    (void)response_framing(answer, "GET");
    answer.fields.remove_hop_by_hop();
    if (!wants_early || answer.status == 100) continue;
    state.answered = true;
    co_await client.write(answer.to_string());
  }
  throw Error(Errc::unavailable, "the server only says that it will answer");
}

asio::awaitable<void> switch_protocols(ReadAhead& client, ReadAhead& upstream, ResponseHead answer) {
  const std::string* protocol = answer.fields.find("Upgrade");
  if (protocol == nullptr || !same_word(*protocol, "websocket"))
    throw Error(Errc::unavailable, "the server switches to a protocol that was not asked for");
  answer.fields.remove_hop_by_hop();
  answer.fields.set("Upgrade", "websocket");
  answer.fields.set("Connection", "Upgrade");
  co_await client.write(answer.to_string());
  co_await relay(client, upstream);
}

void prepare(RequestHead& request, bool websocket) {
  request.fields.remove_hop_by_hop();
  request.fields.remove("Expect");
  if (!websocket) return;
  request.fields.set("Upgrade", "websocket");
  request.fields.set("Connection", "Upgrade");
}

}  // namespace

asio::awaitable<Forwarded> forward(ReadAhead& client, RequestHead request, ReadAhead& upstream,
                                   ForwardState& state) {
  const bool websocket = request.wants_websocket(), wants_alive = request.keeps_alive();
  const bool expects = request.fields.has_word("Expect", "100-continue");
  const BodyFraming body = request_framing(request);
  if (websocket && body.kind != Kind::none) throw BadHttp(400, "a WebSocket does not begin with a body");
  prepare(request, websocket);
  co_await upstream.write(request.to_string());
  state.used_body = body.kind != Kind::none;
  // Whether it wants the body the server may say later: waiting for that would hold up those that never do.
  if (expects && state.used_body && request.minor == 1)
    co_await client.write("HTTP/1.1 100 Continue\r\n\r\n");
  const bool sent = co_await send_body(client, upstream, body, state);
  ResponseHead answer = co_await read_answer(client, upstream, request.minor == 1, state);
  if (answer.status == 101) {
    if (!websocket) throw Error(Errc::unavailable, "the server switches protocols unasked");
    state.answered = true;
    co_await switch_protocols(client, upstream, std::move(answer));
    co_return Forwarded{};
  }
  const BodyFraming framing = response_framing(answer, request.method);
  if (framing.kind == Kind::chunked && request.minor == 0)
    throw Error(Errc::unavailable, "the server answers HTTP/1.0 with chunks");
  Forwarded after{.client_stays = wants_alive && sent && framing.kind != Kind::until_end,
                  .upstream_stays = answer.keeps_alive() && sent && framing.kind != Kind::until_end};
  answer.fields.remove_hop_by_hop();
  answer.minor = 1;
  if (!after.client_stays) answer.fields.set("Connection", "close");
  if (after.client_stays && request.minor == 0) answer.fields.set("Connection", "keep-alive");
  state.answered = true;
  co_await client.write(answer.to_string());
  co_await copy_body(upstream, client, framing);
  // What nobody asked for would be taken for the next answer.
  after.upstream_stays = after.upstream_stays && !upstream.has_unread();
  co_return after;
}

}  // namespace hutch::net
