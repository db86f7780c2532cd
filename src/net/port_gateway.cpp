#include "net/port_gateway.h"

#include <fmt/format.h>

#include <asio/experimental/awaitable_operators.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>
#include <asio/system_error.hpp>
#include <asio/use_awaitable.hpp>
#include <charconv>
#include <chrono>
#include <exception>
#include <optional>

#include "net/http_body.h"

namespace hutch::net {

using namespace std::chrono_literals;

namespace {

constexpr auto kHeadTimeout = 30s, kIdleTimeout = 75s, kAnswerTimeout = 600s, kLinger = 5s;
constexpr std::string_view kTokenName = "hutch_token", kPathPrefix = "/sandboxes/";

std::optional<uint16_t> port_number(std::string_view text) {
  uint16_t port = 0;
  const auto [end, err] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (err != std::errc() || end != text.data() + text.size() || port == 0 || text.front() == '0')
    return std::nullopt;
  return port;
}

/// Up to `end` and past it; nothing when it does not come.
std::optional<std::string_view> take_until(std::string_view& text, char end) {
  const size_t at = text.find(end);
  if (at == std::string_view::npos) return std::nullopt;
  const std::string_view out = text.substr(0, at);
  text.remove_prefix(at + 1);
  return out;
}

/// `<port>-<id>.localhost`.
std::optional<PortTarget> target_of_host(std::string_view host) {
  constexpr std::string_view kSuffix = ".localhost";
  if (!host.ends_with(kSuffix)) return std::nullopt;
  host.remove_suffix(kSuffix.size());
  const auto number = take_until(host, '-');
  const auto port = number ? port_number(*number) : std::nullopt;
  if (!port || host.empty()) return std::nullopt;
  return PortTarget{std::string(host), *port};
}

/// `hutch_token=...` out of what `separator` separates; empty: it is not there.
std::string take_token(std::string& text, char separator) {
  std::string rest, token;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find(separator, at), text.size());
    std::string_view part = std::string_view(text).substr(at, end - at);
    at = end + 1;
    while (separator == ';' && part.starts_with(' ')) part.remove_prefix(1);
    if (part.size() > kTokenName.size() && part.starts_with(kTokenName) && part[kTokenName.size()] == '=') {
      if (token.empty()) token = part.substr(kTokenName.size() + 1);
    } else if (!part.empty()) {
      if (!rest.empty()) rest += separator == ';' ? "; " : std::string(1, separator);
      rest += part;
    }
  }
  text = std::move(rest);
  return token;
}

/// Throws when it is another origin's page that has the browser ask.
void check_asker(const HttpFields& fields, const std::string& host) {
  const std::string* site = fields.find("Sec-Fetch-Site");
  if (const std::string* origin = fields.find("Origin")) {
    // "null" is what sandboxed frames and redirects between origins have, but also a page's own forms when it
    // sends no referrer (Fetch, "append a request Origin header").
    const bool own =
        *origin == "null" ? site != nullptr && *site == "same-origin" : to_lower(*origin) == "http://" + host;
    if (!own) throw PortRefusal{403, fmt::format("{} may not ask this origin", origin->substr(0, 200))};
    return;
  }
  // Cookies know no ports: for a page of this very name on another port the browser sends ours along. Links
  // from elsewhere may be followed.
  const std::string* destination = fields.find("Sec-Fetch-Dest");
  if (site != nullptr && (*site == "same-site" || *site == "cross-site") &&
      (destination == nullptr || *destination != "document"))
    throw PortRefusal{403, "pages of other origins may only link to this one"};
}

PortRequest read_browser_request(const RequestHead& head, PortTarget target, const std::string& host) {
  check_asker(head.fields, host);
  PortRequest out{.target = std::move(target), .token = {}, .path = head.target, .of_browser = true};
  if (const size_t query = out.path.find('?'); query != std::string::npos) {
    std::string parameters = out.path.substr(query + 1);
    out.token = take_token(parameters, '&');
    out.by_url = !out.token.empty();
    if (out.by_url) out.path = out.path.substr(0, query) + (parameters.empty() ? "" : "?" + parameters);
  }
  if (const std::string* cookie = head.fields.find("Cookie"); cookie != nullptr && !out.by_url) {
    std::string cookies = *cookie;
    out.token = take_token(cookies, ';');
  }
  return out;
}

