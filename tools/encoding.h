#pragma once

#include <cstddef>
#include <string>
#include <string_view>

/// What bytes are, and how they get through JSON.
namespace hutch::tools {

std::string base64_encode(std::string_view bytes);
/// Line ends are skipped. Throws invalid_argument that says where the text is wrong; `name` is the argument.
std::string base64_decode(std::string_view text, std::string_view name);

/// Finds out piece by piece whether bytes are UTF-8. Characters may be split between pieces.
class Utf8Check {
 public:
  void append(std::string_view bytes);
  /// False as well when the last character is incomplete.
  bool valid() const noexcept { return valid_ && missing_ == 0; }
  bool has_nul() const noexcept { return has_nul_; }

 private:
  void step(unsigned char byte);

  unsigned missing_ = 0;               // bytes until the character is complete
  unsigned lowest_ = 0, highest_ = 0;  // of the next byte
  bool valid_ = true, has_nul_ = false;
};

/// Valid UTF-8 without NUL.
bool is_text(std::string_view bytes);

/// "image/png", jpeg, gif or webp by the first bytes (12 are enough); empty for anything else.
std::string_view image_type(std::string_view bytes);

/// The longest beginning or end of `text` with at most `bytes` bytes that splits no character.
std::string_view prefix_of(std::string_view text, size_t bytes);
std::string_view suffix_of(std::string_view text, size_t bytes);

/// Valid UTF-8 in one line: wrong bytes become U+FFFD, control characters \n, \t or \x1b.
std::string one_line(std::string_view bytes);

}  // namespace hutch::tools
