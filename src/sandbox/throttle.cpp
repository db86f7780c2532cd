#include "sandbox/throttle.h"

#include <algorithm>

namespace hutch::sandbox {

namespace {

double sum_of(const std::vector<PressuredSandbox>& sandboxes, uint64_t PressuredSandbox::*figure) {
  double sum = 0;
  for (const auto& s : sandboxes) sum += static_cast<double>(s.*figure);
  return sum;
}

/// What all of them may use together.
double budget(PressureLevel level, double used, uint64_t free_bytes) {
  if (level == PressureLevel::high) return used + static_cast<double>(free_bytes) / 2;
  return level == PressureLevel::critical ? used : used * 0.9;
}

uint64_t bounded(double wanted, const PressuredSandbox& sandbox, uint64_t floor) {
  const auto bytes = static_cast<uint64_t>(std::max(0.0, wanted)) & ~uint64_t{4095};  // whole pages
  return std::min(std::max(bytes, floor), sandbox.asked_bytes);
}

class Shares {
 public:
  Shares(const std::vector<PressuredSandbox>& sandboxes, double budget)
      : budget_(budget),
        used_(std::max(1.0, sum_of(sandboxes, &PressuredSandbox::used_bytes))),
        asked_(std::max(1.0, sum_of(sandboxes, &PressuredSandbox::asked_bytes))) {}

  double of(const PressuredSandbox& s) const {
    return budget_ / 2 * (static_cast<double>(s.used_bytes) / used_ + by_asked(s));
  }
  /// Bytes that it uses beyond what it would have if only what was asked for counted.
  double excess(const PressuredSandbox& s) const {
    return static_cast<double>(s.used_bytes) - used_ * by_asked(s);
  }

 private:
  double by_asked(const PressuredSandbox& s) const { return static_cast<double>(s.asked_bytes) / asked_; }

  double budget_, used_, asked_;
};

/// Idle ones first, of these the one that is idle longest; else the one that is furthest over its fair share.
std::optional<std::string> least_valuable(const std::vector<PressuredSandbox>& sandboxes,
                                          const Shares& shares, uint64_t floor) {
  const PressuredSandbox* worst = nullptr;
  const auto worse = [&](const PressuredSandbox& a, const PressuredSandbox& b) {
    if (a.busy != b.busy) return b.busy;
    if (!a.busy && a.idle_for != b.idle_for) return a.idle_for > b.idle_for;
    return shares.excess(a) > shares.excess(b);
  };
  for (const auto& s : sandboxes)
    if (s.used_bytes >= floor && (worst == nullptr || worse(s, *worst))) worst = &s;
  return worst == nullptr ? std::nullopt : std::optional(worst->id);
}

}  // namespace

PressurePlan plan_pressure(PressureLevel level, uint64_t free_bytes,
                           const std::vector<PressuredSandbox>& sandboxes, const ThrottleSettings& settings) {
  PressurePlan plan;
  if (level < PressureLevel::high) return plan;
  const double used = sum_of(sandboxes, &PressuredSandbox::used_bytes);
  const Shares shares(sandboxes, budget(level, used, free_bytes));
  for (const auto& s : sandboxes) {
    Squeeze& squeeze = plan.squeezed[s.id];
    const double wanted = settings.by_high ? shares.of(s) : static_cast<double>(s.used_bytes) * 1.1;
    squeeze.memory_bytes = bounded(wanted, s, settings.floor_bytes);
    if (!settings.by_high && s.asked_cpus > 0) squeeze.cpus = s.asked_cpus / 4;
    squeeze.frozen = level >= PressureLevel::critical && !s.busy && s.idle_for >= kIdleBeforeFreeze;
  }
  if (level == PressureLevel::emergency) plan.worst = least_valuable(sandboxes, shares, settings.floor_bytes);
  return plan;
}

}  // namespace hutch::sandbox
