#include "tools/nearest_lines.h"
#include "tools/text_edit.h"
#include "tools/text_lines.h"
#include "tools/unified_diff.h"

#include "support.h"

namespace {

using namespace hutch;
using namespace hutch::tools;

constexpr size_t kMax = 1'000'000;

std::string edit(const std::string& text, const std::vector<Edit>& edits) {
  return apply_edits(text, edits, kMax).text;
}
std::string refused(const std::string& text, const std::vector<Edit>& edits) {
  return test::error_of([&] { apply_edits(text, edits, kMax); });
}
std::string insert(const std::string& text, int64_t after, const std::string& lines) {
  return insert_lines(text, after, lines, kMax).text;
}
std::string diff(const std::string& before, const std::string& after, size_t max_bytes = 4000) {
  return unified_diff("/f", before, after, max_bytes);
}

}  // namespace

TEST_CASE("an edit replaces the one match") {
  CHECK(edit("a\nb\nc\n", {{"b", "x"}}) == "a\nx\nc\n");
  CHECK(edit("a\nb\nc", {{"\nc", ""}}) == "a\nb");
  CHECK(edit("tab\there", {{"\t", "    "}}) == "tab    here");
}

TEST_CASE("edits build on one another") {
  const Edited edited = apply_edits("one two", {{"one", "1"}, {"1 two", "1 2"}}, kMax);
  CHECK(edited.text == "1 2");
  CHECK(edited.replacements == 2);
  CHECK_CONTAINS(refused("one two", {{"one", "1"}, {"one", "x"}}),
                 "edits[1].old_str is not in the text that the edits before it leave");
}

TEST_CASE("several matches need replace_all, and the message says where they are") {
  const std::string text = "x\n\nx = 1\ny\nx";
  CHECK_CONTAINS(refused(text, {{"x", "z"}}), "found 3 matches of edits[0].old_str at lines 1, 3 and 5");
  CHECK_CONTAINS(refused(text, {{"x", "z"}}), "set `replace_all`");
  CHECK_CONTAINS(refused("aaa", {{"aa", "b"}}), "found 2 matches");
  CHECK_CONTAINS(refused(std::string(500, 'a'), {{"a", "b"}}), "found more than 100 matches");
  const Edited edited = apply_edits(text, {{"x", "long", true}}, kMax);
  CHECK(edited.text == "long\n\nlong = 1\ny\nlong");
  CHECK(edited.replacements == 3);
  CHECK(edit("aaa", {{"aa", "b", true}}) == "ba");
  CHECK(edit("aa", {{"a", "aa", true}}) == "aaaa");
}

TEST_CASE("edits that change nothing or match everywhere are refused") {
  CHECK_CONTAINS(refused("a", {{"a", "a"}}), "edits[0].old_str and new_str are exactly the same");
  CHECK_CONTAINS(refused("a", {{"", "b"}}), "edits[0].old_str is empty");
}

