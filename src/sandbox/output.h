#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace hutch::sandbox {

/// Bytes of `text` without a last UTF-8 character of which only a part is there.
size_t whole_characters(std::string_view text);

/// Keeps the first third and the last two thirds of whatever is appended, and counts the rest: memory stays
/// below twice the limit whatever a command prints.
class BoundedOutput {
 public:
  /// `limit_bytes`: how much text() may return at most, the line about the cut not counted.
  explicit BoundedOutput(size_t limit_bytes) : limit_(limit_bytes) {}

  void append(std::string_view bytes);
  size_t total_bytes() const noexcept { return total_; }
  bool truncated() const noexcept { return total_ > limit_; }

  /// What is kept, as valid UTF-8 (wrong bytes become U+FFFD). Where something was cut, between lines if
  /// possible and never within a character, stands a line that says how many bytes and `where` the rest is.
  std::string text(std::string_view where) const;
  /// The last line that is not empty, at most 200 characters: for progress messages.
  std::string last_line() const;

 private:
  size_t head_limit() const noexcept { return limit_ / 3; }
  size_t tail_limit() const noexcept { return limit_ - head_limit(); }

  size_t limit_, total_ = 0;
  std::string head_, tail_;  // tail_ may grow to twice its limit before it is trimmed
};

}  // namespace hutch::sandbox
