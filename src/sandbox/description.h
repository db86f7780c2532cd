#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "runtime/runtime.h"
#include "sandbox/base.h"

namespace hutch::sandbox {

using WallClock = std::chrono::system_clock;

/// A volume as one sandbox has it.
struct AttachedVolume {
  std::string name, target;
  bool read_only = false;
  uint64_t size_bytes = 0;
  std::string not_limited;              // why the size does not hold; empty when it does
  std::optional<runtime::DiskId> disk;  // that has its files, where there is one
  std::optional<uint64_t> used_bytes;   // of that disk, when it was attached
};

/// What a sandbox is like for the one who claimed it.
struct Description {
  std::string id, name, profile, runtime, workdir;
  std::string network = "none";    // or filtered, full
  std::vector<std::string> allow;  // what it may reach: hosts and networks, see config::Profile
  std::string user;                // of its commands, as wire::Exec has it; empty = root
  std::map<std::string, std::string> env, labels;
  std::map<std::string, std::string> secrets;  // by name, what stands for them inside
  runtime::Limits limits;
  runtime::Isolation isolation;
  bool warm = false;                                             // it was ready before it was asked for
  std::chrono::seconds ttl{0}, idle_timeout{0}, pause_after{0};  // 0 = none
  std::chrono::seconds background_keeps_alive{0};
  WallClock::time_point created_at;
  WallClock::time_point expires_at;  // when the lifetime is over; the clock's epoch = never
  std::chrono::microseconds create_time{0};
  Base base;
  std::vector<AttachedVolume> volumes;  // parents of targets first

  bool has_end() const noexcept { return expires_at != WallClock::time_point{}; }
  bool is_over() const noexcept { return has_end() && expires_at <= WallClock::now(); }
};

/// As the cause of its end.
inline std::string lifetime_was_over(const Description& about) {
  return "its lifetime of " + std::to_string(about.ttl.count()) + " s was over";
}

}  // namespace hutch::sandbox
