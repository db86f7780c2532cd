#include "net/secret_session.h"

#include <fmt/format.h>

#include <asio/error.hpp>
#include <asio/experimental/awaitable_operators.hpp>
#include <asio/system_error.hpp>
#include <chrono>

#include "net/secret_body.h"

namespace hutch::net {

namespace {

constexpr auto kLingerTime = std::chrono::seconds(2);
constexpr uint64_t kMaxChangedBody = 1 << 20;

HttpFields masked_fields(const HttpFields& fields, const Mask& mask) {
  HttpFields out;
  for (const HttpField& field : fields.all()) {
    if (same_word(field.name, "Content-Length") || same_word(field.name, "Transfer-Encoding"))
      out.add(field.name, field.value);
    else
      out.add(mask.apply(field.name), mask.apply(field.value));
  }
  return out;
}

/// `Connection` of one message between two neighbours.
void set_connection(HttpFields& fields, bool upgrade, bool keeps_alive) {
  fields.remove_hop_by_hop();
  if (upgrade) fields.set("Upgrade", "websocket");
  if (upgrade || !keeps_alive) fields.set("Connection", upgrade ? "Upgrade" : "close");
}

}  // namespace

SecretSession::~SecretSession() {
  if (!upstream_) return;
  upstream_->forget();
  upstream_->close();
}

asio::awaitable<void> SecretSession::run() {
  std::optional<Error> refused;
  int status = 502;
  try {
    bool more = true;
    while (more) {
      const auto head = co_await read_head(client_);
      more = head && co_await pass_request(*head);
    }
    co_return co_await client_.end();
  } catch (const BadHttp& error) {
    refused = error;
    status = error.status();
  } catch (const Error& error) {
    refused = error;
  } catch (const asio::system_error& error) {
    // A connection that the server closed while it was idle is closed for the client too: it asks again.
    if (!waiting_ && upstream_ && !reused_ && !answering_)
      refused = Error(Errc::unavailable, fmt::format("the connection to {} broke: {}", host_, error.what()));
  }
  if (refused && !answering_) co_await refuse(status, *refused);
  client_.close();
  if (refused) throw *refused;
}

asio::awaitable<void> SecretSession::refuse(int status, const Error& error) {
  const std::string body = "hutch: " + error_text(error) + "\n";
  ResponseHead head{.status = status, .reason = "refused by hutch"};
  head.fields.add("Content-Type", "text/plain; charset=utf-8");
  head.fields.add("Content-Length", std::to_string(body.size()));
  head.fields.add("Connection", "close");
  try {
    co_await client_.write(head.to_string() + body);
    co_await client_.end();
    // Closed with something unread, TCP resets the connection and the answer may be lost (RFC 9112, 9.6).
    const CloseAfter late(client_, kLingerTime);
    while (!(co_await client_.read()).empty()) {
    }
  } catch (const asio::system_error&) {
  }  // then it does not want to know
}

void SecretSession::check_request(const RequestHead& request) const {
  const bool whole_server = request.method == "OPTIONS" && request.target == "*";
  if (!request.target.starts_with('/') && !whole_server)
    throw BadHttp(400, "the target of the request is not a path");
  const std::string* host = request.fields.find("Host");
  if (host == nullptr) throw BadHttp(400, "there is no Host");
  const bool same = same_word(*host, host_) || same_word(*host, fmt::format("{}:{}", host_, port_));
  if (!same) throw BadHttp(421, fmt::format("the connection is to {}, the request to another host", host_));
}

void SecretSession::rewrite(RequestHead& request, const std::string* body) const {
  set_connection(request.fields, request.wants_websocket(), request.keeps_alive());
  request.fields.set("Accept-Encoding", "identity");  // else a value that comes back could not be seen
  request.fields.remove("Expect");
  if (body != nullptr) request.fields.set("Content-Length", std::to_string(body->size()));
}

/// False: it was the last one of this connection.
asio::awaitable<bool> SecretSession::pass_request(std::string_view head_text) {
  waiting_ = answering_ = false;
  RequestHead request = parse_request_head(head_text);
  check_request(request);
  const BodyFraming framing = request_framing(request);
  if (request.fields.has_word("Expect", "100-continue"))
    co_await client_.write("HTTP/1.1 100 Continue\r\n\r\n");
  std::optional<std::string> body;
  if (secrets_.in_bodies() && framing.kind == BodyFraming::Kind::length && framing.length <= kMaxChangedBody)
    body = co_await read_body(client_, framing.length);
  RequestHead sent = request;
  carries_value_ = co_await secrets_.put_into(sent, body ? &*body : nullptr);
  rewrite(sent, body ? &*body : nullptr);
  if (!upstream_) {
    upstream_ = co_await Upstream::open(connect_, connector_, host_);
    answers_.emplace(*upstream_);
  }
  co_await upstream_->write(sent.to_string() + body.value_or(""));
  const bool all_sent = body || framing.kind == BodyFraming::Kind::none;
  const bool keeps = all_sent ? co_await pass_answer(request) : co_await send_and_answer(request, framing);
  if (!keeps || answers_->has_unread()) co_return false;
  waiting_ = reused_ = true;
  answering_ = false;
  upstream_->watch_for(client_);
  co_return true;
}

/// Both at once: a server may answer before it has read all, and may wait for nothing.
asio::awaitable<bool> SecretSession::send_and_answer(const RequestHead& request, const BodyFraming& framing) {
  using namespace asio::experimental::awaitable_operators;
  bool sent = false, keeps = false;
  co_await (send_body(framing, sent) && answer_meanwhile(request, keeps, sent));
  co_return keeps&& sent;
}

asio::awaitable<void> SecretSession::send_body(const BodyFraming& framing, bool& sent) {
  try {
    co_await copy_to_server(client_, *upstream_, framing);
    sent = true;
  } catch (const std::exception&) {
    upstream_->close();  // the client has gone, or makes no sense
  }
}

asio::awaitable<void> SecretSession::answer_meanwhile(const RequestHead& request, bool& keeps,
                                                      const bool& sent) {
  std::optional<Error> refused;
  try {
    keeps = co_await pass_answer(request);
    if (!sent) upstream_->close();  // the client may finish what it says, nobody listens
    co_return;
  } catch (const Error& error) {
    refused = error;
  } catch (const asio::system_error&) {
    refused = Error(Errc::unavailable, fmt::format("the connection to {} broke", host_));
  }
  upstream_->close();
  if (answering_) co_return client_.close();
  answering_ = true;
  co_await refuse(502, *refused);
}

asio::awaitable<ResponseHead> SecretSession::next_answer() {
  try {
    const auto text = co_await read_head(*answers_);
    if (!text) throw asio::system_error(asio::error::eof);
    co_return parse_response_head(*text);
  } catch (const BadHttp& error) {
    throw Error(Errc::unavailable, fmt::format("the answer of {} is no HTTP: {}", host_, error.what()));
  }
}

void SecretSession::check_coding(const ResponseHead& head) const {
  const std::string* coding = head.fields.find("Content-Encoding");
  if (!carries_value_ || coding == nullptr || same_word(*coding, "identity")) return;
  throw Error(Errc::denied,
              fmt::format("{} compresses its answer to a request with a secret, though it was asked "
                          "not to: whether it repeats the secret cannot be seen",
                          host_));
}

asio::awaitable<bool> SecretSession::pass_answer(const RequestHead& request) {
  Mask mask = secrets_.mask();
  for (;;) {
    ResponseHead head = co_await next_answer();
    const BodyFraming framing = response_framing(head, request.method);
    const bool tunnel = framing.kind == BodyFraming::Kind::tunnel;
    if (head.status == 100) continue;  // the client has had its own
    if (tunnel && !request.wants_websocket())
      throw Error(Errc::unavailable, host_ + " changes the protocol unasked");
    if (framing.kind != BodyFraming::Kind::none) check_coding(head);
    const bool last = head.status >= 200 || tunnel;
    const bool keeps = request.minor == 1 && request.keeps_alive() && head.keeps_alive() &&
                       framing.kind != BodyFraming::Kind::until_end;
    head.fields = masked_fields(head.fields, mask);
    head.reason = mask.apply(head.reason);
    set_connection(head.fields, tunnel, keeps || !last);
    answering_ = last;
    co_await client_.write(head.to_string());
    if (!last) continue;
    if (tunnel)
      co_await relay(client_, *answers_);
    else
      co_await copy_masked(*answers_, client_, framing, mask);
    co_return keeps && !tunnel;
  }
}

}  // namespace hutch::net
