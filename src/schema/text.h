#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace hutch::schema {

/// The candidate that `word` was most likely meant to be; empty when none is close.
std::string_view nearest(std::string_view word, const std::vector<std::string_view>& candidates);

/// The same text with every invalid UTF-8 sequence replaced by U+FFFD.
std::string valid_utf8(std::string_view text);

/// Characters, not bytes; `text` is valid UTF-8.
size_t count_characters(std::string_view text);

}  // namespace hutch::schema
