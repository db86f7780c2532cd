#include <doctest/doctest.h>

#include "sandbox/output.h"

using hutch::sandbox::BoundedOutput;

namespace {

std::string numbered_lines(int count) {
  std::string text;
  for (int i = 1; i <= count; ++i) text += "line " + std::to_string(i) + "\n";
  return text;
}

}  // namespace

TEST_SUITE("bounded output") {
  TEST_CASE("what fits comes back as it was") {
    BoundedOutput output(100);
    output.append("a\n");
    output.append("b");
    CHECK(output.text("") == "a\nb");
    CHECK_FALSE(output.truncated());
  }

  TEST_CASE("the middle is cut between lines, and the cut says how much and where the rest is") {
    BoundedOutput output(300);
    const std::string all = numbered_lines(1000);
    for (const char c : all) output.append({&c, 1});
    const std::string text = output.text("/var/log/hutch/1.log");
    CHECK(output.truncated());
    CHECK(text.starts_with("line 1\n"));
    CHECK(text.ends_with("line 1000\n"));
    CHECK(text.find("of " + std::to_string(all.size()) + " bytes cut") != std::string::npos);
    CHECK(text.find("/var/log/hutch/1.log") != std::string::npos);
    CHECK(text.size() < 300 + 120);
  }

  TEST_CASE("a cut in one long line of characters of several bytes leaves no broken one") {
    for (size_t limit = 30; limit < 60; ++limit) {
      BoundedOutput output(limit);
      for (int i = 0; i < 200; ++i) output.append("€");
      CAPTURE(limit);
      CHECK(output.text("").find("\xEF\xBF\xBD") == std::string::npos);
    }
  }

  TEST_CASE("bytes that are no UTF-8 become replacement characters") {
    BoundedOutput output(100);
    output.append("a\xff\xc3(b");
    CHECK(output.text("") == "a\xEF\xBF\xBD\xEF\xBF\xBD(b");
  }

  TEST_CASE("a flood costs no more memory than twice the limit") {
    BoundedOutput output(10'000);
    const std::string piece(32 * 1024, 'y');
    for (int i = 0; i < 10'000; ++i) output.append(piece);
    CHECK(output.total_bytes() == size_t{10'000} * 32 * 1024);
    CHECK(output.text("").size() < 10'200);
  }

  TEST_CASE("the last line that is not empty is the one for progress") {
    BoundedOutput output(1000);
    output.append("first\nsecond\r\n\n");
    CHECK(output.last_line() == "second");
  }
}
