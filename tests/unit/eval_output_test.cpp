#include <doctest/doctest.h>

#include <string>

#include "base/error.h"
#include "sandbox/eval_output.h"
#include "sandbox/sessions.h"
#include "schema/json.h"

using hutch::json;
using namespace hutch::sandbox;

namespace {

const std::string kToken = "0123456789abcdef0123456789abcdef";
const std::string kMark = "\x1e";

std::string answer_of(const std::string& json) {
  return kMark + kToken + json + kMark;
}

/// One stream that holds both, fed with pieces of `size` bytes.
EvalOutput fed(const std::string& all, size_t size = std::string::npos) {
  EvalOutput output(kToken, false, 10'000);
  for (size_t at = 0; at < all.size(); at += std::min(size, all.size() - at))
    output.add(1, std::string_view(all).substr(at, size));
  return output;
}

}  // namespace

TEST_SUITE("output and answer of evaluated code") {
  TEST_CASE("an answer is found wherever the stream is cut") {
    const std::string printed = "one\n\x1e two", next = "of the next call";
    const std::string all =
        printed + answer_of(R"({"exit_code":3,"value":"4\u00e9","images":["/tmp/1.png"]})");
    for (size_t cut = 0; cut <= all.size(); ++cut) {
      CAPTURE(cut);
      EvalOutput output(kToken, false, 10'000);
      output.add(1, all.substr(0, cut));
      CHECK(output.complete() == (cut == all.size()));
      output.add(1, all.substr(cut) + next);
      REQUIRE(output.complete());
      CHECK(output.out().text("") == printed);
      CHECK(output.end() == all.size());
      REQUIRE(output.answer());
      CHECK(output.answer()->exit_code == 3);
      CHECK(output.answer()->value == "4é");
      CHECK(output.answer()->images == std::vector<std::string>{"/tmp/1.png"});
    }
  }

  TEST_CASE("pieces of any size give the same") {
    const std::string all = "some text\n" + answer_of(R"({"exit_code":0,"value":"x"})");
    for (size_t size = 1; size <= all.size(); ++size) {
      CAPTURE(size);
      const EvalOutput output = fed(all, size);
      REQUIRE(output.complete());
      CHECK(output.out().text("") == "some text\n");
      CHECK(output.end() == all.size());
    }
  }

  TEST_CASE("an empty piece changes nothing") {
    EvalOutput output(kToken, false, 100);
    output.add(1, "");
    output.add(1, kMark);
    output.add(1, "");
    output.add(1, kToken + "{}" + kMark);
    CHECK(output.complete());
    CHECK(output.answer()->exit_code == 0);
    CHECK_FALSE(output.answer()->value);
  }

  TEST_CASE("marks and parts of the mark that code prints are output") {
    for (const std::string& printed :
         {kMark, kMark + kMark + kMark, kMark + kToken.substr(0, 31), kMark + kToken.substr(0, 31) + kMark,
          kMark + std::string(32, '0') + "{\"exit_code\":9}" + kMark, kToken + kMark, kToken}) {
      CAPTURE(printed);
      const std::string all = printed + answer_of(R"({"exit_code":1})");
      for (const size_t size : {all.size(), size_t{1}, size_t{7}}) {
        const EvalOutput output = fed(all, size);
        REQUIRE(output.complete());
        CHECK(output.out().text("") == printed);
        CHECK(output.answer()->exit_code == 1);
      }
    }
  }

  TEST_CASE("what could have become an answer is output when none comes") {
    EvalOutput output(kToken, false, 100);
    output.add(1, "abc" + kMark + kToken.substr(0, 5));
    CHECK(output.out().text("") == "abc");
    output.give_up();
    CHECK(output.out().text("") == "abc" + kMark + kToken.substr(0, 5));
    CHECK_FALSE(output.complete());
  }

  TEST_CASE("half an answer is not shown when the rest does not come") {
    EvalOutput output(kToken, false, 100);
    output.add(1, "abc" + kMark + kToken + "{\"exit_");
    output.give_up();
    CHECK(output.out().text("") == "abc");
    CHECK_FALSE(output.answer());
  }

  TEST_CASE("with two streams both marks are waited for, in either order") {
    const std::string out = "out" + answer_of(R"({"exit_code":2})"), err = "err" + kMark + kToken + kMark;
    for (const bool out_first : {true, false})
      for (size_t size : {size_t{1}, size_t{5}, size_t{1000}}) {
        CAPTURE(out_first);
        CAPTURE(size);
        EvalOutput output(kToken, true, 1000);
        const auto feed = [&](int which, const std::string& bytes) {
          for (size_t at = 0; at < bytes.size(); at += size) {
            CHECK_FALSE(output.complete());
            output.add(which, std::string_view(bytes).substr(at, size));
          }
        };
        feed(out_first ? 1 : 2, out_first ? out : err);
        feed(out_first ? 2 : 1, out_first ? err : out);
        REQUIRE(output.complete());
        CHECK(output.end() == out.size() + err.size());
        CHECK(output.out().text("") == "out");
        CHECK(output.err().text("") == "err");
        CHECK(output.answer()->exit_code == 2);
      }
  }

  TEST_CASE("an answer on standard error is no answer") {
    EvalOutput output(kToken, true, 1000);
    output.add(2, answer_of(R"({"exit_code":7})"));
    CHECK_FALSE(output.complete());
    CHECK_FALSE(output.answer());
    output.add(1, answer_of(R"({"exit_code":1})"));
    CHECK(output.answer()->exit_code == 1);
  }

  TEST_CASE("what a stream prints before the other one's mark has come is not lost") {
    EvalOutput output(kToken, true, 1000);
    output.add(2, "err" + kMark + kToken + kMark + "of a thread, ");
    output.add(2, "more of it");
    const uint64_t before = 3 + 2 + kToken.size() + 13 + 10;
    const std::string out = answer_of("{}");
    output.add(1, out + "for the next call");
    CHECK(output.err().text("") == "errof a thread, more of it");
    CHECK(output.out().text("").empty());
    CHECK(output.end() == before + out.size());
  }

  TEST_CASE("what comes after the answer belongs to the next call, and so does a second answer") {
    EvalOutput output(kToken, false, 1000);
    const std::string all = "a" + answer_of(R"({"exit_code":1,"value":"first"})");
    output.add(1, all + answer_of(R"({"exit_code":2,"value":"second"})") + "b");
    output.add(1, "c" + answer_of(R"({"exit_code":3})"));
    CHECK(output.out().text("") == "a");
    CHECK(output.end() == all.size());
    CHECK(output.answer()->exit_code == 1);
    CHECK(output.answer()->value == "first");
  }

  TEST_CASE("what a process prints on its way out is its output") {
    for (const bool split : {false, true}) {
      CAPTURE(split);
      EvalOutput output(kToken, split, 1000, true);
      if (split) output.add(2, kMark + kToken + kMark + "early ");
      output.add(1, "a\n" + answer_of(R"({"exit_code":1})") + "b\n");
      CHECK(output.complete());
      output.add(1, "c\n");
      output.add(2, "late");
      CHECK(output.out().text("") == "a\nb\nc\n");
      CHECK(output.err().text("") == (split ? "early late" : "late"));
      CHECK(output.answer()->exit_code == 1);
    }
  }

  TEST_CASE("an answer that never ends is given up, and costs no memory") {
    EvalOutput output(kToken, false, 1000);
    output.add(1, "a" + kMark + kToken + "{\"value\":\"");
    size_t fed = 1 + 1 + kToken.size() + 10;
    const std::string piece(32 << 10, 'x');
    for (int i = 0; i < 100 && !output.complete(); ++i) {
      output.add(1, piece);
      fed += piece.size();
    }
    CHECK(output.complete());
    CHECK(fed < 400u << 10);
    CHECK(output.end() == fed);
    CHECK_FALSE(output.answer());
    CHECK(output.out().text("") == "a");
  }

  TEST_CASE("a whole answer that is too long is not understood either") {
    const EvalOutput output = fed(answer_of("{\"value\":\"" + std::string(1 << 20, 'x') + "\"}"));
    CHECK(output.complete());
    CHECK_FALSE(output.answer());
  }

  TEST_CASE("answers that are not what they should be do no harm") {
    for (const std::string& text : std::initializer_list<std::string>{
             "", "null", "[]", "17", "\"text\"", "{", "{]", "{\"exit_code\":0", "{\"exit_code\":}", "{} {}",
             std::string(100'000, '['),
             "{\"a\":" + std::string(100'000, '[') + std::string(100'000, ']') + "",
             std::string("{\"value\":\"\xff\xfe\"}"), std::string("{\"value\":\"a\0b\"}", 15)}) {
      const EvalOutput output = fed(answer_of(text));
      CAPTURE(text.substr(0, 40));
      CHECK(output.complete());
      CHECK_FALSE(output.answer());
    }
    std::string deep = "0";
    for (int i = 0; i < 20'000; ++i) deep = "[" + deep + "]";
    const EvalOutput output = fed(answer_of("{\"exit_code\":4,\"more\":" + deep + "}"));
    REQUIRE(output.answer());
    CHECK(output.answer()->exit_code == 4);
  }

  TEST_CASE("fields of a wrong type or out of range are left out or brought into it") {
    const auto answer = [](const std::string& json) { return fed(answer_of(json)).answer().value(); };
    CHECK(answer(R"({"exit_code":"1","value":7,"images":{"a":"/b"}})").exit_code == 0);
    CHECK_FALSE(answer(R"({"value":7})").value);
    CHECK_FALSE(answer(R"({"value":null})").value);
    CHECK(answer(R"({"images":"/tmp/a"})").images.empty());
    CHECK(answer(R"({"images":[1,null,["/a"],"/tmp/a"]})").images == std::vector<std::string>{"/tmp/a"});
    for (const char* code :
         {"-1", "256", "99999999999999999999999", "18446744073709551615", "1.5", "-9e99"}) {
      CAPTURE(code);
      const int got = answer(std::string("{\"exit_code\":") + code + "}").exit_code;
      CHECK(got >= 0);
      CHECK(got <= 255);
    }
    CHECK(answer(R"({"exit_code":1,"exit_code":2})").exit_code == 2);
    CHECK(answer(R"({"ended":true})").ended);
    CHECK_FALSE(answer(R"({"ended":1})").ended);
  }

  TEST_CASE("names of images are absolute paths, and not too many") {
    const auto images = [](const json& names) {
      return fed(answer_of(json{{"images", names}}.dump())).answer()->images;
    };
    CHECK(images({"", "a.png", "../b.png", std::string("/tmp/a\0b", 8), "/tmp/" + std::string(5000, 'x'),
                  "/tmp/é.png"}) == std::vector<std::string>{"/tmp/é.png"});
    json many = json::array();
    for (int i = 0; i < 100; ++i) many.push_back("/tmp/" + std::to_string(i));
    CHECK(images(many).size() == 8);
  }

  TEST_CASE("a flood before the answer is bounded, and the answer is found") {
    EvalOutput output(kToken, false, 1000);
    const std::string piece(64 << 10, 'y');
    for (int i = 0; i < 1000; ++i) output.add(1, piece);
    output.add(1, answer_of(R"({"value":"v"})"));
    CHECK(output.out().total_bytes() == 1000 * piece.size());
    CHECK(output.out().truncated());
    CHECK(output.out().text("").size() < 1200);
    CHECK(output.answer()->value == "v");
  }

  TEST_CASE("the last line for progress is that of the stream that printed more") {
    EvalOutput output(kToken, true, 1000);
    output.add(1, "out\n");
    CHECK(output.last_line() == "out");
    output.add(2, "a longer error\n");
    CHECK(output.last_line() == "a longer error");
  }
}

TEST_SUITE("whole characters") {
  TEST_CASE("only a last character of which a part is missing is left for later") {
    CHECK(whole_characters("") == 0);
    CHECK(whole_characters("abc") == 3);
    for (const std::string& character : {std::string("é"), std::string("€"), std::string("😀")}) {
      const std::string text = "a" + character;
      CHECK(whole_characters(text) == text.size());
      CHECK(whole_characters(character) == character.size());
      for (size_t cut = 1; cut < character.size(); ++cut) {
        CAPTURE(cut);
        CHECK(whole_characters(text.substr(0, 1 + cut)) == 1);
        CHECK(whole_characters(character.substr(0, cut)) == 0);
      }
    }
  }

  TEST_CASE("bytes that are no UTF-8 are not held back") {
    CHECK(whole_characters("\x80\x80\x80\x80\x80") == 5);
    CHECK(whole_characters("a\x80") == 2);
    CHECK(whole_characters("é\x80") == 3);
  }
}

TEST_SUITE("requests to interpreters") {
  const EvalSpec spec = [] {
    EvalSpec made;
    made.language = hutch::sandbox::Language::python;
    made.name = "/workspace/é\n.py";
    made.code = std::string("x = 'é'\r\n\0\xff\n", 13);
    return made;
  }();

  TEST_CASE("the header is one line of ASCII, and the code follows as it is") {
    const EvalRequest request{
        .token = kToken, .split = true, .once = true, .env = {{"A", "é\n\"\xff"}}, .workdir = "/w ü"};
    const std::string bytes = request_bytes(spec, request);
    const size_t line = bytes.find('\n');
    REQUIRE(line != std::string::npos);
    for (const char c : bytes.substr(0, line)) CHECK((c >= ' ' && c <= '~'));
    CHECK(bytes.substr(line + 1) == spec.code);
    const json header = json::parse(bytes.substr(0, line));
    CHECK(header.at("token") == kToken);
    CHECK(header.at("bytes") == spec.code.size());
    CHECK(header.at("name") == spec.name);
    CHECK(header.at("once") == true);
    CHECK(header.at("split") == true);
    CHECK(header.at("workdir") == "/w ü");
    CHECK(header.at("env").at("A") == "é\n\"\xEF\xBF\xBD");
  }

  TEST_CASE("environment and folder are left out when there are none") {
    const std::string bytes = request_bytes(spec, {.token = kToken});
    const json header = json::parse(bytes.substr(0, bytes.find('\n')));
    CHECK_FALSE(header.contains("env"));
    CHECK_FALSE(header.contains("workdir"));
    CHECK(header.at("once") == false);
  }

  TEST_CASE("an interpreter that was started ahead fits unless it would have read something at its start") {
    const std::map<std::string, std::string> has = {{"PATH", "/bin"}, {"HOME", "/root"}};
    const auto fits = [&](const char* name, const char* value) {
      auto wanted = has;
      wanted[name] = value;
      return can_get_later(has, wanted);
    };
    CHECK(can_get_later(has, has));
    CHECK(fits("GREETING", "hi"));
    CHECK(fits("PATH", "/bin"));
    CHECK(fits("TMPDIR", "/var/tmp"));
    for (const char* name :
         {"PATH", "HOME", "PYTHONPATH", "PYTHONHASHSEED", "NODE_OPTIONS", "LD_PRELOAD", "TZ", "LC_ALL"}) {
      CAPTURE(name);
      CHECK_FALSE(fits(name, "other"));
    }
  }

  TEST_CASE("bash code with a NUL is refused, and other code is not") {
    EvalSpec bash = spec;
    bash.language = hutch::sandbox::Language::bash;
    CHECK_THROWS_AS(request_bytes(bash, {.token = kToken}), hutch::Error);
    bash.code = "echo é";
    CHECK(request_bytes(bash, {.token = kToken}).find("\necho é\n") != std::string::npos);
    EvalSpec node = spec;
    node.language = hutch::sandbox::Language::javascript;
    CHECK(request_bytes(node, {.token = kToken}).ends_with("\n" + spec.code));
  }
}
