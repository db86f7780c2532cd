/// Feeds bytes to everything that reads what a client sends: the depth check, the message parser, the
/// argument reader and the writer. Nothing may crash, and every failure must be an Invalid or an Error.
///
/// With libFuzzer this is a fuzzer; with replay_main.cpp a program that replays files and folders.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "base/error.h"
#include "mcp/question.h"
#include "rpc/message.h"
#include "schema/json_reader.h"
#include "schema/json_writer.h"

namespace {

using namespace hutch;

struct Part {
  std::string text;
  std::vector<int64_t> numbers;

  template <class V>
  void describe(V& v) {
    v.required("text", text, "", {.min = 1, .max = 10});
    v.optional("numbers", numbers, "", {.min = 2, .max = 2});
  }
};

struct Arguments {
  Part part;
  std::vector<Part> parts;
  std::map<std::string, Part> named;
  std::optional<Bytes> size;
  double ratio = 0;
  bool flag = false;
  std::string mode = "a";

  template <class V>
  void describe(V& v) {
    v.optional("part", part, "");
    v.optional("parts", parts, "");
    v.optional("named", named, "");
    v.optional("size", size, "", {.min = 1, .max = 1 << 30});
    v.optional("ratio", ratio, "", {.min = 0, .max = 1});
    v.optional("flag", flag, "");
    v.optional("mode", mode, "", {.one_of = {"a", "b"}});
  }
};

/// What was accepted must be written without an exception and be accepted again.
void round_trip(const json& in) {
  try {
    const Arguments arguments = schema::parse_arguments<Arguments>(in);
    const std::string text = schema::to_json(arguments).dump();
    (void)schema::parse_arguments<Arguments>(json::parse(text));
  } catch (const Error&) {
    // Most inputs are wrong; the point is that nothing else is thrown. `part.text` is empty by default, so
    // even a written result may be refused.
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view line(reinterpret_cast<const char*>(data), size);
  const rpc::Message message = rpc::parse_message(line, 100);
  if (const auto* request = std::get_if<rpc::Request>(&message)) {
    const std::string out = rpc::to_line(rpc::make_error(request->id, -1, request->method));
    if (out.find('\n') != out.size() - 1) std::abort();
    round_trip(request->params);
  } else if (const auto* notification = std::get_if<rpc::Notification>(&message)) {
    round_trip(notification->params);
  } else if (const auto* response = std::get_if<rpc::Response>(&message)) {
    const mcp::Decision decision = mcp::decision_of(response->body.value("result", json()), {"once"});
    if ((decision.kind == mcp::Decision::Kind::chosen) != (decision.choice == "once")) std::abort();
    (void)mcp::in_quotes(line);
  } else if (const auto* invalid = std::get_if<rpc::Invalid>(&message)) {
    if (invalid->code >= 0 || invalid->what.empty()) std::abort();
  }
  return 0;
}
