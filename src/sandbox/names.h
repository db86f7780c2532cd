#pragma once

#include <algorithm>
#include <string_view>

namespace hutch::sandbox {

inline constexpr std::string_view kPlainNames =
    "up to 64 letters, digits, '.', '_' and '-', not beginning with '.', '-' or 'sbx-'";

/// Whether a sandbox or a volume may be called that: no path, no option and no id.
inline bool is_plain_name(std::string_view name) {
  const bool plain = std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  });
  return plain && !name.empty() && name.size() <= 64 && !name.starts_with("sbx-") && !name.starts_with('-') &&
         !name.starts_with('.');
}

}  // namespace hutch::sandbox
