#include "sandbox/id_ranges.h"

#include <algorithm>
#include <sstream>
#include <string>

#include "base/sys.h"

namespace hutch::sandbox {

namespace {

constexpr uint32_t kFirst = 0x70000000, kSize = 65536, kRanges = 0x0FFF;

/// Lines of subuid(5): "name:first:count".
void read_reserved(const std::string& path, std::vector<std::pair<uint64_t, uint64_t>>& out) {
  if (!sys::exists(path)) return;
  std::istringstream lines(sys::read_file(path));
  for (std::string line; std::getline(lines, line);) {
    std::istringstream fields(line.substr(line.find(':') + 1));
    uint64_t first = 0, count = 0;
    char colon = 0;
    if (fields >> first >> colon >> count) out.emplace_back(first, count);
  }
}

}  // namespace

uint32_t IdRanges::take() {
  const std::lock_guard lock(mutex_);
  if (!std::exchange(loaded_, true)) {
    read_reserved("/etc/subuid", reserved_);
    read_reserved("/etc/subgid", reserved_);
  }
  const auto start = static_cast<uint32_t>(std::stoul(sys::random_hex(4), nullptr, 16));
  for (uint32_t i = 0; i < kRanges; ++i) {
    const uint32_t first = kFirst + ((start + i) % kRanges) * kSize;
    const bool reserved = std::ranges::any_of(reserved_, [&](const auto& r) {
      return first < r.first + r.second && r.first < first + uint64_t{kSize};
    });
    if (!reserved && taken_.insert(first).second) return first;
  }
  throw Error(Errc::limit_exceeded, "no range of user ids is free for another sandbox");
}

void IdRanges::keep(uint32_t first_id) {
  const std::lock_guard lock(mutex_);
  taken_.insert(first_id);
}

void IdRanges::give_back(uint32_t first_id) {
  const std::lock_guard lock(mutex_);
  taken_.erase(first_id);
}

}  // namespace hutch::sandbox