/// `/sandboxes/<id>/ports/<port>/<token>/...`
PortRequest read_program_request(const RequestHead& head) {
  if (head.fields.find("Origin") != nullptr || head.fields.find("Sec-Fetch-Site") != nullptr)
    throw PortRefusal{403,
                      "this URL is for programs: all sandboxes would be one origin here. In a browser, open "
                      "the `url` that sandbox_port_url gives"};
  std::string_view rest = head.target;
  if (!rest.starts_with(kPathPrefix))
    throw PortRefusal{404, "nothing is here: sandbox_port_url gives the URLs of a sandbox's ports"};
  rest.remove_prefix(kPathPrefix.size());
  const auto id = take_until(rest, '/'), word = take_until(rest, '/'), number = take_until(rest, '/');
  const auto port = number ? port_number(*number) : std::nullopt;
  if (!id || word != "ports" || !port) throw PortRefusal{404, "no such URL"};
  PortRequest out{.target = {std::string(*id), *port}, .token = {}, .path = {}};
  const size_t end = std::min(rest.find_first_of("/?"), rest.size());
  out.token = rest.substr(0, end);
  out.path = rest.substr(end);
  if (!out.path.starts_with('/')) out.path.insert(0, "/");
  return out;
}

constexpr std::string_view reason_of(int status) {
  switch (status) {
    case 303:
      return "See Other";
    case 400:
      return "Bad Request";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 421:
      return "Misdirected Request";
    case 431:
      return "Request Header Fields Too Large";
    case 502:
      return "Bad Gateway";
    default:
      return "Refused";
  }
}

/// An answer of our own, after which the connection is closed: what follows on it was not read.
std::string own_answer(int status, std::string text, const std::string& more_fields = {}) {
  text += "\n";
  return fmt::format(
      "HTTP/1.1 {} {}\r\nContent-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n"
      "Cache-Control: no-store\r\nContent-Length: {}\r\nConnection: close\r\n{}\r\n{}",
      status, reason_of(status), text.size(), more_fields, text);
}

std::string to_cookie(const PortRequest& request) {
  return fmt::format(
      "Location: {}\r\nSet-Cookie: {}={}; Path=/; HttpOnly; SameSite=Lax\r\nReferrer-Policy: no-referrer\r\n",
      // Not "//...", which would be another host.
      "/" + request.path.substr(std::min(request.path.find_first_not_of("/\\"), request.path.size())),
      kTokenName, request.token);
}

/// What the server inside gets.
RequestHead inner_head(RequestHead head, const PortRequest& request) {
  const bool upgrades = head.wants_websocket();
  const std::string host = *head.fields.find("Host");
  head.fields.remove_hop_by_hop();
  if (upgrades) {
    head.fields.set("Connection", "Upgrade");
    head.fields.set("Upgrade", "websocket");
  }
  head.target = request.path;
  if (const std::string* cookie = head.fields.find("Cookie")) {
    std::string cookies = *cookie;
    (void)take_token(cookies, ';');
    if (cookies.empty())
      head.fields.remove("Cookie");
    else
      head.fields.set("Cookie", cookies);
  }
  if (!request.of_browser) {
    head.fields.set("Host", fmt::format("localhost:{}", request.target.port));
    head.fields.set("X-Forwarded-Prefix", fmt::format("{}{}/ports/{}", kPathPrefix, request.target.sandbox_id,
                                                      request.target.port));
  }
  head.fields.set("X-Forwarded-Host", host);
  head.fields.set("X-Forwarded-Proto", "http");
  head.minor = 1;
  return head;
}

struct NoAnswer : PortRefusal {};

/// One client's connection, and the one inside that goes with it.
class PortConversation {
 public:
  PortConversation(std::unique_ptr<Duplex> client, uint16_t own_port, const PortGatewayHooks& hooks)
      : client_(std::move(client)), reader_(*client_), own_port_(own_port), hooks_(hooks) {}

  asio::awaitable<void> run() {
    for (bool first = true;; first = false) {
      std::optional<std::string> text;
      {
        const CloseAfter deadline(*client_, first ? kHeadTimeout : kIdleTimeout);
        text = co_await read_head(reader_);
      }
      if (!text) break;
      if (!co_await answer(parse_request_head(*text))) break;
    }
    co_await client_->end();
  }

  asio::awaitable<void> refuse(int status, std::string text) {
    co_await client_->write(own_answer(status, std::move(text)));
    co_await client_->end();
  }

 private:
  /// Whether another request may follow.
  asio::awaitable<bool> answer(RequestHead head) {
    const PortRequest request = read_port_request(head, own_port_);
    if (!hooks_.admits(request.target, request.token))
      throw PortRefusal{403, request.of_browser
                                 ? "this needs the whole URL that sandbox_port_url gave, with its token, once"
                                 : "the token in this URL is not (or no longer) that of this port"};
    if (request.by_url && (head.method == "GET" || head.method == "HEAD")) {
      co_await client_->write(own_answer(303, "go on", to_cookie(request)));
      co_return false;
    }
    co_return co_await forward(std::move(head), request);
  }

