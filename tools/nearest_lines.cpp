#include "tools/nearest_lines.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "schema/text.h"
#include "tools/encoding.h"
#include "tools/text_lines.h"

namespace hutch::tools {

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

}  // namespace hutch::tools
