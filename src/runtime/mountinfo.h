#pragma once

#include <string>
#include <vector>

namespace hutch::runtime {

/// One line of proc(5) mountinfo, with the octal escapes resolved.
struct Mount {
  std::string root, target, type, source;
  std::string super_options;  // "rw,memory"

  bool has_option(std::string_view name) const;
};

std::vector<Mount> read_mountinfo(const std::string& path);
std::vector<Mount> parse_mountinfo(const std::string& text);

}  // namespace hutch::runtime
