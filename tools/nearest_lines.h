#pragma once

#include <string>
#include <string_view>

namespace hutch::tools {

/// What in `text` comes closest to `wanted`, which is not in it, with line numbers and what differs; empty
/// when nothing is close.
std::string nearest_lines(std::string_view text, std::string_view wanted);

}  // namespace hutch::tools
