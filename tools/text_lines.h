#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

/// Texts as lines.
namespace hutch::tools {

using Lines = std::vector<std::string_view>;

/// With their ends.
Lines split_lines(std::string_view text);
std::string_view without_end(std::string_view line);
/// Where `wanted` first is at or behind `from`; npos when it is not. In linear time whatever the texts are
/// (memmem), which std::string::find is not.
size_t position_of(std::string_view text, std::string_view wanted, size_t from);
int64_t count_lines(std::string_view text);
/// Every line ends in CRLF, and there is one.
bool has_crlf_ends(std::string_view text);

}  // namespace hutch::tools
