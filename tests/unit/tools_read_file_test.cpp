#include "support.h"
#include "tools/sandbox_read_file.h"

namespace {

using namespace hutch;
using namespace hutch::tools;

constexpr int64_t kEnd = INT64_MAX;

LineWindow window(const std::string& text, int64_t first, int64_t last, size_t limit, size_t piece = 7) {
  LineWindow out(first, last, limit);
  for (size_t at = 0; at < text.size(); at += piece) out.append(std::string_view(text).substr(at, piece));
  return out;
}
std::string shown(const std::string& text, int64_t first = 1, int64_t last = kEnd, size_t limit = 30'000) {
  return window(text, first, last, limit).show().text;
}
std::string numbers(int count) {
  std::string out;
  for (int i = 1; i <= count; ++i) out += "line " + std::to_string(i) + "\n";
  return out;
}

}  // namespace

TEST_CASE("lines are shown with their true numbers") {
  CHECK(shown("a\nb\n") == "1\ta\n2\tb\n");
  CHECK(shown("a\nb") == "1\ta\n2\tb\n");
  CHECK(shown("").empty());
  CHECK(shown("\n\n") == "1\t\n2\t\n");
  CHECK(shown(numbers(9), 3, 4) == "3\tline 3\n4\tline 4\n");
  CHECK(shown(numbers(9), 9, kEnd) == "9\tline 9\n");
  CHECK(shown(numbers(9), 8, 20) == "8\tline 8\n9\tline 9\n");
  CHECK(shown(numbers(9), 10, 20).empty());
  CHECK(shown("caf\xE9\n") == "1\tcaf\xEF\xBF\xBD\n");
}

TEST_CASE("lines are counted however the bytes come") {
  for (size_t piece = 1; piece < 12; ++piece) {
    const LineWindow all = window("a\r\nbb\r\n\r\nccc\r\n", 2, 3, 100, piece);
    CHECK(all.total_lines() == 4);
    CHECK(all.total_bytes() == 14);
    CHECK(all.has_crlf_ends());
    CHECK_FALSE(all.ends_in_line());
    CHECK(all.show().text == "2\tbb\n3\t\n");
    CHECK(*all.bytes() == "bb\r\n\r\n");
  }
  CHECK(window("a\r\nb\n", 1, kEnd, 100).show().text == "1\ta\r\n2\tb\n");
}

TEST_CASE("a long text is cut between lines, and the cut names the rest") {
  const LineWindow cut = window(numbers(1000), 1, kEnd, 300);
  const auto [text, truncated] = cut.show();
  CHECK(truncated);
  CHECK_FALSE(cut.bytes());
  CHECK(text.substr(0, 9) == "1\tline 1\n");
  CHECK_CONTAINS(text, "\n1000\tline 1000\n");
  CHECK(text.size() < 300 + 120);
  // What is cut is what is missing: all three parts together are the file.
  const size_t at = text.find("[... lines ");
  REQUIRE(at != text.npos);
  const int first = std::stoi(text.substr(at + 11));
  const int last = std::stoi(text.substr(text.find('-', at) + 1));
  CHECK_CONTAINS(text, "\tline " + std::to_string(first - 1) + "\n[...");
  CHECK_CONTAINS(text, "...]\n" + std::to_string(last + 1) + "\tline ");
  CHECK_CONTAINS(text, "line_range [" + std::to_string(first) + ", " + std::to_string(last) + "]");
  CHECK(at <= 100);
}

TEST_CASE("a range that is too long is cut as well") {
  const std::string text = shown(numbers(1000), 100, 900, 300);
  CHECK(text.substr(0, 13) == "100\tline 100\n");
  CHECK(text.ends_with("\n900\tline 900\n"));
}

TEST_CASE("numbers count towards the limit") {
  const std::string lines(200, '\n');
  const auto [text, truncated] = window(lines, 1, kEnd, 300).show();
  CHECK(truncated);
  CHECK(text.size() < 300 + 120);
  CHECK(text.ends_with("\n200\t\n"));
}

TEST_CASE("a single long line is cut inside, between characters") {
  std::string line;
  for (int i = 0; i < 1000; ++i) line += "\xE2\x82\xAC";
  for (const std::string& text : {line, line + "\n", "a\n" + line, line + "\nb\n"}) {
    const auto [out, truncated] = window(text, 1, kEnd, 300).show();
    CHECK(truncated);
    CHECK(is_text(out));
    CHECK(out.size() < 300 + 150);
    CHECK_CONTAINS(out, "cut here");
  }
  CHECK_CONTAINS(shown(line, 1, kEnd, 300), "of line 1 cut here");
  CHECK_CONTAINS(shown("a\n" + line, 1, kEnd, 300), "of line 2 cut here");
  CHECK(window(std::string(5000, '\xFF'), 1, kEnd, 300).show().text.size() < 300 + 150);
}

TEST_CASE("cutting keeps to the limit for texts of all shapes") {
  uint32_t random = 1;
  const auto next = [&](uint32_t below) {
    return (random = random * 1664525 + 1013904223) >> 8 & 0xFFFF ? (random >> 8) % below : 0;
  };
  for (int round = 0; round < 3000; ++round) {
    std::string text;
    for (uint32_t i = next(40); i > 0; --i) text += std::string(next(round % 3 == 0 ? 300 : 20), 'x') + "\n";
    if (next(2) == 0) text += "end";
    const int64_t first = 1 + next(5), last = next(2) == 0 ? kEnd : first + next(30);
    const LineWindow out = window(text, first, last, 200, 1 + next(64));
    const auto [shown, truncated] = out.show();
    CAPTURE(text);
    CAPTURE(shown);
    CHECK(shown.size() <= 200 + (truncated ? 130 : 0));
    CHECK(truncated == test::contains(shown, "cut here"));
  }
}

TEST_CASE("a hash may be given by its beginning") {
  const std::string present = sha256_hex("abc");
  check_sha256("", present, "/f");
  check_sha256(present, present, "/f");
  check_sha256(short_sha256(present), present, "/f");
  check_sha256("BA7816BF8F01", present, "/f");
  CHECK_CONTAINS(test::error_of([&] { check_sha256(sha256_hex("abd"), present, "/f"); }),
                 "/f has changed: its sha256 is " + present);
  CHECK_CONTAINS(test::error_of([&] { check_sha256("ba78", present, "/f"); }), "must be the 64 hex digits");
  CHECK_CONTAINS(test::error_of([&] { check_sha256(std::string(64, 'x'), present, "/f"); }),
                 "must be the 64 hex digits");
}

TEST_CASE("a path becomes one word of a shell") {
  CHECK(shell_word("/workspace/a-b_c.py") == "/workspace/a-b_c.py");
  CHECK(shell_word("/a b") == "'/a b'");
  CHECK(shell_word("/it's") == "'/it'\\''s'");
}
