#include "net/secret_text.h"

#include <doctest/doctest.h>

#include <random>

#include "support.h"

using namespace hutch;
using net::Mask;

namespace {

/// What comes out when the text comes in pieces of `size`.
std::string in_pieces(const std::vector<std::string>& hidden, const std::string& text, size_t size) {
  Mask mask(hidden);
  std::string out;
  for (size_t at = 0; at < text.size(); at += size) out += mask.pass(std::string_view(text).substr(at, size));
  return out + mask.finish();
}

}  // namespace

TEST_SUITE("secret text") {
  TEST_CASE("a hidden text is covered wherever the stream is cut, and nothing else is changed") {
    const std::string text = "token=s3cr3t-value; again s3cr3t-values3cr3t-value, s3cr3t-valu";
    const std::string shown = "token=************; again ************************, s3cr3t-valu";
    for (size_t size = 1; size <= text.size(); ++size)
      CHECK(in_pieces({"s3cr3t-value"}, text, size) == shown);
  }

  TEST_CASE("hidden texts that overlap, each other or themselves, are all covered") {
    for (size_t size = 1; size < 20; ++size) {
      CHECK(in_pieces({"abab"}, "xababab abab_aba", size) == "x****** ****_aba");
      CHECK(in_pieces({"hello wor", "world"}, "hello world worl", size) == "*********** worl");
      CHECK(in_pieces({"aa", "aaaa"}, "baaab", size) == "b***b");
    }
  }

  TEST_CASE("cut anywhere, any text is covered as if it came whole") {
    std::mt19937 random(7);
    const auto text_of = [&](size_t length) {
      std::string out;
      while (out.size() < length) out += static_cast<char>('a' + random() % 2);
      return out;
    };
    for (int round = 0; round < 2000; ++round) {
      const std::vector<std::string> hidden{text_of(1 + random() % 6), text_of(1 + random() % 9)};
      const std::string text = text_of(random() % 60);
      CAPTURE(text);
      CHECK(in_pieces(hidden, text, 1 + random() % 12) == Mask(hidden).apply(text));
    }
  }

  TEST_CASE("only what may be the beginning of a hidden text waits for more") {
    Mask mask({"s3cr3t-value"});
    CHECK(mask.pass("data: 1\n\n") == "data: 1\n\n");
    CHECK(mask.pass("data: s3cr") == "data: ");
    CHECK(mask.pass("eam\n") == "s3cream\n");
    CHECK(mask.finish() == "");
  }

  TEST_CASE("a value is recognised as it is, in a URL and in JSON") {
    CHECK(net::forms_of("plain-value") == std::vector<std::string>{"plain-value"});
    CHECK(net::forms_of("a\"b/c") == std::vector<std::string>{"a\"b/c", "a%22b%2Fc", "a\\\"b/c"});
  }

  TEST_CASE("base64 goes there and back, and what is none is nothing") {
    for (const std::string text : {"a", "ab", "abc", "user:pass"})
      CHECK(net::base64_decode(net::base64_encode(text)) == text);
    CHECK(net::base64_encode("user:pass") == "dXNlcjpwYXNz");
    for (const std::string text : {"", "abc", "ab=c", "ab c", "====", "a\n=="})
      CHECK(net::base64_decode(text) == "");
  }

  TEST_CASE("only the values of the parameter that is meant are changed") {
    const auto change = [](std::string_view target) {
      return net::change_in_query(target, "key",
                                  [](std::string_view value) { return "<" + std::string(value) + ">"; });
    };
    CHECK(change("/a?key=1&other=2&key=") == "/a?key=<1>&other=2&key=<>");
    CHECK(change("/a?monkey=1&key2=2&Key=3&key") == "/a?monkey=1&key2=2&Key=3&key");
    CHECK(change("/key=1") == "/key=1");
    CHECK(change("/?x=key=1") == "/?x=key=1");
  }
}
