#include "net/secret_exchange.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <asio/system_error.hpp>

#include "net/http_body.h"
#include "net/secret_text.h"
#include "streams.h"
#include "support.h"

using namespace hutch;
using test::contains;

namespace {

constexpr const char* kValue = "canary/\"0123456789";

using Script = std::function<asio::awaitable<void>(net::Duplex&)>;

std::map<std::string, config::Secret> configured() {
  const std::vector<std::string> command{"printf", "%s", kValue};
  std::map<std::string, config::Secret> out;
  out["BEARER"] = {.command = command, .hosts = {"api.test"}};
  out["HEADER"] = {.command = command, .hosts = {"api.test"}, .form = "header", .header = "X-Api-Key"};
  out["QUERY"] = {.command = command, .hosts = {"api.test"}, .form = "query", .parameter = "key"};
  out["LOGIN"] = {.command = {"printf", "user:canary-0123456789"}, .hosts = {"api.test"}, .form = "basic"};
  out["BODY"] = {.command = command, .hosts = {"body.test"}, .in_body = true};
  out["OTHER"] = {.command = {"printf", "other-canary-9876"}, .hosts = {"other.test"}};
  out["BROKEN"] = {.command = {"sh", "-c", "echo canary-0123456789; exit 7"},
                   .hosts = {"api.test"},
                   .form = "header",
                   .header = "X-Broken"};
  return out;
}

/// A sandbox's client, the exchange, and a server outside that reads and says what a test wants.
class World {
 public:
  asio::io_context io;
  test::ScratchFolder home, internet;
  net::CertificateAuthority authority{internet.path()};
  net::SecretExchange exchange{home.path(), internet.path() + "/ca/cert.pem"};
  std::shared_ptr<net::SecretStore> store = std::make_shared<net::SecretStore>(configured());
  std::shared_ptr<const net::Secrets> secrets = std::make_shared<net::Secrets>(
      store,
      net::Secrets::new_environment({"BEARER", "HEADER", "QUERY", "LOGIN", "BODY", "OTHER", "BROKEN"}));
  std::string host = "api.test", server_name = "api.test", asked_name;

  std::string refused;   // what inspect() threw
  std::string received;  // by the server
  int connections = 0;
  Script server;

  std::string placeholder(const std::string& name) const { return secrets->environment().at(name); }

  void run(Script client) {
    test::Pair inside(io);
    test::run(io, {[&]() -> asio::awaitable<void> {
                     const net::TlsConnector connector(home.path() + "/ca/cert.pem");
                     const auto tls =
                         co_await connector.connect(*inside.a, asked_name.empty() ? host : asked_name);
                     co_await client(*tls);
                     inside.a->close();
                   },
                   [&]() -> asio::awaitable<void> {
                     try {
                       co_await exchange.inspect(*inside.b, secrets, host, 443, [&] { return connect(); });
                     } catch (const Error& error) {
                       refused = error_text(error);
                     }
                     inside.b->close();
                   }});
  }
  /// Sends it and returns all of the answer; the server answers with `answer`.
  std::string ask(const std::string& request, const std::string& answer = kOk) {
    server = [this, answer](net::Duplex& stream) -> asio::awaitable<void> {
      co_await read_request(stream);
      co_await stream.write(answer);
      co_await stream.end();
    };
    std::string got;
    run([&](net::Duplex& stream) -> asio::awaitable<void> {
      co_await stream.write(request);
      got = co_await test::read_to_end(stream);
    });
    return got;
  }
  std::string get(const std::string& fields, const std::string& target = "/") {
    return ask(
        fmt::format("GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{}\r\n", target, host, fields));
  }
  /// One request, whole, into `received`.
  asio::awaitable<void> read_request(net::Duplex& stream) {
    net::ReadAhead from(stream);
    const auto head = co_await net::read_head(from);
    if (!head) co_return;
    received += *head;
    const auto framing = net::request_framing(net::parse_request_head(*head));
    for (uint64_t left = framing.length; left > 0;) {
      const std::string_view bytes = co_await from.read();
      if (bytes.empty()) co_return;
      received += bytes;
      left -= bytes.size();
    }
  }

