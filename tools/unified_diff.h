#pragma once

#include <string>
#include <string_view>

namespace hutch::tools {

/// Unified, three lines of context, about `max_bytes` at most: what does not fit is left out and counted.
std::string unified_diff(std::string_view path, std::string_view before, std::string_view after,
                         size_t max_bytes);

}  // namespace hutch::tools
