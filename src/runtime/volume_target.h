#pragma once

#include <algorithm>
#include <array>
#include <string>
#include <string_view>

namespace hutch::runtime {

/// Why no volume may be mounted at `path`, an absolute path inside without links, "." and ".."; empty when
/// one may. What lies in memory is mounted anew by runtimes; over the rest no program would start any more.
inline std::string_view refused_target(std::string_view path) {
  constexpr std::array<std::string_view, 5> kTrees = {"/dev", "/proc", "/run", "/sys", "/var/log/hutch"};
  constexpr std::array<std::string_view, 12> kFolders = {"/bin",   "/etc",     "/lib",     "/lib32",
                                                         "/lib64", "/libx32",  "/sbin",    "/usr",
                                                         "/var",   "/usr/bin", "/usr/lib", "/var/log"};
  if (path.empty() || path == "/") return "it is the root";
  const auto holds = [&](std::string_view tree) {
    return path.starts_with(tree) && (path.size() == tree.size() || path[tree.size()] == '/');
  };
  if (std::ranges::any_of(kTrees, holds)) return "that part of a sandbox is hutch's or the kernel's";
  if (std::ranges::find(kFolders, path) != kFolders.end()) return "it would hide what every sandbox needs";
  return {};
}

/// Without doubled and trailing slashes; empty when it is not absolute, or has "." or ".." in it.
inline std::string plain_target(std::string_view path) {
  std::string plain;
  if (!path.starts_with('/')) return plain;
  while (!path.empty()) {
    path.remove_prefix(1);
    const std::string_view name = path.substr(0, path.find('/'));
    path.remove_prefix(name.size());
    if (name == "." || name == "..") return {};
    if (!name.empty()) plain.append("/").append(name);
  }
  return plain.empty() ? "/" : plain;
}

}  // namespace hutch::runtime