  asio::awaitable<bool> forward(RequestHead head, const PortRequest& request) {
    const RequestHead inner = inner_head(head, request);
    const BodyFraming body = request_framing(head);
    const bool has_body = body.kind != BodyFraming::Kind::none;
    if (has_body && head.wants_websocket()) throw BadHttp(400, "a WebSocket does not begin with a body");
    body_passed_ = !has_body;
    // One that was kept open may have been closed inside meanwhile: then what may be done twice is sent
    // again.
    const bool repeatable = head.method == "GET" || head.method == "HEAD" || head.method == "OPTIONS";
    if (server_ && request.target == target_ && !has_body && repeatable) {
      try {
        co_await server_->write(inner.to_string());
        co_return keep_server(co_await exchange(head, request, body));
      } catch (const NoAnswer&) {
      } catch (const asio::system_error&) {
        if (answered_) throw;
      }
    }
    co_await connect(request.target);
    co_await server_->write(inner.to_string());
    co_return keep_server(co_await exchange(head, request, body));
  }

  /// The answer, while the rest of the request goes the other way and then the client is listened to.
  asio::awaitable<bool> exchange(const RequestHead& head, const PortRequest& request,
                                 const BodyFraming& body) {
    using namespace asio::experimental::awaitable_operators;
    Answered after;
    co_await (keep_answer(head, request, after) || mind_client(body));
    if (after.problem && client_gone_)
      throw PortRefusal{400, "the client ended its side of the connection before it had the answer"};
    if (after.problem) std::rethrow_exception(after.problem);
    if (after.tunnel) {
      co_await relay(reader_, *server_reader_);
      co_return false;
    }
    if (!body_passed_) {
      // It may still send, and would lose the answer to a reset.
      const CloseAfter deadline(*client_, kLinger);
      co_await client_->end();
      co_await drop_rest();
    }
    co_return after.goes_on;
  }

  /// Once nothing uses the connection any more; gives back whether another request may follow.
  bool keep_server(bool goes_on) {
    // What nobody asked for would be taken for the next answer.
    if (!goes_on || server_reader_->has_unread()) {
      server_reader_.reset();
      server_.reset();
    }
    return goes_on;
  }

  asio::awaitable<void> connect(const PortTarget& target) {
    server_reader_.reset();
    server_.reset();
    try {
      server_ = co_await hooks_.connect(target);
    } catch (const std::exception& e) {
      throw PortRefusal{
          502, fmt::format("nothing answers on port {} of {}: {}", target.port, target.sandbox_id, e.what())};
    }
    server_reader_.emplace(*server_);
    target_ = target;
  }

  /// Until it is called off.
  asio::awaitable<void> mind_client(const BodyFraming& body) {
    if (!body_passed_) co_await pass_body(body);
    try {
      // One that ends its direction is taken to have gone, as nginx, Go and Node take it: few do that and
      // still want an answer, and whoever has given up looks the same.
      const std::string_view next = co_await reader_.read();
      reader_.unread(next);
      client_gone_ = next.empty();
    } catch (const asio::system_error& broken) {
      client_gone_ = broken.code() != asio::error::operation_aborted;
    }
    if (client_gone_) server_->close();
    asio::steady_timer never(client_->executor(), asio::steady_timer::time_point::max());
    co_await never.async_wait(asio::use_awaitable);
  }

  asio::awaitable<void> pass_body(const BodyFraming& body) {
    try {
      co_await copy_body(reader_, *server_, body);
      body_passed_ = true;
      co_return;
    } catch (const std::exception&) {
      // A server that has answered need not read the rest; for one that waits for it there is no more.
      server_->close();
    }
    co_await drop_rest();
  }

  /// Of a request whose body nobody wants, so that the client gets as far as reading the answer.
  asio::awaitable<void> drop_rest() {
    try {
      while (!(co_await reader_.read()).empty())
        co_await asio::post(client_->executor(), asio::use_awaitable);
    } catch (const std::exception&) {
      // It has gone, or was given time enough.
    }
  }

  asio::awaitable<ResponseHead> read_answer() {
    try {
      const CloseAfter deadline(*server_, kAnswerTimeout);
      const auto text = co_await read_head(*server_reader_);
      if (!text) throw NoAnswer{{502, "the server inside closed the connection without an answer"}};
      co_return parse_response_head(*text);
    } catch (const BadHttp& bad) {
      throw PortRefusal{502, fmt::format("what the server inside answers is not HTTP: {}", bad.what())};
    }
  }

  struct Answered {
    bool goes_on = false;  // another request may follow
    bool tunnel = false;   // from now on both sides say what they like
    std::exception_ptr problem;
  };

