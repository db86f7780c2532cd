#include "tools/unified_diff.h"

#include <fmt/format.h>

#include <algorithm>
#include <dtl/dtl.hpp>
#include <vector>

#include "schema/text.h"
#include "tools/encoding.h"
#include "tools/text_lines.h"

namespace hutch::tools {

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
