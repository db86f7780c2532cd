#include "net/http_body.h"
#include "net/http_head.h"
#include "net_support.h"

namespace {

using namespace hutch;
using namespace hutch::net;
using hutch::test::MemoryDuplex;

RequestHead request(const std::string& lines) {
  return parse_request_head(lines + "\r\n");
}

ResponseHead response(const std::string& lines) {
  return parse_response_head(lines + "\r\n");
}

/// The status and text with which a request is refused.
std::string refusal(const std::string& head) {
  try {
    const size_t length = head_length(head);
    if (length == 0) return "incomplete";
    (void)parse_request_head(head.substr(0, length));
  } catch (const BadHttp& error) {
    return std::to_string(error.status()) + " " + error.what();
  }
  return "accepted";
}

std::string refusal_of_fields(const std::string& fields) {
  return refusal("GET / HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n");
}

struct Copied {
  std::string out, rest;
};

Copied copy(std::deque<std::string> in, const BodyFraming& framing) {
  asio::io_context context;
  MemoryDuplex from(context, std::move(in)), to(context);
  ReadAhead ahead(from);
  test::run(context, copy_body(ahead, to, framing));
  Copied copied{to.out, {}};
  for (;;) {
    const std::string_view bytes = test::run(context, ahead.read());
    if (bytes.empty()) return copied;
    copied.rest += bytes;
  }
}

constexpr BodyFraming kChunked{BodyFraming::Kind::chunked};

}  // namespace

