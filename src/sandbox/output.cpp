#include "sandbox/output.h"

#include <fmt/format.h>

#include "schema/text.h"

namespace hutch::sandbox {

namespace {

constexpr size_t kLineSearch = 400;  // how far a cut moves to fall between lines

bool continues_character(char c) {
  return (static_cast<unsigned char>(c) & 0xC0) == 0x80;
}

/// Bytes that a character takes which begins with `lead`.
size_t character_length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1;
}

/// The head up to a line's end when one is near, and otherwise without a last character that is not complete.
std::string_view head_until_line(std::string_view head) {
  const size_t line = head.rfind('\n');
  if (line != std::string_view::npos && head.size() - line <= kLineSearch) return head.substr(0, line + 1);
  return head.substr(0, whole_characters(head));
}

std::string_view tail_from_line(std::string_view tail) {
  const size_t line = tail.find('\n');
  if (line != std::string_view::npos && line < kLineSearch && line + 1 < tail.size())
    return tail.substr(line + 1);
  size_t start = 0;
  while (start < 3 && start < tail.size() && continues_character(tail[start])) ++start;
  return tail.substr(start);
}

}  // namespace

size_t whole_characters(std::string_view text) {
  for (size_t lead = text.size(); lead > 0 && text.size() - lead < 4;) {
    if (continues_character(text[--lead])) continue;
    return character_length(text[lead]) > text.size() - lead ? lead : text.size();
  }
  return text.size();
}

void BoundedOutput::append(std::string_view bytes) {
  total_ += bytes.size();
  if (head_.size() < head_limit()) {
    const size_t taken = std::min(bytes.size(), head_limit() - head_.size());
    head_.append(bytes.substr(0, taken));
    bytes.remove_prefix(taken);
  }
  if (bytes.size() > tail_limit()) bytes.remove_prefix(bytes.size() - tail_limit());
  tail_.append(bytes);
  // Trimmed only now and then, so that a flood of small pieces does not move memory every time.
  if (tail_.size() > 2 * tail_limit()) tail_.erase(0, tail_.size() - tail_limit());
}

std::string BoundedOutput::text(std::string_view where) const {
  if (!truncated()) return schema::valid_utf8(head_ + tail_);
  const std::string_view kept_tail =
      tail_.size() > tail_limit() ? std::string_view(tail_).substr(tail_.size() - tail_limit()) : tail_;
  const std::string_view head = head_until_line(head_), tail = tail_from_line(kept_tail);
  const size_t cut = total_ - head.size() - tail.size();
  return fmt::format("{}{}[... {} of {} bytes cut here{}{} ...]\n{}", schema::valid_utf8(head),
                     head.empty() || head.back() == '\n' ? "" : "\n", cut, total_,
                     where.empty() ? "" : "; all of it: ", where, schema::valid_utf8(tail));
}

std::string BoundedOutput::last_line() const {
  std::string_view text = tail_.empty() ? head_ : tail_;
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r' || text.back() == ' '))
    text.remove_suffix(1);
  const size_t start = text.find_last_of("\r\n");
  if (start != std::string_view::npos) text.remove_prefix(start + 1);
  if (text.size() > 200) text = text.substr(0, 200);
  return schema::valid_utf8(head_until_line(text));
}

}  // namespace hutch::sandbox