  static constexpr const char* kOk = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

 private:
  asio::awaitable<std::unique_ptr<net::Duplex>> connect() {
    ++connections;
    test::Pair pair(io);
    std::shared_ptr<net::TcpDuplex> far = std::move(pair.b);
    asio::co_spawn(
        io,
        [this, far]() -> asio::awaitable<void> {
          try {
            const auto tls = co_await acceptor_.accept(*far, host, *authority.identity_for(server_name));
            co_await server(*tls);
          } catch (const std::exception&) {
          }
          far->close();
        },
        asio::detached);
    co_return std::move(pair.a);
  }

  net::TlsAcceptor acceptor_;
};

}  // namespace

TEST_SUITE("secret exchange") {
  TEST_CASE("a placeholder becomes the value in the place of its form") {
    World world;
    SUBCASE("bearer") {
      CHECK_CONTAINS(world.get("Authorization: Bearer " + world.placeholder("BEARER") + "\r\n"), "ok");
      CHECK_CONTAINS(world.received, fmt::format("Authorization: Bearer {}\r\n", kValue));
    }
    SUBCASE("header, whatever its case") {
      CHECK_CONTAINS(world.get("x-api-KEY: v1 " + world.placeholder("HEADER") + "\r\n"), "ok");
      CHECK_CONTAINS(world.received, fmt::format("x-api-KEY: v1 {}\r\n", kValue));
    }
    SUBCASE("query, escaped") {
      CHECK_CONTAINS(world.get("", "/a?q=1&key=" + world.placeholder("QUERY") + "&z=2"), "ok");
      CHECK_CONTAINS(world.received, "GET /a?q=1&key=canary%2F%220123456789&z=2 HTTP/1.1\r\n");
    }
    SUBCASE("basic, name and password in one") {
      const std::string coded = net::base64_encode(world.placeholder("LOGIN") + ":");
      CHECK_CONTAINS(world.get("Authorization: Basic " + coded + "\r\n"), "ok");
      CHECK_CONTAINS(world.received,
                     "Authorization: Basic " + net::base64_encode("user:canary-0123456789") + "\r\n");
    }
    CHECK(world.refused == "");
    CHECK_FALSE(contains(world.received, "hutch-secret-"));
  }

  TEST_CASE("anywhere else a placeholder stays what it is, and so does one of another host") {
    World world;
    const std::string bearer = world.placeholder("BEARER"), other = world.placeholder("OTHER");
    const std::string answer =
        world.ask(fmt::format("POST /{0}?other={0} HTTP/1.1\r\nHost: api.test\r\nX-Other: {0}\r\n"
                              "Authorization: Bearer {1}\r\nX-Api-Key: {0}\r\nConnection: close\r\n"
                              "Content-Length: {2}\r\n\r\n{0}",
                              bearer, other, bearer.size()));
    CHECK_CONTAINS(answer, "ok");
    CHECK_CONTAINS(world.received, "POST /" + bearer + "?other=" + bearer);
    CHECK_CONTAINS(world.received, "X-Other: " + bearer);
    CHECK_CONTAINS(world.received, "X-Api-Key: " + bearer);
    CHECK_CONTAINS(world.received, "Authorization: Bearer " + other);
    CHECK(world.received.ends_with(bearer));
    CHECK_FALSE(contains(world.received, "canary"));
    CHECK(world.store->known("BEARER") == nullptr);
  }

  TEST_CASE("another sandbox's placeholder stays what it is") {
    World world;
    const std::string theirs = net::Secrets::new_environment({"BEARER"}).at("BEARER");
    CHECK_CONTAINS(world.get("Authorization: Bearer " + theirs + "\r\n"), "ok");
    CHECK_CONTAINS(world.received, "Bearer " + theirs);
  }

  TEST_CASE("a body is changed only where that was asked for, and its length with it") {
    World world;
    world.host = world.server_name = "body.test";
    const std::string placeholder = world.placeholder("BODY");
    const auto post = [&](const std::string& type, const std::string& body) {
      world.received.clear();
      return world.ask(
          fmt::format("POST / HTTP/1.1\r\nHost: body.test\r\nContent-Type: {}\r\nConnection: close\r\n"
                      "Expect: 100-continue\r\nContent-Length: {}\r\n\r\n{}",
                      type, body.size(), body));
    };
    CHECK_CONTAINS(post("text/plain", "a=" + placeholder), "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK");
    CHECK_CONTAINS(world.received, fmt::format("Content-Length: {}\r\n", 2 + std::string(kValue).size()));
    CHECK(world.received.ends_with(fmt::format("\r\n\r\na={}", kValue)));
    CHECK_FALSE(contains(world.received, "Expect"));
    CHECK_CONTAINS(post("application/json", "{\"key\":\"" + placeholder + "\"}"), "200 OK");
    CHECK(world.received.ends_with("{\"key\":\"canary/\\\"0123456789\"}"));
    CHECK_CONTAINS(post("application/x-www-form-urlencoded", "key=" + placeholder), "200 OK");
    CHECK(world.received.ends_with("key=canary%2F%220123456789"));
    // What is too long to be held passes as it is.
    CHECK_CONTAINS(post("text/plain", placeholder + std::string(1 << 20, 'x')), "200 OK");
    CHECK_CONTAINS(world.received, placeholder);
  }

  TEST_CASE("a value that a server repeats is hidden, however it is cut, coded and framed") {
    World world;
    const std::string login = net::base64_encode("user:canary-0123456789");
    const std::string echo = fmt::format("1 {} 2 {} 3 {} 4 {} 5 canary-0123456789 6", kValue,
                                         "canary%2F%220123456789", "canary/\\\"0123456789", login);
    const auto answer_of = [&](const std::string& head, const std::string& body, size_t piece) {
      world.server = [&, head, body, piece](net::Duplex& stream) -> asio::awaitable<void> {
        co_await world.read_request(stream);
        co_await stream.write("HTTP/1.1 103 Early Hints\r\nX-Early: " + std::string(kValue) + "\r\n\r\n");
        const std::string text =
            "HTTP/1.1 200 " + std::string(kValue) + "\r\nX-Echo: " + kValue + "\r\n" + head + "\r\n" + body;
        for (size_t at = 0; at < text.size(); at += piece) co_await stream.write(text.substr(at, piece));
        co_await stream.end();
      };
      std::string got;
      world.run([&](net::Duplex& stream) -> asio::awaitable<void> {
        co_await stream.write(
            fmt::format("GET /?key={} HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n"
                        "Authorization: Basic {}\r\n\r\n",
                        world.placeholder("QUERY"), net::base64_encode(world.placeholder("LOGIN"))));
        got = co_await test::read_to_end(stream);
      });
      return got;
    };
    for (const size_t piece : {1000, 7, 1}) {
      const std::string whole = answer_of(fmt::format("Content-Length: {}\r\n", echo.size()), echo, piece);
      std::string chunked;
      for (size_t at = 0; at < echo.size(); at += 5)
        chunked += fmt::format("{:x}\r\n{}\r\n", echo.substr(at, 5).size(), echo.substr(at, 5));
      const std::string chunks = answer_of("Transfer-Encoding: chunked\r\n", chunked + "0\r\n\r\n", piece);
      const std::string until_end = answer_of("", echo, piece);
      for (const std::string& got : {whole, chunks, until_end}) {
        CHECK_CONTAINS(got, "X-Early: ******************\r\n");
        CHECK_CONTAINS(got, "HTTP/1.1 200 ******************\r\n");
        CHECK_CONTAINS(got, "X-Echo: ******************\r\n");
        CHECK_FALSE(contains(got, "canary"));
        CHECK_FALSE(contains(got, login));
        CHECK_FALSE(contains(got, "0123456789"));
      }
      CHECK_CONTAINS(whole, fmt::format("Content-Length: {}\r\n", echo.size()));
      CHECK_CONTAINS(whole, "\r\n\r\n1 ****************** 2 ");
      CHECK(whole.ends_with(" 6"));
      CHECK(chunks.ends_with("0\r\n\r\n"));
      CHECK(until_end.ends_with(" 6"));
    }
    CHECK_CONTAINS(world.received, "Accept-Encoding: identity");
    CHECK(world.refused == "");
  }

  TEST_CASE("a compressed answer to a request with a secret is refused, to others it passes") {
    World world;
    const char* const answer = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd";
    const auto ask = [&](const std::string& fields) {
      return world.ask("GET / HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n" + fields + "\r\n", answer);
    };
    CHECK_CONTAINS(ask(""), "abcd");
    const std::string refused = ask("X-Api-Key: " + world.placeholder("HEADER") + "\r\n");
    CHECK_CONTAINS(refused, "HTTP/1.1 502");
    CHECK_CONTAINS(refused, "compresses its answer");
    CHECK_CONTAINS(world.refused, "compresses its answer");
  }

  TEST_CASE("requests follow each other on one connection, until either side wants no more") {
    World world;
    world.server = [&](net::Duplex& stream) -> asio::awaitable<void> {
      for (int i = 0; i < 3; ++i) {
        co_await world.read_request(stream);
        co_await stream.write(World::kOk);
      }
      co_await stream.end();  // while nobody asks
    };
    int answers = 0;
    bool closed = false;
    world.run([&](net::Duplex& stream) -> asio::awaitable<void> {
      net::ReadAhead from(stream);
      for (int i = 0; i < 3; ++i) {
        co_await stream.write(
            "GET / HTTP/1.1\r\nHost: API.test:443\r\nX-Api-Key: " + world.placeholder("HEADER") + "\r\n\r\n");
        answers += (co_await net::read_head(from))->starts_with("HTTP/1.1 200") ? 1 : 0;
        while ((co_await from.read()) != "ok") {
        }
      }
      try {
        closed = (co_await from.read()).empty();
      } catch (const asio::system_error&) {
        closed = true;
      }
    });
    CHECK(answers == 3);
    CHECK(closed);
    CHECK(world.connections == 1);
    CHECK(world.refused == "");
  }

  TEST_CASE("bytes that come one by one make the same request") {
    World world;
    world.server = [&](net::Duplex& stream) -> asio::awaitable<void> {
      co_await world.read_request(stream);
      co_await stream.write(World::kOk);
      co_await stream.end();
    };
    world.run([&](net::Duplex& stream) -> asio::awaitable<void> {
      const std::string request = "GET / HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\nX-Api-Key: " +
                                  world.placeholder("HEADER") + "\r\n\r\n";
      for (const char c : request) co_await stream.write(std::string(1, c));
      CHECK_CONTAINS(co_await test::read_to_end(stream), "ok");
    });
    CHECK_CONTAINS(world.received, fmt::format("X-Api-Key: {}\r\n", kValue));
  }

  TEST_CASE(
      "a request for another host, with another name or of another kind is refused before anybody is asked") {
    World world;
    CHECK_CONTAINS(world.ask("GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n"), "HTTP/1.1 421");
    CHECK_CONTAINS(world.refused, "the request to another host");
    CHECK_CONTAINS(world.ask("GET http://api.test/ HTTP/1.1\r\nHost: api.test\r\n\r\n"), "HTTP/1.1 400");
    CHECK_CONTAINS(world.ask("CONNECT evil.test:443 HTTP/1.1\r\nHost: api.test\r\n\r\n"), "HTTP/1.1 400");
    CHECK_CONTAINS(world.ask("GET / HTTP/1.0\r\n\r\n"), "HTTP/1.1 400");
    CHECK_CONTAINS(world.ask("nonsense\r\n\r\n"), "HTTP/1.1");
    CHECK(world.connections == 0);
  }

  TEST_CASE("a client that asks TLS for another name is refused") {
    World world;
    world.asked_name = "evil.test";
    CHECK_CONTAINS(test::error_of([&] { world.get(""); }), "unrecognized name");
    CHECK_CONTAINS(world.refused, "api.test");
    CHECK(world.connections == 0);
  }

  TEST_CASE("a server that is somebody else gets nothing of a request") {
    World world;
    world.server_name = "evil.test";
    const std::string answer = world.get("X-Api-Key: " + world.placeholder("HEADER") + "\r\n");
    CHECK_CONTAINS(answer, "HTTP/1.1 502");
    CHECK_CONTAINS(answer, "hostname mismatch");
    CHECK_CONTAINS(world.refused, "hostname mismatch");
    CHECK(world.received == "");
    CHECK_FALSE(contains(answer + world.refused, "canary"));
  }

  TEST_CASE("a secret that cannot be read is said, without anything of it, and the server is not asked") {
    World world;
    const std::string answer = world.get("X-Broken: " + world.placeholder("BROKEN") + "\r\n");
    CHECK_CONTAINS(answer, "HTTP/1.1 502");
    CHECK_CONTAINS(answer, "exit code 7");
    CHECK_CONTAINS(answer, "secrets.BROKEN.command");
    CHECK_FALSE(contains(answer + world.refused, "canary"));
    CHECK(world.connections == 0);
  }

  TEST_CASE("a server that says nothing, breaks off or makes no sense is an error of its own") {
    World world;
    CHECK_CONTAINS(world.ask("GET / HTTP/1.1\r\nHost: api.test\r\n\r\n", ""), "HTTP/1.1 502");
    CHECK_CONTAINS(world.ask("GET / HTTP/1.1\r\nHost: api.test\r\n\r\n", "SSH-2.0-x\r\n\r\n"), "is no HTTP");
    std::string got;
    bool cut = false;
    world.server = [&](net::Duplex& stream) -> asio::awaitable<void> {
      co_await world.read_request(stream);
      co_await stream.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
    };
    world.run([&](net::Duplex& stream) -> asio::awaitable<void> {
      co_await stream.write("GET / HTTP/1.1\r\nHost: api.test\r\n\r\n");
      try {
        for (;;) {
          const std::string_view bytes = co_await stream.read();
          if (bytes.empty()) break;
          got += bytes;
        }
      } catch (const asio::system_error&) {
        cut = true;
      }
    });
    CHECK(got.ends_with("half"));
    CHECK(cut);
  }

  TEST_CASE("a server that answers before it has read all is heard") {
    World world;
    world.server = [&](net::Duplex& stream) -> asio::awaitable<void> {
      (void)co_await stream.read();
      co_await stream.write("HTTP/1.1 413 Too much\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
      co_await stream.end();
    };
    std::string got;
    world.run([&](net::Duplex& stream) -> asio::awaitable<void> {
      co_await stream.write("PUT / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 20000000\r\n\r\n");
      const std::string piece(100'000, 'x');
      for (int i = 0; i < 200; ++i) co_await stream.write(piece);
      got = co_await test::read_to_end(stream);
    });
    CHECK_CONTAINS(got, "HTTP/1.1 413 Too much");
  }

  TEST_CASE("large bodies pass in both directions") {
    World world;
    const size_t size = 3'000'000;
    const std::string body(size, 'c');  // the first letter of what is hidden
    const std::string answer =
        world.ask(fmt::format("POST / HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\nX-Api-Key: {}\r\n"
                              "Content-Length: {}\r\n\r\n{}",
                              world.placeholder("HEADER"), size, body),
                  fmt::format("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", size, body));
    CHECK((answer.substr(answer.size() - size) == body));
    CHECK((world.received.substr(world.received.size() - size) == body));
  }

  TEST_CASE("a WebSocket passes after its heads") {
    World world;
    world.server = [&](net::Duplex& stream) -> asio::awaitable<void> {
      co_await world.read_request(stream);
      co_await stream.write(
          "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello");
      const std::string heard = co_await test::read_to_end(stream);
      co_await stream.write("heard " + heard);
      co_await stream.end();
    };
    std::string got;
    world.run([&](net::Duplex& stream) -> asio::awaitable<void> {
      co_await stream.write(
          "GET / HTTP/1.1\r\nHost: api.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-Api-Key: " +
          world.placeholder("HEADER") + "\r\n\r\nping");
      co_await stream.end();
      got = co_await test::read_to_end(stream);
    });
    CHECK_CONTAINS(world.received, "Upgrade: websocket\r\nConnection: Upgrade");
    CHECK_CONTAINS(world.received, kValue);
    CHECK_CONTAINS(got, "HTTP/1.1 101");
    CHECK(got.ends_with("helloheard ping"));
  }
}
