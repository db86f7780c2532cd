#include <unistd.h>

#include <csignal>

#include "base/sys.h"
#include "rpc/line_reader.h"
#include "rpc/line_writer.h"
#include "rpc/message.h"
#include "support.h"

namespace {

using namespace hutch;
using namespace hutch::rpc;

Invalid invalid(std::string_view line) {
  const Message message = parse_message(line, 100);
  REQUIRE(std::holds_alternative<Invalid>(message));
  return std::get<Invalid>(message);
}

/// What a reader with this limit makes of these bytes: lines, "<too long>".
std::vector<std::string> split(const std::string& bytes, size_t max_bytes) {
  sys::Pipe pipe = sys::pipe();
  REQUIRE(bytes.size() <= 65536);
  sys::write_all(pipe.write_end.get(), bytes);
  pipe.write_end.reset();
  const Wakeup stop;
  LineReader reader(pipe.read_end.get(), stop.fd(), max_bytes);
  std::vector<std::string> out;
  for (std::string_view line;;) {
    switch (reader.next(line)) {
      case LineReader::Event::line:
        out.emplace_back(line);
        break;
      case LineReader::Event::too_long:
        out.emplace_back("<too long>");
        break;
      default:
        return out;
    }
  }
}

}  // namespace

TEST_SUITE("messages") {
  TEST_CASE("requests, notifications and responses are told apart") {
    const Message request = parse_message(R"({"method":"m","id":0,"params":{"a":1},"jsonrpc":"2.0"})", 100);
    CHECK(std::get<Request>(request).id == 0);
    CHECK(std::get<Request>(request).params == json{{"a", 1}});
    CHECK(std::get<Notification>(parse_message(R"({"jsonrpc":"2.0","method":"m"})", 100)).params.is_null());
    CHECK(std::get<Response>(parse_message(R"({"jsonrpc":"2.0","id":"x","result":null})", 100)).id == "x");
  }

  TEST_CASE("an id that can be made out is kept for the error") {
    CHECK(invalid(R"({"jsonrpc":"2.0","id":7,"method":1})").id == 7);
    CHECK(invalid(R"({"jsonrpc":"2.0","id":null,"method":"m"})").id.is_null());
    CHECK(invalid("{").code == kParseError);
    CHECK(invalid("[]").code == kInvalidRequest);
  }

  TEST_CASE("depth counts brackets outside of strings only") {
    CHECK_FALSE(is_too_deep("[[[]]]", 3));
    CHECK(is_too_deep("[[[[]]]]", 3));
    CHECK_FALSE(is_too_deep(R"(["[[[[\"[[[[", "{{{{"])", 3));
    CHECK_FALSE(is_too_deep("[],[],[],[],[]", 1));
    CHECK(is_too_deep(std::string(1'000'000, '['), 100));
    CHECK_FALSE(is_too_deep("\"\\", 0));
  }

  TEST_CASE("a line has no newline inside, whatever is in it") {
    const std::string line = to_line(make_result(json(1), {{"text", "a\nb\xFF"}}));
    CHECK(line == "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"text\":\"a\\nb\xEF\xBF\xBD\"}}\n");
    CHECK(to_line(make_error(json(), kParseError, "m")) ==
          "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32700,\"message\":\"m\"}}\n");
  }
}

TEST_SUITE("lines") {
  TEST_CASE("lines end with a newline, with both, or with the input") {
    CHECK(split("a\nb\r\n\n\r\nc", 10) == std::vector<std::string>{"a", "b", "c"});
    CHECK(split("", 10).empty());
    CHECK(split("\n\n", 10).empty());
  }

  TEST_CASE("a line that is too long is reported once and the next one is read") {
    CHECK(split("12345\n123456\nab\n", 5) == std::vector<std::string>{"12345", "<too long>", "ab"});
    CHECK(split(std::string(60'000, 'x') + "\nab\n", 5) == std::vector<std::string>{"<too long>", "ab"});
    CHECK(split("ab\n" + std::string(60'000, 'x'), 5) == std::vector<std::string>{"ab", "<too long>"});
    CHECK(split("12345\r\n123456\r\n", 5) == std::vector<std::string>{"12345", "<too long>"});
  }

  TEST_CASE("a stop request ends a reader that waits") {
    const sys::Pipe pipe = sys::pipe();
    Wakeup stop;
    LineReader reader(pipe.read_end.get(), stop.fd(), 10);
    stop.set();
    std::string_view line;
    CHECK(reader.next(line) == LineReader::Event::stopped);
  }

  TEST_CASE("a deadline is told once nothing came until then, and the half of a line is not lost") {
    sys::Pipe pipe = sys::pipe();
    Wakeup stop;
    LineReader reader(pipe.read_end.get(), stop.fd(), 10);
    std::string_view line;
    CHECK(reader.next(line, LineReader::Clock::now()) == LineReader::Event::timeout);
    sys::write_all(pipe.write_end.get(), "ab");
    CHECK(reader.next(line, LineReader::Clock::now()) == LineReader::Event::timeout);
    sys::write_all(pipe.write_end.get(), "c\n");
    CHECK(reader.next(line, LineReader::Clock::now()) == LineReader::Event::line);
    CHECK(line == "abc");
  }
}

TEST_SUITE("writer") {
  TEST_CASE("a notification that finds no room is dropped and an abandoned writer does not wait") {
    const sys::Pipe pipe = sys::pipe();
    LineWriter writer(pipe.write_end.get());
    const ordered_json note = make_notification("n", {{"text", std::string(1000, 'x')}});
    int sent = 0;
    while (writer.try_send(note) == LineWriter::Outcome::sent) ++sent;
    CHECK(sent > 0);
    CHECK(writer.try_send(note) == LineWriter::Outcome::dropped);
    writer.abandon();
    CHECK(writer.send(note) == LineWriter::Outcome::abandoned);
    // A half-written line may be out: nothing may be glued to it, even if there is room again.
    std::array<char, 65536> drain;
    CHECK(::read(pipe.read_end.get(), drain.data(), drain.size()) > 0);
    CHECK(writer.send(note) == LineWriter::Outcome::abandoned);
  }

  TEST_CASE("a peer that is gone is reported") {
    std::signal(SIGPIPE, SIG_IGN);
    sys::Pipe pipe = sys::pipe();
    LineWriter writer(pipe.write_end.get());
    pipe.read_end.reset();
    CHECK(writer.send(make_notification("n", {})) == LineWriter::Outcome::peer_gone);
    CHECK(writer.peer_gone());
  }
}
