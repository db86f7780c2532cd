#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "sandbox/call_gauge.h"

namespace hutch::sandbox {

/// How short memory is. Each level does what those before it do, and more.
enum class PressureLevel { normal, warning, high, critical, emergency };

std::string_view name_of(PressureLevel level);

/// What the kernel says about memory. Absent: this host does not have it.
struct PressureFigures {
  uint64_t total_bytes = 0, available_bytes = 0;  // of the host
  // Of the group with a limit of its own in which the server or its sandboxes are, and least is left.
  std::optional<uint64_t> group_limit_bytes, group_used_bytes;
  // Percent of the last ten seconds in which some, or all, tasks waited for memory.
  std::optional<double> psi_some, psi_full;

  /// What can still be had, of the host or of the group, whichever is less; and in percent.
  uint64_t free_bytes() const;
  double free_percent() const;
  /// "412 MB of 8192 MB are available (5 %)", of the host or of the group.
  std::string text() const;
};

/// When a level begins and when it is over.
struct PressureBand {
  double enter = 0, leave = 0;  // percent of memory that is available: below, and at least
  double psi = 0;               // percent of time that tasks wait for memory
};

struct PressureBands {
  PressureBand warning, high, critical, emergency;
  std::chrono::seconds min_stay{10};
};

/// The level that the figures mean. It rises at once, by any number of levels, and falls when it has lasted
/// `min_stay` and the figures are past the edge for leaving it.
///
/// Waiting (PSI) alone proves nothing: a sandbox at its own limit waits, and so does one that is throttled.
/// So it counts only while less is available than ends a warning, lifts the level by one at most, and is over
/// at half the value at which it began.
class PressureGauge {
 public:
  explicit PressureGauge(const PressureBands& bands) : bands_(bands) {}

  PressureLevel next(const PressureFigures& figures, Clock::time_point now);
  PressureLevel level() const noexcept { return level_; }
  /// The earliest time at which it may fall.
  Clock::time_point stays_until() const noexcept { return since_ + bands_.min_stay; }

 private:
  PressureLevel reached(const PressureFigures& figures, bool entering) const;
  const PressureBand& band(PressureLevel level) const;

  const PressureBands bands_;
  PressureLevel level_ = PressureLevel::normal;
  Clock::time_point since_{};
};

}  // namespace hutch::sandbox