TEST_SUITE("HTTP heads and bodies") {
  TEST_CASE("a request is read and written") {
    const std::string text =
        "GET http://example.com/a?b HTTP/1.1\r\nHost: example.com\r\nX-Empty:\r\nAccept: \t*/* \r\n\r\n";
    const RequestHead head = parse_request_head(text);
    CHECK(head.method == "GET");
    CHECK(head.target == "http://example.com/a?b");
    CHECK(head.minor == 1);
    CHECK(*head.fields.find("HOST") == "example.com");
    CHECK(*head.fields.find("accept") == "*/*");
    CHECK(*head.fields.find("x-empty") == "");
    CHECK(head.fields.find("x") == nullptr);
    CHECK(head.keeps_alive());
    CHECK(parse_request_head(head.to_string()) == head);
  }

  TEST_CASE("an answer is read and written, with or without a reason") {
    for (const char* line :
         {"HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 \r\n", "HTTP/1.1 200\r\n", "HTTP/1.0 404 Not Found\r\n"}) {
      const ResponseHead head = response(std::string(line) + "Server: x\r\n");
      CHECK(parse_response_head(head.to_string()) == head);
    }
    CHECK(response("HTTP/1.0 404 Not Found\r\n").reason == "Not Found");
    CHECK(response("HTTP/1.1 200\r\n").status == 200);
    for (const char* line : {"HTTP/1.1 20 OK\r\n", "HTTP/1.1 999 x\r\n", "HTTP/1.1  200 x\r\n",
                             "HTTP/2 200\r\n", "ICY 200 OK\r\n", "HTTP/1.1 2x0 OK\r\n"})
      CHECK_THROWS_AS((void)response(line), BadHttp);
  }

  TEST_CASE("a head is found as soon as it is whole, and what follows is not part of it") {
    const std::string head = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for (size_t i = 0; i < head.size(); ++i) CHECK(head_length(head.substr(0, i)) == 0);
    CHECK(head_length(head) == head.size());
    CHECK(head_length(head + "\nbody\0") == head.size());
    CHECK(head_length(head, head.size() - 1) == head.size());
  }

  TEST_CASE("whatever two readers could take differently is refused") {
    CHECK(refusal("GET / HTTP/1.1\nHost: a\r\n\r\n") == "400 a line ends with a bare LF");
    CHECK(refusal("GET / HTTP/1.1\r\nHost: a\n\n") == "400 a line ends with a bare LF");
    CHECK(refusal("GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n") == "400 there is a bare CR in the head");
    CHECK(refusal("GET / HTTP/1.1\r\nHost: a\r\r\n\r\n") == "400 there is a bare CR in the head");
    CHECK(refusal("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n") == "400 the first line is empty");
    CHECK(refusal("\nGET") == "400 a line ends with a bare LF");
    CHECK(refusal(std::string("GET / HTTP/1.1\r\nHost: a\0b", 25)) == "400 there is a NUL in the head");
    CHECK(refusal_of_fields(" X: b\r\n") == "400 a field is folded over several lines");
    CHECK(refusal_of_fields("X: a\r\n\tb\r\n") == "400 a field is folded over several lines");
    CHECK_CONTAINS(refusal_of_fields("Content-Length : 5\r\n"), "400 the name of a field");
    CHECK_CONTAINS(refusal_of_fields("Content-Length\t: 5\r\n"), "400 the name of a field");
    CHECK_CONTAINS(refusal_of_fields(": x\r\n"), "400 the name of a field");
    CHECK_CONTAINS(refusal_of_fields("H\xc3\xb6st: x\r\n"), "400 the name of a field");
    CHECK(refusal_of_fields("nothing\r\n") == "400 a field has no colon");
    CHECK(refusal_of_fields("X: \x01\r\n") == "400 a field has a control character");
    CHECK(refusal_of_fields("X: \x7f\r\n") == "400 a field has a control character");
    CHECK(refusal_of_fields("Host: a\r\n") == "400 there is more than one Host");
    CHECK(refusal_of_fields("hOST: a\r\n") == "400 there is more than one Host");
    CHECK(refusal("GET / HTTP/1.1\r\n\r\n") == "400 there is no Host");
    CHECK(refusal("GET / HTTP/1.0\r\n\r\n") == "accepted");
  }

  TEST_CASE("a request line has one form") {
    const auto line = [](const std::string& text) { return refusal(text + "\r\nHost: a\r\n\r\n"); };
    CHECK(line("M-SEARCH /a%20b?q={x}|y HTTP/1.1") == "accepted");
    for (const char* wrong :
         {"GET  / HTTP/1.1", " GET / HTTP/1.1", "GET /a b HTTP/1.1", "GET / HTTP/1.1 ", "GET / HTTP/1.2",
          "GET / http/1.1", "GET /", "PRI * HTTP/2.0", "GET / HTTP/1.10"})
      CHECK_CONTAINS(line(wrong), "505 ");
    CHECK_CONTAINS(line("GET\t/ / HTTP/1.1"), "400 the method");
    CHECK_CONTAINS(line("G(T / HTTP/1.1"), "400 the method");
    CHECK_CONTAINS(line(std::string(33, 'A') + " / HTTP/1.1"), "400 the method");
    CHECK_CONTAINS(line("GET /a#b HTTP/1.1"), "400 the target");
    CHECK_CONTAINS(line("GET /\xc3\xa4 HTTP/1.1"), "400 the target");
    CHECK_CONTAINS(line("GET /\t HTTP/1.1"), "400 the target");
  }

  TEST_CASE("heads and fields have a limit") {
    const std::string begin = "GET / HTTP/1.1\r\nHost: a\r\n";
    CHECK_CONTAINS(refusal(begin + "X: " + std::string(1 << 20, 'x')), "431 the head is longer");
    CHECK(refusal(begin + "X: " + std::string(60'000, 'x') + "\r\n\r\n") == "accepted");
    std::string fields;
    for (size_t i = 1; i < kMaxFields; ++i) fields += "X: y\r\n";
    CHECK(refusal_of_fields(fields) == "accepted");
    CHECK_CONTAINS(refusal_of_fields(fields + "X: y\r\n"), "431 there are more than 128 fields");
  }

  TEST_CASE("the length of a body is said once and in one way") {
    const auto framing = [](const std::string& fields) {
      return request_framing(request("POST / HTTP/1.1\r\nHost: a\r\n" + fields));
    };
    CHECK(framing("") == BodyFraming{});
    CHECK(framing("Content-Length: 0005\r\n") == BodyFraming{BodyFraming::Kind::length, 5});
    CHECK(framing("Transfer-Encoding: Chunked\r\n") == kChunked);
    CHECK_CONTAINS(refusal_of_fields("Content-Length: 5\r\nContent-Length: 5\r\n"),
                   "400 there is more than one");
    for (const char* wrong : {"5, 5", "+5", "-1", "0x5", "5 5", "", "1234567890123456789", "5;"})
      CHECK(refusal_of_fields("Content-Length: " + std::string(wrong) + "\r\n") ==
            "400 Content-Length is no number");
    CHECK_CONTAINS(refusal_of_fields("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
                   "400 Content-Length and");
    CHECK_CONTAINS(refusal_of_fields("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
                   "400 there is more");
    for (const char* wrong :
         {"gzip, chunked", "chunked, identity", "identity", "xchunked", "\"chunked\"", "chunked;q=1", ""})
      CHECK_CONTAINS(refusal_of_fields("Transfer-Encoding: " + std::string(wrong) + "\r\n"), "501 ");
    CHECK_CONTAINS(refusal("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), "400 HTTP/1.0 has no");
    CHECK_CONTAINS(refusal_of_fields("Connection: close, content-length\r\n"), "400 Connection names");
  }

  TEST_CASE("the body of an answer depends on the request and the status") {
    const auto framing = [](const std::string& lines, const char* method = "GET") {
      return response_framing(response(lines), method);
    };
    using Kind = BodyFraming::Kind;
    CHECK(framing("HTTP/1.1 200 OK\r\n").kind == Kind::until_end);
    CHECK(framing("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n") == BodyFraming{Kind::length, 3});
    CHECK(framing("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n") == kChunked);
    CHECK(framing("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n", "HEAD").kind == Kind::none);
    CHECK(framing("HTTP/1.1 304 x\r\nContent-Length: 3\r\n").kind == Kind::none);
    CHECK(framing("HTTP/1.1 204 x\r\nContent-Length: 0\r\n").kind == Kind::none);
    CHECK(framing("HTTP/1.1 100 Continue\r\n").kind == Kind::none);
    CHECK(framing("HTTP/1.1 101 x\r\nUpgrade: websocket\r\n").kind == Kind::tunnel);
    CHECK(framing("HTTP/1.1 200 x\r\nContent-Length: 3\r\n", "CONNECT").kind == Kind::tunnel);
    CHECK(framing("HTTP/1.1 403 x\r\nContent-Length: 3\r\n", "CONNECT") == BodyFraming{Kind::length, 3});
    CHECK_THROWS_AS((void)framing("HTTP/1.1 204 x\r\nContent-Length: 3\r\n"), BadHttp);
    CHECK_THROWS_AS((void)framing("HTTP/1.1 100 x\r\nTransfer-Encoding: chunked\r\n"), BadHttp);
    CHECK_THROWS_AS((void)framing("HTTP/1.1 200 x\r\nContent-Length: 3\r\nContent-Length: 4\r\n"), BadHttp);
  }

  TEST_CASE("fields are set, removed and found without case, and nothing can be smuggled in by one") {
    HttpFields fields = request("GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nB: 2\r\nx-a: 3\r\n").fields;
    fields.set("X-a", "new");
    CHECK(fields.all().size() == 3);
    CHECK(fields.all()[1] == HttpField{"X-a", "new"});
    fields.set("C", "c");
    CHECK(fields.all().back() == HttpField{"C", "c"});
    fields.remove("x-A");
    CHECK(fields.find("X-A") == nullptr);
    CHECK_THROWS_AS(fields.set("A", "b\r\nEvil: 1"), BadHttp);
    CHECK_THROWS_AS(fields.add("A: b\r\nEvil", "1"), BadHttp);
    CHECK_THROWS_AS(fields.set("A", std::string("b\0c", 3)), BadHttp);
    CHECK(fields.all().size() == 3);
  }

  TEST_CASE("what is between two neighbours only is removed, with what Connection names") {
    RequestHead head = request(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: 5\r\nTE: "
        "trailers\r\n"
        "Proxy-Authorization: Basic eA==\r\nProxy-Connection: close\r\nUpgrade: h2c\r\nTransfer-Encoding: "
        "chunked\r\n"
        "Accept: b\r\n");
    head.fields.remove_hop_by_hop();
    CHECK(head.to_string() == "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nAccept: b\r\n\r\n");
  }

  TEST_CASE("connections are kept as the version and Connection say") {
    CHECK_FALSE(request("GET / HTTP/1.0\r\n").keeps_alive());
    CHECK(request("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n").keeps_alive());
    CHECK_FALSE(request("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n").keeps_alive());
    CHECK(request("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n")
              .wants_websocket());
    CHECK_FALSE(
        request("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n").wants_websocket());
    CHECK_FALSE(request("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n").wants_websocket());
  }

  TEST_CASE("heads that follow each other are read one by one, however they come") {
    const std::string a = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n", b = "GET /b HTTP/1.1\r\nHost: b\r\n\r\n";
    for (const auto& in : {std::deque<std::string>{a + b}, MemoryDuplex::bytewise(a + b)}) {
      asio::io_context context;
      MemoryDuplex stream(context, in);
      ReadAhead ahead(stream);
      CHECK(test::run(context, read_head(ahead)) == a);
      CHECK(test::run(context, read_head(ahead)) == b);
      CHECK(test::run(context, read_head(ahead)) == std::nullopt);
    }
    asio::io_context context;
    MemoryDuplex cut(context, {a.substr(0, 9)});
    ReadAhead ahead(cut);
    CHECK_THROWS_AS((void)test::run(context, read_head(ahead)), BadHttp);
  }

  TEST_CASE("a body of a length is passed on and what follows stays") {
    const BodyFraming five{BodyFraming::Kind::length, 5};
    for (const auto& in : {std::deque<std::string>{"helloGET"}, MemoryDuplex::bytewise("helloGET")}) {
      const Copied copied = copy(in, five);
      CHECK(copied.out == "hello");
      CHECK(copied.rest == "GET");
    }
    CHECK_THROWS_AS((void)copy({"hell"}, five), BadHttp);
    CHECK(copy({"ab", "c"}, {BodyFraming::Kind::until_end}).out == "abc");
    CHECK(copy({"abc"}, {}).rest == "abc");
  }

  TEST_CASE("chunks are passed on in their plainest form, however they come") {
    const std::string body = "5\r\nhello\r\n00A;name=\"v\"\r\n0123456789\r\n0\r\nX-Trailer: 1\r\n\r\nGET";
    const Copied whole = copy({body}, kChunked);
    CHECK(whole.out == "5\r\nhello\r\na\r\n0123456789\r\n0\r\n\r\n");
    CHECK(whole.rest == "GET");
    const Copied pieces = copy(MemoryDuplex::bytewise(body), kChunked);
    CHECK(pieces.out == whole.out);
    CHECK(pieces.rest == "GET");
    CHECK(copy({"0\r\n\r\n"}, kChunked).out == "0\r\n\r\n");
  }

  TEST_CASE("chunks that two readers could take differently are refused") {
    for (const std::string wrong :
         {"5\nhello\r\n0\r\n\r\n", "5 \r\nhello\r\n", " 5\r\nhello\r\n", "0x5\r\nhello\r\n", "+5\r\nhello",
          "\r\n", ";\r\n", "5\r\nhelloo\r\n", "5\r\nhello\n0\r\n\r\n", "5\r\nhello\rX", "5\rXhello",
          "fffffffffffffffff\r\n", "-1\r\n", "5;a\nb\r\nhello", "0\r\nTrailer\r\n\r\n",
          "0\r\nA: b\nGET / HTTP/1.1\r\n\r\n", "0\r\n A: b\r\n\r\n", "0\r\nA: b\rC\r\n"})
      CHECK_THROWS_AS((void)copy({wrong}, kChunked), BadHttp);
    CHECK_THROWS_AS((void)copy({"5;" + std::string(300, 'x') + "\r\nhello\r\n0\r\n\r\n"}, kChunked), BadHttp);
    CHECK_THROWS_AS((void)copy({"0\r\nA: " + std::string(9000, 'x') + "\r\n\r\n"}, kChunked), BadHttp);
    CHECK_THROWS_AS((void)copy({"5\r\nhel"}, kChunked), BadHttp);
  }
}