  /// Returns whatever becomes of it.
  asio::awaitable<void> keep_answer(const RequestHead& head, const PortRequest& request, Answered& after) {
    try {
      co_await pass_answer(head, request, after);
    } catch (...) {
      after.problem = std::current_exception();
    }
  }

  asio::awaitable<void> pass_answer(const RequestHead& head, const PortRequest& request, Answered& after) {
    for (;;) {
      ResponseHead answer = co_await read_answer();
      const BodyFraming body = response_framing(answer, head.method);
      after.tunnel = body.kind == BodyFraming::Kind::tunnel;
      // On a connection that is used for several sandboxes the next request would be another one's.
      if (after.tunnel && !head.wants_websocket())
        throw PortRefusal{502, "the server inside switches protocols unasked"};
      const bool goes_on = answer.keeps_alive() && head.keeps_alive() && body_passed_ &&
                           body.kind != BodyFraming::Kind::until_end;
      answer.fields.remove_hop_by_hop();
      if (after.tunnel) {
        answer.fields.set("Connection", "Upgrade");
        answer.fields.set("Upgrade", "websocket");
      } else if (!goes_on && answer.status >= 200) {
        answer.fields.set("Connection", "close");
      }
      // Should a browser open it after all, it is an origin of nobody's.
      if (!request.of_browser) answer.fields.add("Content-Security-Policy", "sandbox");
      answer.minor = 1;
      answered_ = true;
      co_await client_->write(answer.to_string());
      if (after.tunnel) co_return;
      if (answer.status < 200) continue;
      co_await copy_body(*server_reader_, *client_, body);
      if (!body_passed_) server_->close();  // it wants no more of it
      answered_ = false;
      after.goes_on = goes_on;
      co_return;
    }
  }

 public:
  /// An answer was begun: no other can be given.
  bool answered_ = false;

 private:
  const std::unique_ptr<Duplex> client_;
  ReadAhead reader_;
  const uint16_t own_port_;
  const PortGatewayHooks& hooks_;
  PortTarget target_;
  std::unique_ptr<Duplex> server_;
  std::optional<ReadAhead> server_reader_;
  bool body_passed_ = true;  // of the request
  bool client_gone_ = false;
};

asio::awaitable<void> converse(std::unique_ptr<Duplex> client, uint16_t own_port,
                               const PortGatewayHooks& hooks) {
  PortConversation conversation(std::move(client), own_port, hooks);
  std::optional<PortRefusal> refusal;
  try {
    co_await conversation.run();
  } catch (const PortRefusal& refused) {
    refusal = refused;
  } catch (const BadHttp& bad) {
    refusal = PortRefusal{bad.status(), bad.what()};
  } catch (const asio::system_error& broken) {
    // The client, or the server inside: the one that is left is told, or closed with the conversation.
    refusal = PortRefusal{502, fmt::format("the connection to the server inside broke: {}", broken.what())};
  } catch (const std::exception&) {
    // Such as no memory.
  }
  if (!refusal || conversation.answered_) co_return;
  try {
    co_await conversation.refuse(refusal->status, refusal->text);
  } catch (const std::exception&) {
    // It did not wait for that.
  }
}

}  // namespace

PortRequest read_port_request(const RequestHead& head, uint16_t own_port) {
  const std::string* field = head.fields.find("Host");
  if (field == nullptr) throw PortRefusal{400, "a request without Host"};
  const std::string host = to_lower(*field);
  const std::string suffix = fmt::format(":{}", own_port);
  if (!host.ends_with(suffix)) throw PortRefusal{421, "this is not the host of any sandbox"};
  const std::string name = host.substr(0, host.size() - suffix.size());
  if (!head.target.starts_with('/')) throw PortRefusal{400, "the target has to begin with /"};
  if (auto target = target_of_host(name)) return read_browser_request(head, std::move(*target), host);
  if (name == "127.0.0.1" || name == "localhost") return read_program_request(head);
  throw PortRefusal{421, "this is not the host of any sandbox"};
}

std::string browser_url(const PortTarget& target, const std::string& token, uint16_t own_port) {
  return fmt::format("http://{}-{}.localhost:{}/?{}={}", target.port, target.sandbox_id, own_port, kTokenName,
                     token);
}

std::string program_url(const PortTarget& target, const std::string& token, uint16_t own_port) {
  return fmt::format("http://127.0.0.1:{}{}{}/ports/{}/{}/", own_port, kPathPrefix, target.sandbox_id,
                     target.port, token);
}

asio::awaitable<void> serve_port_requests(std::unique_ptr<Duplex> client, uint16_t own_port,
                                          const PortGatewayHooks& hooks) {
  return converse(std::move(client), own_port, hooks);
}

}  // namespace hutch::net
