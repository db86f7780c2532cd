#include "tools/text_edit.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "schema/text.h"
#include "tools/encoding.h"
#include "tools/nearest_lines.h"
#include "tools/text_lines.h"

namespace hutch::tools {

namespace {

constexpr size_t kCountedMatches = 100;  // more are "more than 100"
constexpr size_t kShownMatches = 10;

std::string to_crlf(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\n') out += '\r';
    out += c;
  }
  return out;
}

bool has_cr(std::string_view text) {
  return text.find('\r') != text.npos;
}

int64_t line_at(std::string_view text, size_t position) {
  const auto end = text.begin() + static_cast<ptrdiff_t>(position);
  return std::count(text.begin(), end, '\n') + 1;
}

Error bad_edit(size_t index, std::string_view what) {
  return {Errc::invalid_argument, fmt::format("edits[{}].{}", index, what)};
}

void check_growth(size_t bytes, size_t max_bytes) {
  if (bytes > max_bytes)
    throw Error(
        Errc::limit_exceeded,
        fmt::format("the file would have {} bytes, more than the {} that this tool writes", bytes, max_bytes))
        .hint("change it with a program through sandbox_exec");
}

/// Where the matches begin, overlapping ones too: any of them may be meant.
std::vector<size_t> matches(std::string_view text, std::string_view wanted) {
  std::vector<size_t> out;
  for (size_t at = position_of(text, wanted, 0); at != text.npos && out.size() <= kCountedMatches;
       at = position_of(text, wanted, at + 1))
    out.push_back(at);
  return out;
}

/// Throws unless there is exactly one, and says where they are.
void check_unique(std::string_view text, size_t index, const std::vector<size_t>& found) {
  if (found.size() == 1) return;
  std::vector<int64_t> lines;
  for (size_t i = 0; i < std::min(found.size(), kShownMatches); ++i) lines.push_back(line_at(text, found[i]));
  const std::string count = found.size() > kCountedMatches ? fmt::format("more than {}", kCountedMatches)
                                                           : fmt::to_string(found.size());
  const std::string after = index > 0 ? " (in the text after the edits before it)" : "";
  const bool all_shown = found.size() <= kShownMatches;
  const int64_t last = lines.back();
  if (all_shown) lines.pop_back();
  throw Error(
      Errc::invalid_argument,
      fmt::format("found {} matches of edits[{}].old_str at lines {}{}{}", count, index,
                  fmt::join(lines, ", "), all_shown ? fmt::format(" and {}", last) : " and on", after))
      .hint("add context to `old_str` to make it unique, or set `replace_all`");
}

Error not_there(std::string_view text, size_t index, const std::string& wanted) {
  Error error = bad_edit(index, "old_str is not in the file");
  if (index > 0) error = bad_edit(index, "old_str is not in the text that the edits before it leave");
  const std::string near = nearest_lines(text, wanted);
  error.hint(near.empty() ? "nothing there is close to it: sandbox_read_file shows the file as it is now"
                          : near);
  return error;
}

struct Replaced {
  std::string text;
  int64_t count = 0;
};

Replaced replace_all(std::string_view text, std::string_view wanted, std::string_view replacement,
                     size_t max_bytes) {
  Replaced out;
  for (size_t at = position_of(text, wanted, 0); at != text.npos;
       at = position_of(text, wanted, at + wanted.size()))
    ++out.count;
  const size_t count = static_cast<size_t>(out.count);
  check_growth(text.size() - count * wanted.size() + count * replacement.size(), max_bytes);
  size_t from = 0;
  for (size_t at = position_of(text, wanted, 0); at != text.npos; at = position_of(text, wanted, from)) {
    out.text += text.substr(from, at - from);
    out.text += replacement;
    from = at + wanted.size();
  }
  out.text += text.substr(from);
  return out;
}

Replaced apply(std::string_view text, const Edit& edit, size_t index, size_t max_bytes) {
  if (edit.old_str.empty())
    throw bad_edit(index, "old_str is empty")
        .hint("`insert_line` with `new_str` adds lines; sandbox_write_file writes a whole file");
  if (edit.old_str == edit.new_str)
    throw bad_edit(index, "old_str and new_str are exactly the same: nothing to change");
  std::string wanted = edit.old_str;
  bool crlf = has_crlf_ends(text);
  const bool may_be_crlf = wanted.find('\n') != wanted.npos && !has_cr(wanted);
  if (crlf && may_be_crlf) wanted = to_crlf(wanted);
  std::vector<size_t> found = matches(text, wanted);
  if (found.empty() && may_be_crlf && !crlf) {  // some lines end in CRLF
    wanted = to_crlf(wanted);
    found = matches(text, wanted);
    crlf = !found.empty();
  }
  if (found.empty()) throw not_there(text, index, edit.old_str);
  if (!edit.replace_all) check_unique(text, index, found);
  const bool take_as_crlf = crlf && !has_cr(edit.old_str) && !has_cr(edit.new_str);
  return replace_all(text, wanted, take_as_crlf ? to_crlf(edit.new_str) : edit.new_str, max_bytes);
}

}  // namespace

Edited apply_edits(std::string text, const std::vector<Edit>& edits, size_t max_bytes) {
  Edited out{.text = std::move(text)};
  for (size_t i = 0; i < edits.size(); ++i) {
    Replaced replaced = apply(out.text, edits[i], i, max_bytes);
    out.text = std::move(replaced.text);
    out.replacements += replaced.count;
  }
  return out;
}

Edited insert_lines(std::string_view text, int64_t after, std::string_view lines, size_t max_bytes) {
  const int64_t total = count_lines(text);
  if (after < 0 || after > total)
    throw Error(Errc::invalid_argument,
                fmt::format("'insert_line' is {}, but the file has {} lines", after, total))
        .hint(fmt::format("`insert_line` is 0 (before the first line) to {} (behind the last one)", total));
  const bool crlf = has_crlf_ends(text) && !has_cr(lines);
  const std::string end = crlf ? "\r\n" : "\n";
  std::string added = crlf ? to_crlf(lines) : std::string(lines);
  if (!added.ends_with('\n')) added += end;

  size_t at = after == 0 && text.starts_with("\xEF\xBB\xBF") ? 3 : 0;  // behind a byte order mark
  for (int64_t line = 0; line < after && at < text.size(); ++line) {
    const size_t next = text.find('\n', at);
    at = next == text.npos ? text.size() : next + 1;
  }
  if (at == text.size() && at > 0 && text.back() != '\n') {
    added.resize(added.size() - (added.ends_with("\r\n") ? 2 : 1));
    added.insert(0, end);
  }
  check_growth(text.size() + added.size(), max_bytes);
  return {.text = fmt::format("{}{}{}", text.substr(0, at), added, text.substr(at)), .replacements = 1};
}

}  // namespace hutch::tools