TEST_CASE("a text does not grow without limit") {
  const auto grow = [] {
    apply_edits(std::string(1000, 'a'), {{"a", std::string(1000, 'b'), true}}, 10'000);
  };
  CHECK_CONTAINS(test::error_of(grow), "would have 1000000 bytes");
}

TEST_CASE("CRLF line ends stay") {
  const std::string text = "one\r\ntwo\r\nthree\r\n";
  CHECK(has_crlf_ends(text));
  CHECK(edit(text, {{"one\ntwo", "1\n2"}}) == "1\r\n2\r\nthree\r\n");
  CHECK(edit(text, {{"two", "2\n2b"}}) == "one\r\n2\r\n2b\r\nthree\r\n");
  CHECK(edit(text, {{"one\r\ntwo", "1\n2"}}) == "1\n2\r\nthree\r\n");
  CHECK(edit(text, {{"\n", "", true}}) == "onetwothree");
  CHECK(insert(text, 1, "x\ny") == "one\r\nx\r\ny\r\ntwo\r\nthree\r\n");
  CHECK_FALSE(has_crlf_ends("one\r\ntwo\n"));
  CHECK(edit("one\r\ntwo\nx\r\n", {{"one\ntwo", "1\n2"}, {"2\nx", "2\ny"}}) == "1\r\n2\ny\r\n");
}

TEST_CASE("lines are inserted behind a line") {
  CHECK(insert("a\nb\n", 0, "x") == "x\na\nb\n");
  CHECK(insert("a\nb\n", 1, "x\n") == "a\nx\nb\n");
  CHECK(insert("a\nb\n", 2, "x\ny") == "a\nb\nx\ny\n");
  CHECK(insert("a\nb", 2, "x\n") == "a\nb\nx");
  CHECK(insert("a\nb", 1, "x") == "a\nx\nb");
  CHECK(insert("", 0, "x") == "x\n");
  CHECK(insert("a\n", 1, "") == "a\n\n");
  CHECK(insert("\xEF\xBB\xBF"
               "a\n",
               0, "x") == "\xEF\xBB\xBFx\na\n");
  CHECK_CONTAINS(test::error_of([] { insert("a\nb\n", 3, "x"); }),
                 "'insert_line' is 3, but the file has 2 lines");
}

TEST_CASE("a miss that is whitespace alone says so") {
  const std::string text = "def f():\n\treturn 1\n\ndef g():\n\treturn 2\n";
  const std::string error = refused(text, {{"def g():\n    return 2", "x"}});
  CHECK_CONTAINS(error, "edits[0].old_str is not in the file");
  CHECK_CONTAINS(error, "lines 4-5 of the file differ from `old_str` only in whitespace. Line 5");
  CHECK_CONTAINS(error, "  file:    →return·2\n  old_str: ····return·2");
  CHECK_CONTAINS(refused("a = f( 1 )\n", {{"f(1)", "x"}}),
                 "line 1 of the file differs from `old_str` only in whitespace");
}

TEST_CASE("a miss shows the nearest lines with their numbers") {
  const std::string text = "import os\n\nvalue = compute_total(items)\nprint(value)\nreturn value\n";
  const std::string one = nearest_lines(text, "value = compute_totals(item)");
  CHECK_CONTAINS(one, "\n3\tvalue = compute_total(items)");
  CHECK_FALSE(test::contains(one, "import"));
  const std::string block = nearest_lines(text, "value = compute_total(items)\nprint(values)\nreturn value");
  CHECK_CONTAINS(block, "lines 3-5");
  CHECK_CONTAINS(block, "line 4 is the first that differs");
  CHECK_CONTAINS(block, "\tprint(values)\n");
  CHECK_CONTAINS(block, "\n4\tprint(value)\n");
  CHECK(nearest_lines(text, "zzzz qqqq").empty());
  CHECK_CONTAINS(refused(text, {{"zzzz qqqq", "x"}}), "nothing there is close to it");
  CHECK(nearest_lines("", "abc").empty());
}

TEST_CASE("line numbers in old_str are recognised") {
  CHECK_CONTAINS(nearest_lines("a\nb\nc\n", "2\tb\n3\tc"), "leave out the line numbers");
}

TEST_CASE("looking for near lines stays quick and short") {
  std::string text;
  for (int i = 0; i < 100'000; ++i) text += "some line of the file with number " + std::to_string(i) + "\n";
  std::string wanted;
  for (int i = 0; i < 200; ++i) wanted += "some other line with number " + std::to_string(i) + "\n";
  CHECK(nearest_lines(text, wanted).size() < 4000);
  CHECK(nearest_lines(std::string(10'000'000, 'a'), std::string(5000, 'a') + "b").size() < 2000);
}

TEST_CASE("a diff has three lines of context and the numbers of the whole file") {
  CHECK(diff("1\n2\n3\n4\n5\n6\n7\n8\n9\n", "1\n2\n3\n4\nfive\n6\n7\n8\n9\n") ==
        "--- /f\n+++ /f\n@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n");
  CHECK(diff("a\n", "a\nb\n") == "--- /f\n+++ /f\n@@ -1 +1,2 @@\n a\n+b\n");
  CHECK(diff("", "a\n") == "--- /f\n+++ /f\n@@ -0,0 +1 @@\n+a\n");
  CHECK(diff("a\n", "") == "--- /f\n+++ /f\n@@ -1 +0,0 @@\n-a\n");
  CHECK(diff("a", "a\n") == "--- /f\n+++ /f\n@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+a\n");
  CHECK(diff("same", "same").empty());
  CHECK(diff("a\r\nb\r\n", "a\r\nc\r\n") == "--- /f\n+++ /f\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n");
}

TEST_CASE("changes far apart are hunks of their own") {
  std::string before;
  for (int i = 1; i <= 40; ++i) before += std::to_string(i) + "\n";
  const std::string out = diff(before, edit(before, {{"\n5\n", "\nfive\n"}, {"\n30\n", "\n"}}));
  CHECK_CONTAINS(out, "@@ -2,7 +2,7 @@");
  CHECK_CONTAINS(out, "@@ -27,7 +27,6 @@");
}

TEST_CASE("a long diff is cut, and says by how much") {
  std::string before, after;
  for (int i = 0; i < 1000; ++i) {
    before += "old " + std::to_string(i) + "\n";
    after += "new " + std::to_string(i) + "\n";
  }
  const std::string out = diff(before, after, 500);
  CHECK(out.size() < 600);
  CHECK_CONTAINS(out, "more lines of the diff]");
  CHECK(diff(std::string(100'000, 'a'), std::string(100'000, 'b')).size() < 2000);
}

TEST_CASE("lines are counted with the last one, ended or not") {
  CHECK(count_lines("") == 0);
  CHECK(count_lines("\n") == 1);
  CHECK(count_lines("a") == 1);
  CHECK(count_lines("a\nb\n") == 2);
  CHECK(count_lines("a\nb\nc") == 3);
}
