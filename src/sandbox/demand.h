#pragma once

#include <chrono>
#include <deque>
#include <optional>
#include <string>

#include "base/process.h"

namespace hutch::sandbox {

/// How many sandboxes of one kind are worth keeping ready, from what was asked for lately. No clock of its
/// own.
class Demand {
 public:
  explicit Demand(Clock::duration cooldown) : cooldown_(cooldown) {}

  void note_claim(Clock::time_point now);
  void note_build(Clock::duration took);

  struct Target {
    int count = 0;
    std::string reason;
  };
  /// One more than the most claims that came within one refill time during the cooldown, between `min` and
  /// `max`: arrival rate times time to build, at its highest.
  Target target(int min, int max, Clock::time_point now);

  /// When the target may fall without a further claim; nothing when it rests.
  std::optional<Clock::time_point> changes_at() const;
  Clock::duration build_time() const noexcept { return build_time_; }
  std::optional<Clock::time_point> last_claim() const noexcept { return last_claim_; }

 private:
  struct Peak {
    Clock::time_point at;
    int claims = 0;
  };
  Clock::duration refill_time() const;

  Clock::duration cooldown_;
  Clock::duration build_time_{};          // moving average; zero before the first build
  std::deque<Clock::time_point> recent_;  // claims within the last refill time
  std::deque<Peak> peaks_;                // falling counts: the first one is the highest that still counts
  std::optional<Clock::time_point> last_claim_;
};

}  // namespace hutch::sandbox
