#include "tools/encoding.h"

#include "support.h"

namespace {

using namespace hutch;
using namespace hutch::tools;
using namespace std::string_view_literals;

std::string refused(std::string_view text) {
  return test::error_of([&] { base64_decode(text, "content"); });
}

bool valid_in_pieces(std::string_view text, size_t piece) {
  Utf8Check check;
  for (size_t at = 0; at < text.size(); at += piece) check.append(text.substr(at, piece));
  return check.valid();
}

}  // namespace

TEST_CASE("base64 of the test vectors of RFC 4648, both ways") {
  const std::pair<std::string_view, std::string_view> vectors[] = {{"", ""},
                                                                   {"f", "Zg=="},
                                                                   {"fo", "Zm8="},
                                                                   {"foo", "Zm9v"},
                                                                   {"foob", "Zm9vYg=="},
                                                                   {"fooba", "Zm9vYmE="},
                                                                   {"foobar", "Zm9vYmFy"}};
  for (const auto& [bytes, text] : vectors) {
    CHECK(base64_encode(bytes) == text);
    CHECK(base64_decode(text, "content") == bytes);
  }
}

TEST_CASE("base64 of every byte and of more than one block comes back as it was") {
  std::string bytes;
  for (size_t i = 0; i < (size_t{7} << 20) + 5; ++i) bytes += static_cast<char>(i * 31 + i / 256);
  CHECK(base64_decode(base64_encode(bytes), "content") == bytes);
}

TEST_CASE("base64 may be wrapped into lines, and nothing else is let through") {
  CHECK(base64_decode("Zm9v\nYmFy\r\n", "content") == "foobar");
  CHECK_CONTAINS(refused("Zm9v!mFy"), "'content' is not base64: character 5 is '!'");
  CHECK_CONTAINS(refused(" Zm9v"), "character 1 is ' '");
  CHECK_CONTAINS(refused("Zg==Zg=="), "character 3 is '='");
  CHECK_CONTAINS(refused("Zg=a"), "character 3 is '='");
  CHECK_CONTAINS(refused("Zm9"), "3 digits, not a multiple of 4");
  CHECK_CONTAINS(refused("Z==="), "is '='");
  CHECK_CONTAINS(refused("===="), "is '='");
  CHECK_CONTAINS(refused("-_-_"), "character 1 is '-'");
  CHECK_CONTAINS(refused("Zm\0v"sv), "character 3 is '\\x00'");
}

TEST_CASE("text is valid UTF-8 without NUL") {
  CHECK(is_text(""));
  CHECK(is_text("plain ascii\twith\r\nlines"));
  CHECK(is_text("caf\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80"));
  CHECK(is_text("\xEF\xBF\xBD\xF4\x8F\xBF\xBF"));
  CHECK_FALSE(is_text("a\0b"sv));
  CHECK_FALSE(is_text("caf\xE9"));
  for (const auto wrong :
       {"\x80"sv, "\xC0\xAF"sv, "\xC1\xBF"sv, "\xE0\x80\xAF"sv, "\xED\xA0\x80"sv, "\xF0\x80\x80\xAF"sv,
        "\xF4\x90\x80\x80"sv, "\xF5\x80\x80\x80"sv, "\xC3"sv, "\xE2\x82"sv, "\xC3(longer than a word)"sv})
    CHECK_FALSE(is_text(wrong));
}

TEST_CASE("a character may be split between pieces") {
  const std::string text =
      "0123456789 caf\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80 and the rest of it, long enough";
  for (size_t piece = 1; piece < 20; ++piece) {
    CHECK(valid_in_pieces(text, piece));
    CHECK_FALSE(valid_in_pieces(text + "\xE2\x82", piece));
    CHECK_FALSE(valid_in_pieces("\xE2\x82" + text, piece));
  }
}

TEST_CASE("images are known by their first bytes") {
  CHECK(image_type("\x89PNG\r\n\x1a\n....") == "image/png");
  CHECK(image_type("\xFF\xD8\xFF\xE0") == "image/jpeg");
  CHECK(image_type("GIF89a") == "image/gif");
  CHECK(image_type("RIFF\x10\0\0\0WEBPVP8 "sv) == "image/webp");
  CHECK(image_type("RIFF\x10\0\0\0WAVEfmt "sv).empty());
  CHECK(image_type("RIFF").empty());
  CHECK(image_type("").empty());
  CHECK(image_type("<svg>").empty());
}

TEST_CASE("a cut never splits a character") {
  const std::string_view text = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80z";  // 1 + 2 + 3 + 4 + 1 bytes
  for (size_t bytes = 0; bytes <= text.size() + 1; ++bytes) {
    CHECK(is_text(prefix_of(text, bytes)));
    CHECK(is_text(suffix_of(text, bytes)));
    CHECK(prefix_of(text, bytes).size() <= bytes);
    CHECK(suffix_of(text, bytes).size() <= bytes);
  }
  CHECK(prefix_of(text, 5) == "a\xC3\xA9");
  CHECK(suffix_of(text, 4) == "z");
  CHECK(prefix_of("\x80\x80\x80\x80\x80\x80", 5).size() == 5);
}

TEST_CASE("one line stays one line") {
  CHECK(one_line("a\nb\tc\rd\x1b[0m\x7f \xC3\xA9 \xFF") ==
        "a\\nb\\tc\\rd\\x1b[0m\\x7f \xC3\xA9 \xEF\xBF\xBD");
}
