#include "sandbox/output.h"

#include <fmt/format.h>

namespace hutch::sandbox {

namespace {

constexpr size_t kLineSearch = 400;  // how far a cut moves to fall between lines

bool continues_character(char c) {
  return (static_cast<unsigned char>(c) & 0xC0) == 0x80;
}

/// Length of the valid character at `at`, or 0. Table 3-7 of the Unicode standard.
size_t character_length(std::string_view s, size_t at) {
  const auto byte = [&](size_t i) { return at + i < s.size() ? static_cast<unsigned char>(s[at + i]) : 0u; };
  const auto tail = [&](size_t i) { return (byte(i) & 0xC0) == 0x80; };
  const unsigned first = byte(0), second = byte(1);
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF && tail(1)) return 2;
  if (first >= 0xE0 && first <= 0xEF && tail(1) && tail(2)) {
    if ((first == 0xE0 && second < 0xA0) || (first == 0xED && second > 0x9F)) return 0;
    return 3;
  }
  if (first >= 0xF0 && first <= 0xF4 && tail(1) && tail(2) && tail(3)) {
    if ((first == 0xF0 && second < 0x90) || (first == 0xF4 && second > 0x8F)) return 0;
    return 4;
  }
  return 0;
}

/// The head without a broken last character, ending at a line's end when one is near.
std::string_view head_until_line(std::string_view head) {
  const size_t line = head.rfind('\n');
  if (line != std::string_view::npos && head.size() - line <= kLineSearch) return head.substr(0, line + 1);
  size_t end = head.size();
  while (end > 0 && head.size() - end < 3 && continues_character(head[end - 1])) --end;
  if (end > 0 && static_cast<unsigned char>(head[end - 1]) >= 0xC0 && character_length(head, end - 1) == 0)
    --end;
  else
    end = head.size();
  return head.substr(0, end);
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
  if (!truncated()) return valid_utf8(head_ + tail_);
  const std::string_view kept_tail =
      tail_.size() > tail_limit() ? std::string_view(tail_).substr(tail_.size() - tail_limit()) : tail_;
  const std::string_view head = head_until_line(head_), tail = tail_from_line(kept_tail);
  const size_t cut = total_ - head.size() - tail.size();
  return fmt::format("{}{}[... {} of {} bytes cut here{}{} ...]\n{}", valid_utf8(head),
                     head.empty() || head.back() == '\n' ? "" : "\n", cut, total_,
                     where.empty() ? "" : "; all of it: ", where, valid_utf8(tail));
}

std::string BoundedOutput::last_line() const {
  std::string_view text = tail_.empty() ? head_ : tail_;
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r' || text.back() == ' '))
    text.remove_suffix(1);
  const size_t start = text.find_last_of("\r\n");
  if (start != std::string_view::npos) text.remove_prefix(start + 1);
  if (text.size() > 200) text = text.substr(0, 200);
  return valid_utf8(head_until_line(text));
}

std::string valid_utf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  for (size_t at = 0; at < bytes.size();) {
    const size_t length = character_length(bytes, at);
    if (length == 0) {
      out += "\xEF\xBF\xBD";
      ++at;
    } else {
      out.append(bytes.substr(at, length));
      at += length;
    }
  }
  return out;
}

std::string cut_text(std::string_view text, size_t limit_bytes, std::string_view where) {
  BoundedOutput output(limit_bytes);
  output.append(text);
  return output.text(where);
}

}  // namespace hutch::sandbox
