#include <asio/post.hpp>
#include <asio/read.hpp>
#include <asio/use_awaitable.hpp>
#include <asio/write.hpp>
#include <cstring>
#include <future>
#include <map>
#include <thread>

#include "net/egress_proxy.h"
#include "net/http_body.h"
#include "net/resolver.h"
#include "net/socks5.h"
#include "net/tls_hello.h"
#include "net/tunnel.h"
#include "net/upstream_proxy.h"
#include "net_support.h"

namespace {

using namespace hutch;
using namespace hutch::net;
using asio::ip::tcp;
using hutch::test::contains;
using hutch::test::MemoryDuplex;

std::string number(size_t value, size_t bytes) {
  std::string out;
  while (bytes-- > 0) out += static_cast<char>(value >> (8 * bytes) & 0xff);
  return out;
}

std::string counted(const std::string& text, size_t bytes) {
  return number(text.size(), bytes) + text;
}

std::string extension(size_t kind, const std::string& content) {
  return number(kind, 2) + counted(content, 2);
}

std::string server_name(const std::string& name) {
  return extension(0, counted(std::string(1, '\0') + counted(name, 2), 2));
}

/// A handshake record with a ClientHello of these extensions.
std::string hello_with(const std::string& extensions) {
  const std::string body = "\x03\x03" + std::string(32, 'r') + counted("", 1) + counted("\x13\x01", 2) +
                           counted(std::string(1, '\0'), 1) + counted(extensions, 2);
  return std::string("\x16\x03\x01") + counted(std::string("\x01") + counted(body, 3), 2);
}

std::string hello_for(const std::string& name) {
  return hello_with(server_name(name));
}

/// A blocking client, as programs in a sandbox are.
class Client {
 public:
  explicit Client(uint16_t port) : socket_(context_) {
    socket_.connect({asio::ip::make_address("127.0.0.1"), port});
    timeval limit{20, 0};
    ::setsockopt(socket_.native_handle(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  }
  Client& send(std::string_view bytes) {
    asio::error_code ignored;
    asio::write(socket_, asio::buffer(bytes), ignored);
    return *this;
  }
  void end() { socket_.shutdown(tcp::socket::shutdown_send); }
  std::string receive(size_t count) {
    std::string out(count, '\0');
    asio::error_code error;
    out.resize(asio::read(socket_, asio::buffer(out), error));
    return out;
  }
  /// Up to the end of the stream.
  std::string rest() {
    std::string out;
    char buffer[4096];
    asio::error_code error;
    while (const size_t count = socket_.read_some(asio::buffer(buffer), error)) out.append(buffer, count);
    return out;
  }
  std::string until(std::string_view end) {
    std::string out;
    while (!out.ends_with(end)) {
      const std::string more = receive(1);
      if (more.empty()) break;
      out += more;
    }
    return out;
  }

 private:
  asio::io_context context_;
  tcp::socket socket_;
};

/// The I/O thread with a proxy, a web server and an echo server on loopback.
class World {
 public:
  explicit World(std::vector<std::string> rules = {}, EgressLimits limits = {}, EgressHooks hooks = {},
                 std::shared_ptr<const UpstreamProxy> upstream = nullptr) {
    web_port = listen([this](TcpDuplex& stream) { return serve_web(stream); });
    echo_port = listen([](TcpDuplex& stream) { return serve_echo(stream); });
    greeting_port = listen([](TcpDuplex& stream) { return greet(stream); });
    for (std::string& rule : rules) expand(rule);
    hooks.resolve = [this](std::string name) -> asio::awaitable<std::vector<Address>> {
      looked_up_.push_back(name);
      const auto it = names_.find(name);
      if (it == names_.end()) throw Error(Errc::unavailable, "no such name");
      std::vector<Address> out;
      for (const std::string& text : it->second) out.push_back(*parse_address(text));
      co_return out;
    };
    hooks.audit = [this](const EgressEvent& event) { events_.push_back(event); };
    egress = std::make_shared<Egress>(RuleSet(rules), limits, std::move(hooks), std::move(upstream));
    proxy_port = listen_proxy();
    thread = std::thread([this] { context.run(); });
  }
  ~World() {
    context.stop();
    thread.join();
  }

  /// WEB, ECHO and GREET stand for the servers' ports.
  std::string& expand(std::string& text) const {
    for (const auto& [word, port] :
         {std::pair{"WEB", web_port}, {"ECHO", echo_port}, {"GREET", greeting_port}})
      for (size_t at; (at = text.find(word)) != text.npos;)
        text.replace(at, std::strlen(word), std::to_string(port));
    return text;
  }
  std::string ask_for(std::string request) {
    Client client(proxy_port);
    return client.send(expand(request)).rest();
  }
  std::vector<Refusal> refusals() const { return egress->refusals_since(0); }

  /// What the I/O thread knows, as it is when all that came before is done.
  template <class Fn>
  auto on_io(Fn fn) {
    std::promise<decltype(fn())> promise;
    asio::post(context, [&] { promise.set_value(fn()); });
    return promise.get_future().get();
  }
  std::vector<std::string> looked_up() {
    return on_io([this] { return looked_up_; });
  }
  std::vector<std::string> seen() {  // by the web server
    return on_io([this] { return seen_; });
  }
  std::vector<EgressEvent> events() {
    return on_io([this] { return events_; });
  }
  void point(const std::string& name, const std::string& address) {
    on_io([&] { return names_[name] = {address}; });
  }

  asio::io_context context{1};
  std::shared_ptr<Egress> egress;
  uint16_t web_port = 0, echo_port = 0, greeting_port = 0, proxy_port = 0;

 private:
  template <class Serve>
  uint16_t listen(Serve serve) {
    auto acceptor =
        std::make_shared<tcp::acceptor>(context, tcp::endpoint(asio::ip::make_address("127.0.0.1"), 0));
    asio::co_spawn(context, accept_loop(acceptor, serve), asio::detached);
    return acceptor->local_endpoint().port();
  }
  template <class Serve>
  static asio::awaitable<void> accept_loop(std::shared_ptr<tcp::acceptor> acceptor, Serve serve) {
    for (;;) {
      auto stream = std::make_shared<TcpDuplex>(co_await acceptor->async_accept(asio::use_awaitable));
      asio::co_spawn(acceptor->get_executor(), serve_stream(stream, serve), asio::detached);
    }
  }
  template <class Serve>
  static asio::awaitable<void> serve_stream(std::shared_ptr<TcpDuplex> stream, Serve serve) {
    try {
      co_await serve(*stream);
    } catch (const std::exception&) {
    }
  }
  uint16_t listen_proxy() {
    auto acceptor =
        std::make_shared<tcp::acceptor>(context, tcp::endpoint(asio::ip::make_address("127.0.0.1"), 0));
    asio::co_spawn(context, proxy_loop(acceptor), asio::detached);
    return acceptor->local_endpoint().port();
  }
  asio::awaitable<void> proxy_loop(std::shared_ptr<tcp::acceptor> acceptor) {
    for (;;) {
      auto stream = std::make_shared<TcpDuplex>(co_await acceptor->async_accept(asio::use_awaitable));
      asio::co_spawn(context, serve_egress(stream, egress), asio::detached);
    }
  }
  asio::awaitable<void> serve_web(TcpDuplex& stream) {
    ReadAhead ahead(stream);
    ++web_connections;
    while (const auto head = co_await read_head(ahead)) {
      seen_.push_back(*head);
      const RequestHead request = parse_request_head(*head);
      MemoryDuplex body(context);
      co_await copy_body(ahead, body, request_framing(request));
      seen_.back() += body.out;
      if (request.target == "/until-end") {
        co_await stream.write("HTTP/1.1 200 OK\r\n\r\nall");
        co_return;
      }
      if (request.target == "/socket") {
        co_await stream.write("HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nfirst");
        co_await stream.write(co_await ahead.read());
        co_return;
      }
      co_await stream.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nKeep-Alive: x\r\n\r\nbody");
      if (request.target == "/hang-up") co_return;
    }
  }
  static asio::awaitable<void> serve_echo(TcpDuplex& stream) {
    for (;;) {
      const std::string_view bytes = co_await stream.read();
      if (bytes.empty()) break;
      co_await stream.write(bytes);
    }
    co_await stream.end();
  }
  static asio::awaitable<void> greet(TcpDuplex& stream) {
    co_await stream.write("SSH-2.0-x\r\n");
    const std::string answer(co_await stream.read());
    co_await stream.write("got " + answer);
  }

 public:
  std::atomic<int> web_connections{0};

 private:
  std::map<std::string, std::vector<std::string>> names_{{"ok.example", {"127.0.0.1"}},
                                                         {"other.example", {"127.0.0.1"}}};
  std::vector<std::string> looked_up_, seen_;
  std::vector<EgressEvent> events_;
  std::thread thread;
};

const std::vector<std::string> kUsual = {"ok.example:WEB", "ok.example:ECHO", "ok.example:GREET",
                                         "127.0.0.1:WEB",  "127.0.0.1:ECHO",  "127.0.0.1:GREET"};
constexpr const char* kEstablished = "HTTP/1.1 200 Connection established\r\n\r\n";

std::string connect_to(const std::string& target) {
  return "CONNECT " + target + " HTTP/1.1\r\nHost: " + target + "\r\n\r\n";
}

std::string get(const std::string& url, const std::string& host,
                const std::string& fields = "Connection: close\r\n") {
  return "GET " + url + " HTTP/1.1\r\nHost: " + host + "\r\n" + fields + "\r\n";
}

/// What a tunnel to a host does with what the client says: what reached the server, and the refusals.
struct Tunnelled {
  std::string out;
  std::vector<Refusal> refusals;
  std::string told;  // the client
};

Tunnelled tunnel(const std::string& target, std::deque<std::string> in, std::vector<std::string> rules = {}) {
  asio::io_context context;
  MemoryDuplex client(context, std::move(in));
  const auto egress = std::make_shared<Egress>(RuleSet(rules), EgressLimits{}, EgressHooks{});
  auto stream = std::make_unique<MemoryDuplex>(context);
  MemoryDuplex& upstream = *stream;
  Route route{.target = parse_host_port(target), .protocol = "connect", .stream = std::move(stream)};
  route.ahead = std::make_unique<ReadAhead>(*route.stream);
  ReadAhead ahead(client);
  try {
    test::run(context, run_tunnel(ahead, route, egress));
  } catch (const std::exception&) {
  }
  return {upstream.out, egress->refusals_since(0), client.out};
}

Refusal::Reason reason_of(const Tunnelled& result) {
  REQUIRE(result.refusals.size() == 1);
  CHECK(result.out == "");
  return result.refusals[0].reason;
}

}  // namespace

TEST_SUITE("the egress proxy") {
  TEST_CASE("CONNECT reaches what a rule allows, in both directions and to the end") {
    World world(kUsual);
    Client client(world.proxy_port);
    std::string target = "OK.example.:ECHO";
    client.send(connect_to(world.expand(target)));
    CHECK(client.until("\r\n\r\n") == kEstablished);
    client.send("\x01some bytes");
    CHECK(client.receive(11) == "\x01some bytes");
    client.end();
    CHECK(client.rest() == "");
    CHECK(world.refusals().empty());
    CHECK(world.egress->usage().allowed == 1);
    CHECK(world.events().at(0).host == "ok.example");
    CHECK(world.events().at(0).address == "127.0.0.1");
  }

  TEST_CASE("what no rule allows is refused with the rule that is missing, and not even looked up") {
    World world(kUsual);
    const std::string answer = world.ask_for(connect_to("secret-data.evil.example:443"));
    CHECK_CONTAINS(answer,
                   "HTTP/1.1 403 Forbidden (refused: no rule allows secret-data.evil.example:443)\r\n");
    CHECK_CONTAINS(answer,
                   "X-Hutch-Refused: no_rule: no rule allows secret-data.evil.example:443; allow: "
                   "secret-data.evil.example\r\n");
    CHECK_CONTAINS(answer, "sandbox_update with allow: [\"secret-data.evil.example\"]");
    CHECK(world.looked_up().empty());
    (void)world.ask_for(connect_to("secret-data.evil.example:443"));
    const auto refusals = world.refusals();
    REQUIRE(refusals.size() == 1);
    CHECK(refusals[0].count == 2);
    CHECK(refusals[0].rule == "secret-data.evil.example");
    CHECK(world.egress->refusals_since(world.egress->cursor()).empty());
    CHECK(world.events().size() == 2);
  }

  TEST_CASE("rules change while it runs") {
    World world;
    CHECK_CONTAINS(world.ask_for(get("http://ok.example:WEB/", "ok.example:WEB")), " 403 ");
    std::vector<std::string> rules = kUsual;
    for (std::string& rule : rules) world.expand(rule);
    world.egress->set_rules(RuleSet(rules));
    CHECK_CONTAINS(world.ask_for(get("http://ok.example:WEB/", "ok.example:WEB")), " 200 ");
  }

  TEST_CASE(
      "a name at a special address is refused with the address to name, whatever it resolved to before") {
    World world({"ok.example:*"});
    const std::string answer = world.ask_for(connect_to("ok.example:ECHO"));
    CHECK_CONTAINS(answer, " 403 ");
    CHECK_CONTAINS(answer, "is at 127.0.0.1, which is loopback");
    CHECK_CONTAINS(answer, "allow: [\"127.0.0.1:" + std::to_string(world.echo_port) + "\"]");
    CHECK(world.refusals().at(0).reason == Refusal::Reason::special);
    for (const char* address :
         {"169.254.169.254", "10.0.0.1", "::1", "fd00:ec2::254", "64:ff9b::7f00:1", "0.0.0.0"}) {
      world.point("ok.example", address);
      CHECK_CONTAINS(world.ask_for(connect_to("ok.example:80")), " 403 ");
    }
  }

  TEST_CASE("addresses are refused in every form but the plain one of a rule") {
    World world({"127.0.0.1:ECHO", "*"});
    CHECK_CONTAINS(world.ask_for(connect_to("[::ffff:127.0.0.1]:80")), " 403 ");
    CHECK_CONTAINS(world.ask_for(connect_to("169.254.169.254:80")), "a metadata service");
    CHECK_CONTAINS(world.ask_for(connect_to("[::1]:443")), " 403 ");
    for (const char* target :
         {"2130706433:80", "0x7f.0.0.1:80", "0177.0.0.1:80", "127.1:80", "127.0.0.1.:80", "[fe80::1%lo]:80"})
      CHECK_CONTAINS(world.ask_for(connect_to(target)), "HTTP/1.1 400 ");
    CHECK(world.looked_up().empty());
  }

  TEST_CASE("hostile requests are refused, each with an answer and a note") {
    World world(kUsual);
    const std::vector<std::string> requests = {
        "GET http://ok.example@evil.example/ HTTP/1.1\r\nHost: ok.example\r\n\r\n",
        "GET http://ok.example\\@evil.example/ HTTP/1.1\r\nHost: ok.example\r\n\r\n",
        "CONNECT ok.example@evil.example:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        "CONNECT ok.example HTTP/1.1\r\nHost: x\r\n\r\n",
        "CONNECT http://ok.example:443/ HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: ok.example\r\n\r\n",
        "GET https://ok.example/ HTTP/1.1\r\nHost: ok.example\r\n\r\n",
        "GET ftp://ok.example/ HTTP/1.1\r\nHost: ok.example\r\n\r\n",
        "GET file:///etc/passwd HTTP/1.1\r\nHost: ok.example\r\n\r\n",
        "GET http:/// HTTP/1.1\r\nHost: ok.example\r\n\r\n",
        "GET http://ok.example%2eevil/ HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET http://ok.example:80:80/ HTTP/1.1\r\nHost: x\r\n\r\n",
        std::string("GET http://ok.example\0.evil/ HTTP/1.1\r\n\r\n", 42),
        "GET http://ok.example/ HTTP/1.1\nHost: ok.example\n\n",
        "POST http://ok.example/ HTTP/1.1\r\nHost: ok.example\r\nContent-Length: 3\r\nTransfer-Encoding: "
        "chunked\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "CONNECT ok.example:443 HTTP/1.1\r\nHost: ok.example:443\r\nContent-Length: 9\r\n\r\n",
        "GET http://ok.example/ HTTP/1.1\r\nHost: ok.example\r\nX: " + std::string(1 << 20, 'x'),
    };
    for (const std::string& request : requests) {
      CAPTURE(request.substr(0, 80));
      const uint64_t before = world.egress->cursor();
      CHECK_CONTAINS(world.ask_for(request).substr(0, 13), "HTTP/1.1 400 ");
      CHECK(world.egress->cursor() == before + 1);
    }
    CHECK_CONTAINS(world.ask_for(get("http://ok.example:WEB/", "evil.example")), " 403 ");
    CHECK_CONTAINS(world.ask_for(get("http://ok.example:WEB/", "ok.example:1")), " 403 ");
    CHECK_CONTAINS(world.ask_for("CONNECT ok.example:ECHO HTTP/1.1\r\nHost: evil.example\r\n\r\n"), " 403 ");
    CHECK(world.seen().empty());
    CHECK(world.looked_up().empty());
  }

  TEST_CASE("plain requests are passed on as the server wants them, one after the other on one connection") {
    World world(kUsual);
    Client client(world.proxy_port);
    std::string first = get("http://OK.example:WEB/a?b=c", "ok.example:WEB",
                            "Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\n"),
                second =
                    "POST http://ok.example:WEB?q HTTP/1.1\r\nHost: ok.example:WEB\r\nTransfer-Encoding: "
                    "chunked\r\n\r\n3;x\r\nabc\r\n0\r\n\r\n",
                third = get("http://ok.example:WEB/until-end", "ok.example:WEB", "");
    client.send(world.expand(first) + world.expand(second));
    for (int i = 0; i < 2; ++i)
      CHECK(client.until("body") == "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody");
    client.send(world.expand(third));
    CHECK(client.rest() == "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall");
    const std::string host = "Host: ok.example:" + std::to_string(world.web_port) + "\r\n";
    CHECK(world.seen().at(0) == "GET /a?b=c HTTP/1.1\r\n" + host + "\r\n");
    CHECK(world.seen().at(1) ==
          "POST /?q HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    CHECK(world.web_connections == 1);
    CHECK(world.egress->usage().allowed == 3);
  }

  TEST_CASE("each request on a kept connection is checked, and one whose server went away is sent again") {
    World world(kUsual);
    Client client(world.proxy_port);
    std::string hang_up = get("http://ok.example:WEB/hang-up", "ok.example:WEB", ""),
                again = get("http://ok.example:WEB/", "ok.example:WEB", ""),
                other = get("http://other.example:WEB/", "other.example:WEB", "");
    client.send(world.expand(hang_up));
    CHECK_CONTAINS(client.until("body"), " 200 ");
    client.send(world.expand(again));
    CHECK_CONTAINS(client.until("body"), " 200 ");
    CHECK(world.web_connections == 2);
    client.send(world.expand(other));
    CHECK_CONTAINS(client.rest(), " 403 ");
    Client second(world.proxy_port);
    second.send(again);
    CHECK_CONTAINS(second.until("body"), " 200 ");
    world.egress->set_rules(RuleSet());
    second.send(again);
    CHECK_CONTAINS(second.rest(), " 403 ");
  }

  TEST_CASE("WebSockets pass, other protocols are not switched to") {
    World world(kUsual);
    Client client(world.proxy_port);
    std::string socket = get("http://ok.example:WEB/socket", "ok.example:WEB",
                             "Connection: Upgrade\r\nUpgrade: websocket\r\n");
    client.send(world.expand(socket));
    CHECK_CONTAINS(client.until("first"), "HTTP/1.1 101 ");
    client.send("frames");
    CHECK(client.receive(6) == "frames");
    CHECK_CONTAINS(world.ask_for(get("http://ok.example:WEB/socket", "ok.example:WEB",
                                     "Connection: Upgrade\r\nUpgrade: h2c\r\n")),
                   "HTTP/1.1 502 ");
    CHECK_FALSE(contains(world.seen().back(), "h2c"));
  }

  TEST_CASE("SOCKS5 reaches what a rule allows by name and by address, and says 2 to the rest") {
    World world(kUsual);
    const auto ask = [&](const std::string& kind_and_host, uint16_t port) {
      Client client(world.proxy_port);
      client.send("\x05\x01" + std::string(1, '\0'));
      CHECK(client.receive(2) == std::string("\x05\0", 2));
      client.send(std::string("\x05\x01\0", 3) + kind_and_host + number(port, 2));
      const std::string reply = client.receive(10);
      if (reply.at(1) != 0) return static_cast<int>(reply.at(1));
      client.send(
          "\x01"
          "ab");
      CHECK(client.receive(3) ==
            "\x01"
            "ab");
      return 0;
    };
    CHECK(ask("\x03" + counted("OK.example", 1), world.echo_port) == 0);
    CHECK(ask("\x01\x7f" + std::string("\0\0\x01", 3), world.echo_port) == 0);
    CHECK(ask("\x03" + counted("127.0.0.1", 1), world.echo_port) == 0);
    CHECK(ask("\x03" + counted("evil.example", 1), world.echo_port) == 2);
    CHECK(ask("\x03" + counted("ok.example", 1), 1) == 2);
    CHECK(ask("\x03" + counted(std::string("ok.example\0.evil", 16), 1), world.echo_port) == 2);
    CHECK(ask("\x03" + counted("2130706433", 1), world.echo_port) == 2);
    CHECK(world.refusals().size() == 4);
  }

  TEST_CASE("a server that speaks first is heard, and its client after it") {
    World world(kUsual);
    Client client(world.proxy_port);
    std::string request = connect_to("ok.example:GREET");
    client.send(world.expand(request));
    CHECK(client.until("\r\n\r\n") == kEstablished);
    CHECK(client.until("\r\n") == "SSH-2.0-x\r\n");
    client.send("me");
    CHECK(client.receive(6) == "got me");
  }

  TEST_CASE("a person is asked when a rule is missing, and about nothing else") {
    std::vector<std::string> questions;
    EgressHooks hooks;
    hooks.ask = [&](Refusal refusal) -> asio::awaitable<bool> {
      questions.push_back(refusal.host);
      co_return refusal.host == "ok.example";
    };
    World world({"127.0.0.1:ECHO"}, {}, hooks);
    Client client(world.proxy_port);
    std::string request = connect_to("ok.example:ECHO");
    client.send(world.expand(request));
    CHECK(client.until("\r\n\r\n") == kEstablished);
    CHECK_CONTAINS(world.ask_for(connect_to("other.example:80")), " 403 ");
    CHECK_CONTAINS(world.ask_for(connect_to("10.0.0.1:80")), " 403 ");
    CHECK(world.on_io([&] { return questions; }) == std::vector<std::string>{"ok.example", "other.example"});
    CHECK(world.refusals().size() == 2);
  }

  TEST_CASE("connections, bytes and speed have limits") {
    SUBCASE("connections") {
      World world(kUsual, {.max_connections = 1});
      Client first(world.proxy_port);
      std::string request = connect_to("ok.example:ECHO");
      first.send(world.expand(request));
      CHECK(first.until("\r\n\r\n") == kEstablished);
      CHECK_CONTAINS(world.ask_for(request), "HTTP/1.1 503 ");
      first.end();
      CHECK(first.rest() == "");
      while (world.egress->usage().connections > 0) std::this_thread::yield();
      CHECK_CONTAINS(world.ask_for(get("http://ok.example:WEB/", "ok.example:WEB")), " 200 ");
    }
    SUBCASE("bytes") {
      World world(kUsual, {.max_bytes = 1000});
      Client client(world.proxy_port);
      std::string request = connect_to("ok.example:ECHO");
      client.send(world.expand(request));
      CHECK(client.until("\r\n\r\n") == kEstablished);
      client.send(std::string(900, '\x01'));
      CHECK(client.rest().size() <= 1000);
      CHECK_CONTAINS(world.ask_for(request), "egress.max_bytes");
    }
    SUBCASE("speed") {
      World world(kUsual, {.bytes_per_second = 100'000});
      Client client(world.proxy_port);
      std::string request = connect_to("ok.example:ECHO");
      client.send(world.expand(request));
      CHECK(client.until("\r\n\r\n") == kEstablished);
      const auto begin = std::chrono::steady_clock::now();
      client.send(std::string(40'000, '\x01'));
      CHECK(client.receive(40'000).size() == 40'000);
      CHECK(std::chrono::steady_clock::now() - begin > std::chrono::milliseconds(400));
    }
  }

  TEST_CASE("behind another proxy names decide, and that one resolves them") {
    World company(kUsual);
    const std::string at = "http://127.0.0.1:" + std::to_string(company.proxy_port);
    World world({"ok.example:*", "missing.example:*"}, {}, {}, UpstreamProxy::from(at, {}));
    Client client(world.proxy_port);
    std::string request = connect_to("ok.example:ECHO");
    client.send(company.expand(request));
    CHECK(client.until("\r\n\r\n") == kEstablished);
    client.send("\x01 through");
    CHECK(client.receive(9) == "\x01 through");
    CHECK(world.looked_up().empty());
    CHECK(company.looked_up().size() == 1);
    CHECK_CONTAINS(world.ask_for(connect_to("missing.example:22")),
                   "answers 403 to a connection to missing.example:22");
    CHECK_CONTAINS(world.ask_for(connect_to("10.0.0.1:22")), "HTTP/1.1 403 ");
  }

  TEST_CASE("TLS must be for the host that was allowed") {
    const std::string good = hello_for("Ok.Example");
    CHECK(tunnel("ok.example:443", {good}).out == good);
    CHECK(tunnel("ok.example:8443", MemoryDuplex::bytewise(good)).out == good);
    CHECK(reason_of(tunnel("ok.example:443", {hello_for("evil.example")})) == Refusal::Reason::mismatch);
    CHECK(reason_of(tunnel("ok.example:9999", {hello_for("evil.example")})) == Refusal::Reason::mismatch);
    CHECK(reason_of(tunnel("ok.example:443", {hello_for(std::string("ok.example\0", 11))})) ==
          Refusal::Reason::mismatch);
    CHECK(reason_of(tunnel("ok.example:443", {hello_with("")})) == Refusal::Reason::mismatch);
    CHECK(reason_of(tunnel("ok.example:443", {good.substr(0, 20)})) == Refusal::Reason::malformed);
    CHECK(reason_of(tunnel("ok.example:443", {"\x16\x03\x01\xff\xff" + std::string(70'000, 'x')})) ==
          Refusal::Reason::malformed);
    CHECK(tunnel("203.0.113.7:443", {hello_with("")}).out == hello_with(""));
    CHECK(tunnel("203.0.113.7:443", {good}, {"ok.example"}).out == good);
    CHECK(reason_of(tunnel("203.0.113.7:443", {good})) == Refusal::Reason::mismatch);
    CHECK(tunnel("203.0.113.7:443", {good}).refusals.at(0).rule == "ok.example");
    CHECK(tunnel("203.0.113.7:443", {good}).told == std::string("\x15\x03\x01\x00\x02\x02\x31", 7));
  }

  TEST_CASE("the ports 443 and 80 carry TLS or HTTP and nothing else") {
    for (const char* text : {"SSH-2.0-x\r\n", "\x15\x03\x01", "\x80\x2e\x01", "hello", "a b c\r\n"}) {
      CHECK(reason_of(tunnel("ok.example:443", {text})) == Refusal::Reason::malformed);
      CHECK(reason_of(tunnel("ok.example:80", {text})) == Refusal::Reason::malformed);
    }
    CHECK(tunnel("ok.example:22", {"SSH-2.0-x\r\n"}).out == "SSH-2.0-x\r\n");
    CHECK(tunnel("ok.example:11211", {"get key\r\n"}).out == "get key\r\n");
  }

  TEST_CASE("HTTP in a tunnel must be for the host that was allowed, every request of it") {
    const auto http = [](const std::string& text) {
      return tunnel("ok.example:8080", MemoryDuplex::bytewise(text), {"ok.example:8080"});
    };
    CHECK(http("GET / HTTP/1.1\r\nHost: ok.example:8080\r\n\r\n").out ==
          "GET / HTTP/1.1\r\nHost: ok.example:8080\r\n\r\n");
    CHECK(reason_of(http("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n")) == Refusal::Reason::mismatch);
    CHECK(reason_of(http("GET / HTTP/1.1\r\nHost: ok.example:80\r\n\r\n")) == Refusal::Reason::mismatch);
    CHECK(reason_of(http("\r\nGET / HTTP/1.1\r\nHost: evil.example\r\n\r\n")) == Refusal::Reason::malformed);
    CHECK(reason_of(http("get / HTTP/1.1\nHost: evil.example\n\n")) == Refusal::Reason::malformed);
    CHECK(reason_of(http("GET /\xff HTTP/1.1\r\nHost: evil.example\r\n\r\n")) == Refusal::Reason::malformed);
    CHECK(reason_of(http("GET http://evil.example/ HTTP/1.1\r\nHost: ok.example\r\n\r\n")) ==
          Refusal::Reason::malformed);
    CHECK(reason_of(http("CONNECT evil.example:443 HTTP/1.1\r\nHost: ok.example\r\n\r\n")) ==
          Refusal::Reason::malformed);
    CHECK(reason_of(http("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")) == Refusal::Reason::malformed);
    CHECK(recognize("GET") == Speech::undecided);
    CHECK(recognize("\r\n\r\n") == Speech::undecided);
    CHECK(recognize("") == Speech::undecided);
    CHECK(recognize("GET " + std::string(70'000, 'x')) == Speech::http);
  }

  TEST_CASE("a request in a tunnel that is kept is checked like the first") {
    World world({"ok.example:WEB", "127.0.0.1:WEB"});
    Client client(world.proxy_port);
    std::string request = connect_to("ok.example:WEB");
    client.send(world.expand(request));
    CHECK(client.until("\r\n\r\n") == kEstablished);
    client.send(get("/", "ok.example", ""));
    CHECK_CONTAINS(client.until("body"), " 200 ");
    client.send(get("/", "evil.example", ""));
    CHECK_CONTAINS(client.rest(), "HTTP/1.1 403 ");
    CHECK(world.seen().size() == 1);
    CHECK(world.refusals().at(0).reason == Refusal::Reason::mismatch);
  }
}

TEST_SUITE("what egress reads") {
  TEST_CASE("a ClientHello is read over any number of records and reads") {
    const std::string extensions = extension(43, "\x02\x03\x04") + server_name("a.example") +
                                   extension(16, counted(counted("h2", 1) + counted("http/1.1", 1), 2)) +
                                   extension(0xfe0d, "x");
    const std::string hello = hello_with(extensions);
    for (size_t i = 0; i < hello.size(); ++i) CHECK_FALSE(parse_client_hello(hello.substr(0, i)).has_value());
    const auto read = parse_client_hello(hello + "more");
    REQUIRE(read.has_value());
    CHECK(read->server_name == "a.example");
    CHECK(read->protocols == std::vector<std::string>{"h2", "http/1.1"});
    CHECK(read->encrypted_hello);
    std::string split;
    for (const char c : hello.substr(5)) split += std::string("\x16\x03\x01") + counted(std::string(1, c), 2);
    CHECK(parse_client_hello(split)->server_name == "a.example");
    CHECK_FALSE(parse_client_hello(hello_with(""))->server_name.has_value());
  }

  TEST_CASE("a ClientHello with two readings is refused") {
    const std::string name = std::string(1, '\0') + counted("a.example", 2);
    for (const std::string& extensions :
         {server_name("a") + server_name("b"), extension(0, counted(name + name, 2)),
          extension(0, counted(name, 2) + "x"), extension(0, ""), server_name(""),
          extension(0, counted("\x01" + counted("a", 2), 2)), extension(16, "\xff\xff"),
          std::string("\0\0\0", 3)})
      CHECK_THROWS_AS((void)parse_client_hello(hello_with(extensions)), Error);
    std::string hello = hello_for("a.example");
    for (const auto& [at, value] : {std::pair<size_t, char>{1, 2}, {5, 2}, {9, 2}, {3, 0x7f}}) {
      std::string wrong = hello;
      wrong[at] = value;
      CHECK_THROWS_AS((void)parse_client_hello(wrong), Error);
    }
    CHECK_THROWS_AS((void)parse_client_hello(std::string("\x16\x03\x01\0\0", 5)), Error);
    CHECK_THROWS_AS((void)parse_client_hello(std::string("\x16\x03\x01") +
                                             counted("\x01" + counted(std::string(100, 'x'), 3), 2)),
                    Error);
    const std::string endless =
        std::string("\x16\x03\x01") + counted(std::string("\x01\x00\x3f\x00", 4) + std::string(100, 'x'), 2);
    std::string flood;
    for (int i = 0; i < 200; ++i)
      flood += std::string("\x16\x03\x01") + counted(std::string("\x01\x00\x3f\x00", 4), 2);
    CHECK_FALSE(parse_client_hello(endless).has_value());
    CHECK_FALSE(parse_client_hello(flood).has_value());
  }

  TEST_CASE("SOCKS5 is read byte by byte, and what is not CONNECT has its own answer") {
    const auto talk = [](const std::string& bytes) {
      SocksHandshake whole, pieces;
      std::string answer, other;
      const size_t taken = whole.take(bytes, answer);
      size_t count = 0;
      for (const char c : bytes) count += pieces.take({&c, 1}, other);
      CHECK(other == answer);
      CHECK(count == taken);
      return std::pair{answer, whole.done()     ? whole.target().to_string()
                               : whole.failed() ? "failed"
                                                : "waits"};
    };
    const std::string hello("\x05\x01\0", 3), open("\x05\0", 2), request("\x05\x01\0\x03", 4);
    CHECK(talk(hello).second == "waits");
    CHECK(talk(hello + request + counted("A.example", 1) + number(443, 2) + "rest") ==
          std::pair<std::string, std::string>{open, "a.example:443"});
    CHECK(talk(hello + std::string("\x05\x01\0\x04", 4) + std::string(10, '\0') + "\xff\xff\x0a" +
               std::string("\0\0\x01", 3) + number(80, 2))
              .second == "10.0.0.1:80");
    CHECK(talk("\x05\x02\x02\x80" + std::string("\x01\x01u\x01p") + request + counted("a.example", 1) +
               number(1, 2)) ==
          std::pair<std::string, std::string>{std::string("\x05\x02\x01\0", 4), "a.example:1"});
    CHECK(talk("\x05\x01\x80").first == "\x05\xff");
    CHECK(talk("\x04\x01\x80").second == "failed");
    const auto reply = [&](const std::string& rest) {
      return static_cast<int>(talk(hello + rest).first.at(3));
    };
    CHECK(reply(std::string("\x05\x02\0\x01", 4) + "abcdef") == 7);
    CHECK(reply(std::string("\x05\x03\0\x01", 4) + "abcdef") == 7);
    CHECK(reply(std::string("\x05\x01\0\x02", 4) + "abcdef") == 8);
    CHECK(reply(request + counted("a@b", 1) + number(80, 2)) == 2);
    CHECK(reply(request + counted("", 1) + number(80, 2)) == 2);
    CHECK(reply(request + counted("a.example", 1) + number(0, 2)) == 2);
  }

  TEST_CASE("the upstream proxy is read as curl reads it") {
    CHECK(UpstreamProxy::from("none", {{"HTTPS_PROXY", "http://p:1"}}) == nullptr);
    CHECK(UpstreamProxy::from("auto", {}) == nullptr);
    const auto proxy =
        UpstreamProxy::from("auto", {{"HTTPS_PROXY", "http://u%40x:p:w@proxy.example:3128/"},
                                     {"HTTP_PROXY", "http://no"},
                                     {"NO_PROXY", "localhost, .corp.example,10.0.0.0/8 x.example."}});
    CHECK(proxy->at().to_string() == "proxy.example:3128");
    CHECK(proxy->connect_request(parse_host_port("a.example:443")) ==
          "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\nProxy-Authorization: Basic "
          "dUB4OnA6dw==\r\n\r\n");
    for (const char* host : {"localhost", "corp.example", "a.corp.example", "10.1.2.3", "x.example"})
      CHECK(proxy->is_bypassed(parse_host(host)));
    for (const char* host : {"evilcorp.example", "11.1.2.3", "a.example"})
      CHECK_FALSE(proxy->is_bypassed(parse_host(host)));
    CHECK(UpstreamProxy::from("auto", {{"https_proxy", "p.example:1"}, {"NO_PROXY", "*"}})
              ->is_bypassed(parse_host("a.example")));
    for (const char* wrong :
         {"https://p.example:1", "socks5://p.example:1", "http://secret:s3cr3t@", "http://a b:1"}) {
      const std::string text = test::error_of([&] { (void)UpstreamProxy::from(wrong, {}); });
      CHECK_CONTAINS(text, "egress.upstream_proxy");
      CHECK_FALSE(contains(text, "s3cr3t"));
    }
  }

  TEST_CASE("names are resolved aside, and who waits for too long is told") {
    asio::io_context context;
    Resolver resolver(context.get_executor(), 2, 1);
    const auto addresses =
        test::run(context, resolver.resolve("localhost", &context, std::chrono::seconds(60)));
    REQUIRE_FALSE(addresses.empty());
    for (const Address& address : addresses) CHECK(address.is_loopback());
    Resolver stuck(context.get_executor(), 0);
    CHECK_CONTAINS(test::error_of([&] {
                     (void)test::run(context,
                                     stuck.resolve("a.example", &context, std::chrono::milliseconds(1)));
                   }),
                   "the name a.example was not resolved within 1 ms");
  }
}
