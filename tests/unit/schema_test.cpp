#include "base/error.h"
#include "schema/flatten.h"
#include "schema/json_reader.h"
#include "schema/markdown_writer.h"
#include "schema/schema_writer.h"
#include "schema/text.h"
#include "support.h"

namespace {

using namespace hutch;
using namespace hutch::schema;
using hutch::test::error_of;

struct Change {
  std::string old_str, new_str;
  bool replace_all = false;

  template <class V>
  void describe(V& v) {
    v.required("old_str", old_str, "Text to find.", {.min = 1});
    v.required("new_str", new_str, "Text to put there.");
    v.optional("replace_all", replace_all, "All of them (default false).");
  }
};

struct Args {
  std::string path;
  std::vector<Change> edits;
  Bytes memory = gib(1);
  std::optional<int64_t> limit;
  double cpus = 2;
  std::string mode = "text";
  std::vector<int64_t> line_range;
  std::vector<std::string> parts;
  std::map<std::string, std::string> env;
  std::map<std::string, Change> named;
  std::optional<Change> one;
  bool force = false;

  template <class V>
  void describe(V& v) {
    v.required("path", path, "A file.", {.min = 1, .max = 10});
    v.optional("edits", edits, "What to change.", {.max = 3});
    v.optional("memory", memory, "How much.", {.min = 16 << 20, .max = double(gib(4).value)});
    v.optional("limit", limit, "At most so many.", {.min = 1, .max = 5});
    v.optional("cpus", cpus, "How many.", {.min = 0.05});
    v.optional("mode", mode, "How.", {.one_of = {"text", "base64"}});
    v.optional("line_range", line_range, "[first, last].", {.min = 2, .max = 2});
    v.optional("parts", parts, "Which.", {.one_of = {"head", "tail"}});
    v.optional("env", env, "Variables.");
    v.optional("named", named, "By name.");
    v.optional("one", one, "One more.");
    v.optional("force", force, "Do it.");
  }
};

struct None {
  template <class V>
  void describe(V&) {}
};

Args parse(const char* text) {
  return parse_arguments<Args>(json::parse(text));
}
std::string problems(const char* text) {
  return error_of([&] { (void)parse(text); });
}

}  // namespace

TEST_SUITE("sizes") {
  TEST_CASE("sizes are read with their unit and written back in the largest one that is exact") {
    CHECK(parse_bytes("512m") == mib(512));
    CHECK(parse_bytes("2G") == gib(2));
    CHECK(parse_bytes("1gb") == gib(1));
    CHECK(parse_bytes("1GiB") == gib(1));
    CHECK(parse_bytes("1024") == kib(1));
    CHECK(to_string(mib(1536)) == "1536m");
    CHECK(to_string(gib(2)) == "2g");
    CHECK(to_string({1000}) == "1000");
    CHECK(to_string({0}) == "0");
  }

  TEST_CASE("what is no size is refused instead of guessed") {
    for (const char* text :
         {"", "m", "1.5g", "-1", "+1", " 1", "1 ", "1x", "1mm", "9223372036854775808", "8388608t", "0x10"}) {
      CAPTURE(text);
      CHECK_FALSE(parse_bytes(text).has_value());
    }
    CHECK(parse_bytes("8388607t").has_value());
  }
}

