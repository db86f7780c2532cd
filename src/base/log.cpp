#include "base/log.h"

#include <unistd.h>

#include <array>
#include <atomic>

namespace hutch::log {

namespace {

constinit std::atomic<Level> g_level{Level::warning};
constexpr std::array<std::string_view, 4> kNames = {"error", "warning", "info", "debug"};

}  // namespace

void set_level(Level level) noexcept {
  g_level.store(level, std::memory_order_relaxed);
}

bool enabled(Level level) noexcept {
  return level <= g_level.load(std::memory_order_relaxed);
}

Level level_from(std::string_view name) noexcept {
  for (size_t i = 0; i < kNames.size(); ++i)
    if (kNames[i] == name) return static_cast<Level>(i);
  return Level::warning;
}

void write(Level level, std::string_view text) noexcept {
  if (!enabled(level)) return;
  std::array<char, 4096> line;
  size_t used = 0;
  const auto append = [&](std::string_view part) {
    // The last byte stays free for the newline.
    for (const char c : part)
      if (used < line.size() - 1) line[used++] = (c >= 0 && c < ' ') || c == 0x7f ? ' ' : c;
  };
  append("hutch ");
  append(kNames[static_cast<size_t>(level)]);
  append(": ");
  append(text);
  line[used++] = '\n';
  // There is nowhere to report that stderr is full or gone.
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line.data(), used);
}

}  // namespace hutch::log
