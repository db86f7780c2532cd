#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "sandbox/pressure.h"

namespace hutch::sandbox {

/// One sandbox as it is when it is decided what to do with it.
struct PressuredSandbox {
  std::string id;
  uint64_t used_bytes = 0;
  uint64_t asked_bytes = 0;  // its limit, as it is asked for now
  double asked_cpus = 0;
  bool busy = false;  // a call or a command runs
  Clock::duration idle_for{0};
};

/// What one sandbox gets instead of what was asked for. Absent: that.
struct Squeeze {
  std::optional<uint64_t> memory_bytes;
  std::optional<double> cpus;
  bool frozen = false;

  friend bool operator==(const Squeeze&, const Squeeze&) = default;
};

/// Shorter, and a model that calls now and then would find it frozen each time.
inline constexpr Clock::duration kIdleBeforeFreeze = std::chrono::seconds(2);

struct PressurePlan {
  std::map<std::string, Squeeze> squeezed;  // all others get back what they asked for
  std::optional<std::string> worst;         // the least valuable one, at emergency
};

struct ThrottleSettings {
  uint64_t floor_bytes = 32u << 20;  // never less for one, and whoever uses less is not worth ending
  bool by_high = true;               // cgroup v2: memory.high slows down and ends nothing
};

/// What to do with whom.
///
/// v2: all together may grow by half of what is available at high, by nothing at critical, and shall shrink
/// by a tenth at emergency. Half of that sum is shared by what each uses, half by what each was given. v1 has
/// hard limits only, at which the kernel ends commands: there each may grow by a tenth from one look to the
/// next, with a quarter of its processor time.
PressurePlan plan_pressure(PressureLevel level, uint64_t free_bytes,
                           const std::vector<PressuredSandbox>& sandboxes, const ThrottleSettings& settings);

}  // namespace hutch::sandbox
