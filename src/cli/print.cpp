#include "cli/print.h"

#include <fmt/format.h>

#include <algorithm>

#include "schema/text.h"

namespace hutch::cli {

std::string columns(const std::vector<std::vector<std::string>>& rows) {
  if (rows.size() < 2) return {};
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], schema::count_characters(row[i]));
  }
  std::string out;
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i)
      line += row[i] + std::string(widths[i] - schema::count_characters(row[i]) + 2, ' ');
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + '\n';
  }
  return out;
}

std::string time_in_words(int64_t seconds) {
  constexpr int64_t kMinute = 60, kHour = 60 * kMinute, kDay = 24 * kHour;
  const auto two = [&](int64_t large, const char* large_name, int64_t small, const char* small_name) {
    const int64_t rest = seconds % large / small;
    return rest == 0 ? fmt::format("{} {}", seconds / large, large_name)
                     : fmt::format("{} {} {} {}", seconds / large, large_name, rest, small_name);
  };
  if (seconds < kMinute) return fmt::format("{} s", seconds);
  if (seconds < kHour) return fmt::format("{} min", seconds / kMinute);
  return seconds < kDay ? two(kHour, "h", kMinute, "min") : two(kDay, "d", kHour, "h");
}

std::string idle_in_words(bool in_use, int64_t seconds) {
  return in_use ? "in use" : time_in_words(seconds);
}

}  // namespace hutch::cli
