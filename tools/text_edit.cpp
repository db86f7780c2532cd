#include "tools/text_edit.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <dtl/dtl.hpp>

#include "base/error.h"
#include "schema/text.h"
#include "tools/encoding.h"

namespace hutch::tools {

namespace {

using Lines = std::vector<std::string_view>;

constexpr size_t kCountedMatches = 100;  // more are "more than 100"
constexpr size_t kShownMatches = 10;

/// With their ends.
Lines split_lines(std::string_view text) {
  Lines lines;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    lines.push_back(text.substr(0, end == text.npos ? end : end + 1));
    text.remove_prefix(lines.back().size());
  }
  return lines;
}

std::string_view without_end(std::string_view line) {
  if (line.ends_with('\n')) line.remove_suffix(1);
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

/// memmem() takes linear time whatever the texts are; std::string::find does not.
size_t position_of(std::string_view text, std::string_view wanted, size_t from) {
  if (from >= text.size()) return text.npos;
  const void* found = ::memmem(text.data() + from, text.size() - from, wanted.data(), wanted.size());
  return found == nullptr ? text.npos : static_cast<size_t>(static_cast<const char*>(found) - text.data());
}

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

int64_t count_lines(std::string_view text) {
  return std::count(text.begin(), text.end(), '\n') + (text.empty() || text.back() == '\n' ? 0 : 1);
}

bool has_crlf_ends(std::string_view text) {
  bool any = false;
  for (size_t at = text.find('\n'); at != text.npos; at = text.find('\n', at + 1)) {
    if (at == 0 || text[at - 1] != '\r') return false;
    any = true;
  }
  return any;
}

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

// --- What was meant
// ---------------------------------------------------------------------------------------------

namespace {

constexpr size_t kSearchedLines = 300'000;
constexpr size_t kComparedBytes = 1000;  // of one line
constexpr size_t kShownLines = 10;
constexpr size_t kShownBytes = 200;  // of one line
constexpr double kClose = 0.5;

bool is_blank(char c) {
  return c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '\v' || c == '\f';
}

std::string without_blanks(std::string_view line) {
  std::string out;
  std::copy_if(line.begin(), line.end(), std::back_inserter(out), [](char c) { return !is_blank(c); });
  return out;
}

/// "12<TAB>" as sandbox_read_file puts it before a line.
std::string without_numbers(std::string_view wanted) {
  std::string out;
  for (std::string_view line : split_lines(wanted)) {
    const size_t digits = line.find_first_not_of(' ');
    const size_t tab = digits == line.npos ? digits : line.find_first_not_of("0123456789", digits);
    if (tab == line.npos || tab == digits || line[tab] != '\t') return {};
    out += line.substr(tab + 1);
  }
  return out;
}

std::string shown_line(std::string_view line) {
  line = without_end(line);
  const std::string_view part = prefix_of(line, kShownBytes);
  return schema::valid_utf8(part) + (part.size() < line.size() ? "…" : "");
}

std::string numbered(const Lines& lines, size_t first, size_t count) {
  std::string out;
  for (size_t i = first; i < std::min(lines.size(), first + std::min(count, kShownLines)); ++i)
    out += fmt::format("\n{}\t{}", i + 1, shown_line(lines[i]));
  if (count > kShownLines) out += fmt::format("\n[... {} more lines]", count - kShownLines);
  return out;
}

std::string range_in_words(size_t first, size_t count) {
  return count == 1 ? fmt::format("line {}", first + 1)
                    : fmt::format("lines {}-{}", first + 1, first + count);
}

/// Blanks made visible: `·` a space, `→` a tab, `␍` a carriage return.
std::string with_visible_blanks(std::string_view line) {
  if (line.ends_with('\n')) line.remove_suffix(1);
  std::string out;
  for (const char c : schema::valid_utf8(prefix_of(line, kShownBytes)))
    out += c == ' ' ? "·" : c == '\t' ? "→" : c == '\r' ? "␍" : std::string(1, c);
  return out;
}

/// A text may begin and end within a line, so its first and last line are compared in part.
bool fits(const std::vector<std::string>& lines, size_t first, const std::vector<std::string>& wanted) {
  const size_t count = wanted.size();
  if (count == 1) return position_of(lines[first], wanted[0], 0) != std::string::npos;
  if (!lines[first].ends_with(wanted.front()) || !lines[first + count - 1].starts_with(wanted.back()))
    return false;
  return std::equal(wanted.begin() + 1, wanted.end() - 1, lines.begin() + static_cast<ptrdiff_t>(first) + 1);
}

std::string differs_in_blanks(const Lines& lines, const Lines& wanted) {
  std::vector<std::string> bare_lines, bare_wanted;
  for (const auto line : wanted) bare_wanted.push_back(without_blanks(line));
  if (std::all_of(bare_wanted.begin(), bare_wanted.end(), [](const auto& line) { return line.empty(); }))
    return {};
  for (const auto line : lines) bare_lines.push_back(without_blanks(line));
  for (size_t first = 0; first + wanted.size() <= lines.size(); ++first) {
    if (!fits(bare_lines, first, bare_wanted)) continue;
    size_t at = 0;
    while (at + 1 < wanted.size() && lines[first + at] == wanted[at]) ++at;
    return fmt::format(
        "{} of the file differ{} from `old_str` only in whitespace. Line {}, with · for a space and → for a "
        "tab:\n  file:    {}\n  old_str: {}",
        range_in_words(first, wanted.size()), wanted.size() == 1 ? "s" : "", first + at + 1,
        with_visible_blanks(lines[first + at]), with_visible_blanks(wanted[at]));
  }
  return {};
}

/// How alike lines are to one line: shared pairs of neighbouring characters, 0 to 1 (Dice's coefficient).
class Likeness {
 public:
  explicit Likeness(std::string_view line) : wanted_(kPairs), stamps_(kPairs) {
    each_pair(line, [&](size_t pair) {
      wanted_count_ += wanted_[pair] == 0 ? 1 : 0;
      wanted_[pair] = 1;
    });
  }
  size_t size() const { return wanted_count_; }

  double of(std::string_view line) {
    ++stamp_;
    size_t count = 0, shared = 0;
    each_pair(line, [&](size_t pair) {
      if (stamps_[pair] == stamp_) return;
      stamps_[pair] = stamp_;
      ++count;
      shared += wanted_[pair];
    });
    const size_t all = count + wanted_count_;
    return all == 0 ? 0 : 2 * static_cast<double>(shared) / static_cast<double>(all);
  }

 private:
  static constexpr size_t kPairs = 65536;

  template <class Fn>
  static void each_pair(std::string_view line, Fn fn) {
    line = line.substr(0, kComparedBytes);
    while (!line.empty() && is_blank(line.front())) line.remove_prefix(1);
    while (!line.empty() && is_blank(line.back())) line.remove_suffix(1);
    for (size_t i = 1; i < line.size(); ++i)
      fn(static_cast<size_t>(static_cast<unsigned char>(line[i - 1])) << 8 |
         static_cast<unsigned char>(line[i]));
  }

  std::vector<uint8_t> wanted_;
  std::vector<uint32_t> stamps_;
  uint32_t stamp_ = 0;
  size_t wanted_count_ = 0;
};

struct Candidate {
  double likeness = 0;
  size_t line = 0;
};

/// The lines most like `wanted`, best first, at most `count`.
std::vector<Candidate> most_like(const Lines& lines, std::string_view wanted, size_t count) {
  Likeness likeness(wanted);
  std::vector<Candidate> out;
  for (size_t i = 0; i < lines.size(); ++i)
    if (const double value = likeness.of(lines[i]); value >= kClose) out.push_back({value, i});
  const auto better = [](const Candidate& a, const Candidate& b) { return a.likeness > b.likeness; };
  std::stable_sort(out.begin(), out.end(), better);
  if (out.size() > count) out.resize(count);
  return out;
}

/// The line that says most about where the text belongs.
size_t anchor_of(const Lines& wanted) {
  size_t best = 0, best_size = 0;
  for (size_t i = 0; i < std::min<size_t>(wanted.size(), 50); ++i) {
    const size_t size = Likeness(wanted[i]).size();
    if (size > best_size) {
      best = i;
      best_size = size;
    }
  }
  return best;
}

std::string nearest_block(const Lines& lines, const Lines& wanted) {
  const size_t anchor = anchor_of(wanted);
  const size_t compared = std::min<size_t>(wanted.size(), 50);
  Candidate best;
  for (const Candidate& candidate : most_like(lines, wanted[anchor], 20)) {
    if (candidate.line < anchor) continue;
    const size_t first = candidate.line - anchor;
    double sum = 0;
    for (size_t i = 0; i < compared && first + i < lines.size(); ++i)
      sum += without_end(lines[first + i]) == without_end(wanted[i])
                 ? 1
                 : Likeness(wanted[i]).of(lines[first + i]);
    if (sum > best.likeness) best = {sum, first};
  }
  if (best.likeness <= 0) return {};
  const size_t count = std::min(wanted.size(), lines.size() - best.line);
  size_t at = 0;
  while (at + 1 < count && without_end(lines[best.line + at]) == without_end(wanted[at])) ++at;
  return fmt::format(
      "the nearest of the file are {}; line {} is the first that differs from `old_str`, which has\n\t{}{}",
      range_in_words(best.line, count), best.line + at + 1, shown_line(wanted[at]),
      "\nand the file:" + numbered(lines, best.line, count));
}

}  // namespace

std::string nearest_lines(std::string_view text, std::string_view wanted) {
  if (const std::string bare = without_numbers(wanted);
      !bare.empty() && position_of(text, bare, 0) != text.npos)
    return "leave out the line numbers and tabs that sandbox_read_file puts before the lines: without them "
           "`old_str` is there";
  const Lines lines = split_lines(text), wanted_lines = split_lines(wanted);
  if (lines.size() > kSearchedLines || wanted_lines.empty()) return {};
  if (std::string blanks = differs_in_blanks(lines, wanted_lines); !blanks.empty()) return blanks;
  if (wanted_lines.size() > 1) return nearest_block(lines, wanted_lines);
  std::string out;
  for (const Candidate& candidate : most_like(lines, wanted, 3)) out += numbered(lines, candidate.line, 1);
  return out.empty() ? out : "take `old_str` from the file as it is; the nearest lines:" + out;
}

// --- Diff
// -------------------------------------------------------------------------------------------------------

namespace {

constexpr size_t kContext = 3;
constexpr size_t kDiffedLines = 200'000;  // beyond, finding the shortest diff takes too long
constexpr size_t kDiffLineBytes = 500;

/// A diff of limited length: lines that do not fit are counted.
class DiffText {
 public:
  DiffText(std::string head, size_t max_bytes, bool hide_cr)
      : text_(std::move(head)), max_bytes_(max_bytes), hide_cr_(hide_cr) {}

  void add_header(const std::string& header) { add(header); }
  void add_line(char mark, std::string_view line) {
    const bool ended = line.ends_with('\n');
    if (ended) line.remove_suffix(1);
    if (hide_cr_ && line.ends_with('\r')) line.remove_suffix(1);
    const std::string_view part = prefix_of(line, kDiffLineBytes);
    const size_t rest = line.size() - part.size();
    add(fmt::format("{}{}{}{}", mark, schema::valid_utf8(part),
                    rest > 0 ? fmt::format("… ({} more bytes)", rest) : "",
                    ended ? "" : "\n\\ No newline at end of file"));
  }
  std::string take() {
    if (left_out_ > 0) text_ += fmt::format("[... {} more lines of the diff]\n", left_out_);
    return std::move(text_);
  }

 private:
  void add(const std::string& line) {
    if (left_out_ > 0 || text_.size() + line.size() >= max_bytes_) {
      ++left_out_;
      return;
    }
    text_ += line;
    text_ += '\n';
  }

  std::string text_;
  size_t max_bytes_, left_out_ = 0;
  bool hide_cr_;
};

/// Lines of both texts, in order, each with what dtl found out about it.
using Script = std::vector<std::pair<std::string_view, dtl::elemInfo>>;

Script shortest_script(const Lines& before, const Lines& after) {
  dtl::Diff<std::string_view, Lines> diff(before, after);
  diff.compose();
  return diff.getSes().getSequence();
}

/// Lines first..last-1 of a script as one hunk, at these lines of the two files, which it moves on.
class HunkWriter {
 public:
  HunkWriter(const Script& script, size_t line, DiffText& out)
      : script_(script), before_(line), after_(line), out_(out) {}

  void skip(size_t first, size_t last) {
    before_ += lines(first, last, dtl::SES_ADD);
    after_ += lines(first, last, dtl::SES_DELETE);
  }

  void write(size_t first, size_t last) {
    out_.add_header(fmt::format("@@ -{} +{} @@", place(before_, lines(first, last, dtl::SES_ADD)),
                                place(after_, lines(first, last, dtl::SES_DELETE))));
    for (size_t i = first; i < last;) {
      const size_t end = end_of_block(i, last);
      for (const auto& [type, mark] :
           {std::pair(dtl::SES_COMMON, ' '), std::pair(dtl::SES_DELETE, '-'), std::pair(dtl::SES_ADD, '+')})
        for (size_t at = i; at < end; ++at)
          if (script_[at].second.type == type) out_.add_line(mark, script_[at].first);
      i = end;
    }
    skip(first, last);
  }

 private:
  /// Of lines that are all the same in both texts, or all not.
  size_t end_of_block(size_t first, size_t last) const {
    const auto common = [&](size_t i) { return script_[i].second.type == dtl::SES_COMMON; };
    size_t end = first + 1;
    while (end < last && common(end) == common(first)) ++end;
    return end;
  }
  size_t lines(size_t first, size_t last, dtl::edit_t without) const {
    size_t count = 0;
    for (size_t i = first; i < last; ++i) count += script_[i].second.type != without ? 1 : 0;
    return count;
  }
  /// Of no lines the number is that of the line before.
  static std::string place(size_t line, size_t count) {
    return count == 1 ? fmt::to_string(line) : fmt::format("{},{}", count == 0 ? line - 1 : line, count);
  }

  const Script& script_;
  size_t before_, after_;
  DiffText& out_;
};

void write_hunks(const Script& script, size_t line, DiffText& out) {
  const auto next_change = [&](size_t from) {
    while (from < script.size() && script[from].second.type == dtl::SES_COMMON) ++from;
    return from;
  };
  HunkWriter writer(script, line, out);
  size_t done = 0;
  for (size_t change = next_change(0); change < script.size();) {
    const size_t first = std::max(done, change - std::min(change, kContext));
    size_t end = change + 1;
    while ((change = next_change(end)) < script.size() && change - end <= 2 * kContext) end = change + 1;
    const size_t last = std::min(script.size(), end + kContext);
    writer.skip(done, first);
    writer.write(first, last);
    done = last;
  }
}

}  // namespace

std::string unified_diff(std::string_view path, std::string_view before, std::string_view after,
                         size_t max_bytes) {
  if (before == after) return {};
  const Lines a = split_lines(before), b = split_lines(after);
  // What is the same at both ends is kept from dtl and costs nothing.
  const auto [first_a, first_b] = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  const auto [end_a, end_b] = std::mismatch(a.rbegin(), std::make_reverse_iterator(first_a), b.rbegin(),
                                            std::make_reverse_iterator(first_b));
  const Lines changed_a(first_a, end_a.base()), changed_b(first_b, end_b.base());
  const std::string name = one_line(path);
  if (changed_a.size() + changed_b.size() > kDiffedLines)
    return fmt::format("[no diff: {} lines became {} from line {} on]\n", changed_a.size(), changed_b.size(),
                       first_a - a.begin() + 1);

  const auto common = [](std::string_view line) {
    return std::pair(line, dtl::elemInfo{0, 0, dtl::SES_COMMON});
  };
  const auto context = static_cast<ptrdiff_t>(kContext);
  const auto start = first_a - std::min(first_a - a.begin(), context);
  const auto stop = end_a.base() + std::min(a.end() - end_a.base(), context);
  Script script;
  std::transform(start, first_a, std::back_inserter(script), common);
  const Script changed = shortest_script(changed_a, changed_b);
  script.insert(script.end(), changed.begin(), changed.end());
  std::transform(end_a.base(), stop, std::back_inserter(script), common);

  DiffText out(fmt::format("--- {0}\n+++ {0}\n", name), max_bytes,
               has_crlf_ends(before) && has_crlf_ends(after));
  write_hunks(script, static_cast<size_t>(start - a.begin()) + 1, out);
  return out.take();
}

}  // namespace hutch::tools