TEST_SUITE("texts") {
  TEST_CASE("the nearest word is found for typing mistakes and for longer and shorter names") {
    const std::vector<std::string_view> known = {"command", "timeout_s", "workdir", "path"};
    CHECK(nearest("comand", known) == "command");
    CHECK(nearest("commnad", known) == "command");
    CHECK(nearest("timeout", known) == "timeout_s");
    CHECK(nearest("TIMEOUT-S", known) == "timeout_s");
    CHECK(nearest("file_path", known) == "path");
    CHECK(nearest("colour", known).empty());
    CHECK(nearest("", known).empty());
    CHECK(nearest(std::string(100'000, 'c'), known).empty());
  }

  TEST_CASE("invalid UTF-8 is replaced and valid UTF-8 stays") {
    CHECK(valid_utf8("gr\xC3\xBC\xC3\x9F \xF0\x9F\x98\x80") == "gr\xC3\xBC\xC3\x9F \xF0\x9F\x98\x80");
    CHECK(valid_utf8("a\xFF"
                     "b") ==
          "a\xEF\xBF\xBD"
          "b");
    CHECK(valid_utf8("\xC3") == "\xEF\xBF\xBD");
    const std::string replaced =
        valid_utf8("\xED\xA0\x80\xC0\x80\xF5\x80\x80\x80");  // surrogate, overlong, too large
    CHECK(valid_utf8(replaced) == replaced);
    CHECK(count_characters("gr\xC3\xBC\xC3\x9F") == 4);
  }
}

TEST_SUITE("JSON Schema") {
  TEST_CASE("the schema of arguments has rules, defaults and nothing that hosts do not know") {
    const ordered_json schema = schema_of<Args>();
    CHECK(schema["type"] == "object");
    CHECK(schema["additionalProperties"] == false);
    CHECK(schema["required"] == ordered_json({"path"}));
    const ordered_json& properties = schema["properties"];
    CHECK(properties["path"]["minLength"] == 1);
    CHECK(properties["memory"]["type"] == "string");
    CHECK(properties["memory"]["default"] == "1g");
    CHECK(properties["cpus"].dump() ==
          R"({"type":"number","description":"How many.","minimum":0.05,"default":2})");
    CHECK(properties["mode"]["enum"] == ordered_json({"text", "base64"}));
    CHECK(properties["parts"]["items"]["enum"] == ordered_json({"head", "tail"}));
    CHECK(properties["line_range"]["items"]["type"] == "integer");
    CHECK(properties["line_range"]["maxItems"] == 2);
    CHECK(properties["edits"]["items"]["required"] == ordered_json({"old_str", "new_str"}));
    CHECK(properties["env"]["additionalProperties"]["type"] == "string");
    CHECK(properties["force"]["default"] == false);
    for (const char* without_default : {"limit", "one", "edits", "env"}) {
      CAPTURE(without_default);
      CHECK_FALSE(properties[without_default].contains("default"));
    }
    for (const char* word : {"oneOf", "anyOf", "$ref", "format"})
      CHECK_FALSE(hutch::test::contains(schema.dump(), word));
  }

  TEST_CASE("properties come in the order of the description") {
    const ordered_json schema = schema_of<Change>();
    std::vector<std::string> names;
    for (const auto& [name, _] : schema["properties"].items()) names.push_back(name);
    CHECK(names == std::vector<std::string>{"old_str", "new_str", "replace_all"});
  }

  TEST_CASE("the schema of a result requires nothing at the top and has no defaults") {
    const ordered_json schema = schema_of<Args>(SchemaWriter::Purpose::result);
    CHECK_FALSE(schema.contains("required"));
    CHECK_FALSE(hutch::test::contains(schema.dump(), "\"default\":"));
    CHECK(schema["properties"]["edits"]["items"].contains("required"));
  }

  TEST_CASE("without required fields there is no list of them") {
    CHECK(schema_of<None>().dump() == R"({"type":"object","properties":{},"additionalProperties":false})");
  }
}

TEST_SUITE("arguments") {
  TEST_CASE("what is left out keeps the default that the schema shows") {
    const Args args = parse(R"({"path":"a"})");
    CHECK(args.memory == gib(1));
    CHECK_FALSE(args.limit.has_value());
    CHECK(to_json(args)["mode"] == schema_of<Args>()["properties"]["mode"]["default"]);
  }

  TEST_CASE("null counts as not given") {
    CHECK_FALSE(parse(R"({"path":"a","limit":null})").limit.has_value());
    CHECK_CONTAINS(problems(R"({"path":null})"), "'path' is missing");
  }

  TEST_CASE("every problem is named at once, with its place and the nearest known name") {
    const std::string text =
        problems(R"({"pth":"x","edits":[{"old_str":"a","new_str":"b"},{"old_strr":3,"new_str":3}],
      "memory":"1m","limit":7,"cpus":"x","mode":"txt","line_range":[1],"parts":["head","tale"],"env":{"A":1},
      "named":{"k":{"old_str":""}},"one":5,"force":"yes"})");
    for (const char* part :
         {"'path' is missing", "'pth' is not known; did you mean 'path'?", "'edits[1].old_str' is missing",
          "'edits[1].old_strr' is not known; did you mean 'old_str'?",
          "'edits[1].new_str' must be a text, got 3", "'memory' must be at least 16m, got 1m",
          "'limit' must be at most 5, got 7", "'cpus' must be a number, got the text \"x\"",
          "'mode' must be one of text, base64, got the text \"txt\"",
          "'line_range' must have at least 2 elements, has 1", "'parts[1]' must be one of head, tail",
          "'env.A' must be a text, got 1", "'named.k.old_str' must not be empty",
          "'one' must be an object, got 5", "'force' must be true or false, got the text \"yes\"",
          "Try: the arguments are path, edits"})
      CHECK_CONTAINS(text, part);
  }

  TEST_CASE("a number or a truth value as text is taken, a text as number is not") {
    CHECK(parse(R"({"path":"a","limit":"5"})").limit == 5);
    CHECK(parse(R"({"path":"a","cpus":"0.5"})").cpus == 0.5);
    CHECK(parse(R"({"path":"a","force":"true"})").force);
    CHECK(parse(R"({"path":"a","line_range":["1",-1]})").line_range == std::vector<int64_t>{1, -1});
    CHECK_CONTAINS(problems(R"({"path":5})"), "'path' must be a text, got 5");
    for (const char* number : {R"("")", R"(" 5")", R"("5x")", R"("5.0")", R"("0x5")", "true", "[5]", "{}"}) {
      CAPTURE(number);
      CHECK_CONTAINS(problems((std::string(R"({"path":"a","limit":)") + number + "}").c_str()),
                     "'limit' must be an integer");
    }
  }

  TEST_CASE("3.0 is an integer, 3.5 and numbers beyond 63 bits are not") {
    CHECK(parse(R"({"path":"a","limit":3.0})").limit == 3);
    CHECK_CONTAINS(problems(R"({"path":"a","limit":3.5})"), "must be an integer");
    CHECK_CONTAINS(problems(R"({"path":"a","limit":18446744073709551615})"),
                   "must be at most 9223372036854775807");
    CHECK_CONTAINS(problems(R"({"path":"a","limit":1e300})"), "must be an integer");
    CHECK_CONTAINS(problems(R"({"path":"a","cpus":"inf"})"), "must be a number");
  }

  TEST_CASE("a size is a text or a number of bytes") {
    CHECK(parse(R"({"path":"a","memory":"512m"})").memory == mib(512));
    CHECK(parse(R"({"path":"a","memory":16777216})").memory == mib(16));
    for (const char* size : {"-1", "1.5", "\"much\"", "true", "18446744073709551615"}) {
      CAPTURE(size);
      CHECK_CONTAINS(problems((std::string(R"({"path":"a","memory":)") + size + "}").c_str()),
                     "'memory' must be a size");
    }
    CHECK_CONTAINS(problems(R"({"path":"a","memory":"5g"})"), "'memory' must be at most 4g, got 5g");
  }

  TEST_CASE("lengths count characters, not bytes") {
    CHECK(
        parse(
            "{\"path\":\"\xC3\xBC\xC3\xBC\xC3\xBC\xC3\xBC\xC3\xBC\xC3\xBC\xC3\xBC\xC3\xBC\xC3\xBC\xC3\xBC\"}")
            .path.size() == 20);
    CHECK_CONTAINS(problems(R"({"path":"12345678901"})"), "must have at most 10 characters, has 11");
  }

  TEST_CASE("a flood of problems is cut") {
    json arguments = {{"path", "a"}};
    for (int i = 0; i < 1000; ++i) arguments["zz" + std::to_string(i)] = 1;
    const std::string text = error_of([&] { (void)parse_arguments<Args>(arguments); });
    CHECK_CONTAINS(text, "and 980 more");
    CHECK(text.size() < 2000);
  }

  TEST_CASE("arguments that are no object are refused") {
    CHECK_CONTAINS(problems("[]"), "arguments must be an object, got array");
  }
}

TEST_SUITE("writers") {
  TEST_CASE("absent optionals are left out and invalid UTF-8 does not throw") {
    Args args;
    args.path = "a\xFF";
    args.env["k\xFE"] = "v";
    const ordered_json out = to_json(args);
    CHECK_FALSE(out.contains("limit"));
    CHECK(out["path"] == "a\xEF\xBF\xBD");
    CHECK(out["memory"] == "1g");
    CHECK_NOTHROW((void)out.dump());
    CHECK_NOTHROW((void)to_json(std::numeric_limits<double>::infinity()).dump());
  }

  TEST_CASE("what is written can be read again") {
    const Args args =
        parse(R"({"path":"a","edits":[{"old_str":"x","new_str":""}],"one":{"old_str":"1","new_str":"2"},
      "named":{"k":{"old_str":"o","new_str":"n","replace_all":true}},"limit":2,"cpus":0.5,"line_range":[1,2]})");
    const std::string text = to_json(args).dump();
    CHECK(to_json(parse(text.c_str())).dump() == text);
  }

  TEST_CASE("the table has one row per field with its path, type and default") {
    const std::string table = markdown_table<Args>();
    for (const char* row :
         {"| `path` | text | required | A file. |", "| `memory` | size | `1g` | How much. |",
          "| `edits[].old_str` | text | required |", "| `named.<name>.replace_all` | true/false | `false` |",
          "| `mode` | text | `text` | How. One of `text`, `base64`. |", "| `limit` | integer |  |"})
      CHECK_CONTAINS(table, row);
  }

  TEST_CASE("flattening gives every value with its path") {
    Args args;
    args.named["k"].old_str = "o";
    std::map<std::string, std::string> flat;
    for (const FlatField& field : flatten(args)) flat[field.path] = field.value.dump();
    CHECK(flat.at("named.k.old_str") == "\"o\"");
    CHECK(flat.at("memory") == "\"1g\"");
    CHECK(flat.count("limit") == 0);
  }
}
