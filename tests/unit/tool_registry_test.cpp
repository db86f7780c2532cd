#include "mcp/tool.h"
#include "support.h"

namespace {

using namespace hutch;
using namespace hutch::mcp;
using hutch::test::error_of;

struct SayArgs {
  std::string text;
  int64_t times = 2;

  template <class V>
  void describe(V& v) {
    v.required("text", text, "What.", {.min = 1});
    v.optional("times", times, "How often.", {.min = 1});
  }
};

struct SayResult {
  std::string said;
  std::optional<std::string> note;

  template <class V>
  void describe(V& v) {
    v.required("said", said, "What was said.");
    v.optional("note", note, "More.");
  }
};

struct RegistryFixture {
  explicit RegistryFixture(Results results = Results::text) : registry(results) {
    add("say", "core", true);
    add("shout", "files", false);
  }

  void add(const char* name, const char* toolset, bool lean) {
    registry.add<SayArgs, SayResult>(
        {.name = name,
         .title = "Say",
         .description = "Says.",
         .toolset = toolset,
         .lean = lean,
         .read_only = true,
         .always_load = lean},
        [this](const SayArgs& args, CallContext&) {
          ++calls;
          if (args.text == "gone") throw Error(Errc::not_found, "no such word").hint("say another");
          SayResult out;
          for (int64_t i = 0; i < args.times; ++i) out.said += args.text;
          return out;
        },
        [](const SayResult& result) {
          return Reply{result.said, {{"image/png", "AAAA"}}};
        });
  }
  ordered_json call(json arguments) { return registry.call("say", arguments, context); }
  std::string text(json arguments) { return call(std::move(arguments))["content"][0]["text"]; }

  ToolRegistry registry;
  CallContext context;
  int calls = 0;
};

struct StructuredFixture : RegistryFixture {
  StructuredFixture() : RegistryFixture(Results::structured) {}
};

}  // namespace

TEST_SUITE("tool registry") {
  TEST_CASE_FIXTURE(RegistryFixture, "a result is one text block and its images") {
    const ordered_json result = call({{"text", "a"}});
    CHECK(
        result.dump() ==
        R"({"content":[{"type":"text","text":"aa"},{"type":"image","data":"AAAA","mimeType":"image/png"}],"isError":false})");
  }

  TEST_CASE_FIXTURE(RegistryFixture, "bad arguments name every problem and never reach the tool") {
    const ordered_json result = call({{"times", 0}, {"txt", "x"}});
    CHECK(result["isError"] == true);
    for (const char* part : {"'text' is missing", "'times' must be at least 1", "did you mean 'text'?",
                             "while reading the arguments of say"})
      CHECK_CONTAINS(result["content"][0]["text"].get<std::string>(), part);
    CHECK(calls == 0);
  }

  TEST_CASE_FIXTURE(RegistryFixture, "a failing tool says what failed, during what, and what to try") {
    CHECK(text({{"text", "gone"}}) == "no such word\n  while running say\nTry: say another");
  }

  TEST_CASE_FIXTURE(StructuredFixture, "structured results stand beside the text and declare their schema") {
    CHECK(call({{"text", "a"}})["structuredContent"].dump() == R"({"said":"aa"})");
    const ordered_json schema = registry.list()[0]["outputSchema"];
    CHECK_FALSE(schema.contains("required"));
    CHECK(schema["properties"]["error"]["properties"].contains("hint"));
    const ordered_json error = call({{"text", "gone"}})["structuredContent"]["error"];
    CHECK(error.dump() ==
          R"({"code":"not_found","message":"no such word\nwhile running say","hint":"say another"})");
  }

  TEST_CASE_FIXTURE(RegistryFixture, "the listing has annotations, and no output schema for text results") {
    const ordered_json tool = registry.list()[0];
    CHECK(tool["annotations"].dump() ==
          R"({"readOnlyHint":true,"destructiveHint":false,"idempotentHint":false,"openWorldHint":false})");
    CHECK(tool["_meta"]["anthropic/alwaysLoad"] == true);
    CHECK_FALSE(tool.contains("outputSchema"));
    CHECK_FALSE(registry.list()[1].contains("_meta"));
  }

  TEST_CASE_FIXTURE(RegistryFixture, "toolsets choose tools and an unknown one names the known ones") {
    const std::string error = error_of([&] { registry.select({"core", "fils"}); });
    CHECK_CONTAINS(error, "there is no toolset 'fils'");
    CHECK_CONTAINS(error, "core, files, lean");
    registry.select({"lean"});
    CHECK(registry.find("say") != nullptr);
    CHECK(registry.find("shout") == nullptr);
  }

  TEST_CASE_FIXTURE(RegistryFixture, "bad and repeated names are refused when a tool is added") {
    CHECK_CONTAINS(error_of([&] { add("say", "core", false); }), "added twice");
    CHECK_CONTAINS(error_of([&] { add("Say", "core", false); }), "'Say' is no name");
    CHECK_CONTAINS(error_of([&] { add("", "core", false); }), "is no name");
  }
}
