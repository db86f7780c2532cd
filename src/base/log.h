#pragma once

#include <fmt/format.h>

#include <string_view>

/// The log: lines on stderr, each with one write(2), so that lines of several threads and of a dying process
/// stay whole. Never on stdout: that belongs to the protocol.
namespace hutch::log {

enum class Level { error, warning, info, debug };

/// Called once by main, before other threads start. Until then: warning.
void set_level(Level level) noexcept;
bool enabled(Level level) noexcept;

/// "error" ... "debug"; anything else is warning.
Level level_from(std::string_view name) noexcept;

/// One line; control characters in `text` (it may quote what a sandbox said) are replaced, the end is cut
/// at 4 KiB. Never throws.
void write(Level level, std::string_view text) noexcept;

template <class... Args>
void print(Level level, fmt::format_string<Args...> format, Args&&... args) {
  if (enabled(level)) write(level, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void error(fmt::format_string<Args...> format, Args&&... args) {
  print(Level::error, format, std::forward<Args>(args)...);
}
template <class... Args>
void warning(fmt::format_string<Args...> format, Args&&... args) {
  print(Level::warning, format, std::forward<Args>(args)...);
}
template <class... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
  print(Level::info, format, std::forward<Args>(args)...);
}
template <class... Args>
void debug(fmt::format_string<Args...> format, Args&&... args) {
  print(Level::debug, format, std::forward<Args>(args)...);
}

}  // namespace hutch::log
