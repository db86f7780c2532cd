#include "sandbox/demand.h"

#include <fmt/format.h>

#include <algorithm>

namespace hutch::sandbox {

using namespace std::chrono_literals;

namespace {

/// A refill waits for a pause between calls before it builds, so it takes longer than the build alone.
constexpr int kBuildsPerRefill = 4;
constexpr Clock::duration kShortestRefill = 100ms;
constexpr size_t kMostClaims = 4096;

}  // namespace

Clock::duration Demand::refill_time() const {
  return std::max<Clock::duration>(kBuildsPerRefill * build_time_, kShortestRefill);
}

void Demand::note_build(Clock::duration took) {
  build_time_ = build_time_ == Clock::duration{} ? took : (3 * build_time_ + took) / 4;
}

void Demand::note_claim(Clock::time_point now) {
  last_claim_ = now;
  recent_.push_back(now);
  while (recent_.size() > kMostClaims || recent_.front() + refill_time() < now) recent_.pop_front();
  const int claims = static_cast<int>(recent_.size());
  while (!peaks_.empty() && peaks_.back().claims <= claims) peaks_.pop_back();
  peaks_.push_back({now, claims});
}

Demand::Target Demand::target(int min, int max, Clock::time_point now) {
  while (!peaks_.empty() && peaks_.front().at + cooldown_ <= now) peaks_.pop_front();
  const auto seconds = [](Clock::duration d) { return std::chrono::duration<double>(d).count(); };
  if (peaks_.empty()) return {min, fmt::format("pool.min; no claim in {:g} s", seconds(cooldown_))};
  const int wanted = peaks_.front().claims + 1;
  const std::string why =
      fmt::format("{} claim{} within {:.2g} s, the most in {:g} s", peaks_.front().claims,
                  peaks_.front().claims == 1 ? "" : "s", seconds(refill_time()), seconds(cooldown_));
  if (wanted < min) return {min, "pool.min; " + why};
  if (wanted > max) return {max, "pool.max; " + why};
  return {wanted, "one more than " + why};
}

std::optional<Clock::time_point> Demand::changes_at() const {
  if (peaks_.empty()) return std::nullopt;
  return peaks_.front().at + cooldown_;
}

}  // namespace hutch::sandbox
