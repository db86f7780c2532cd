#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>

namespace hutch::mcp {

/// How often a user may be asked about one thing: a program in a sandbox must not be able to wear the user
/// down. That a call asks only once is CallContext's business. Thread-safe.
class QuestionBudget {
 public:
  using Clock = std::chrono::steady_clock;

  /// `now` is for tests.
  explicit QuestionBudget(size_t per_hour = 5, std::function<Clock::time_point()> now = Clock::now)
      : per_hour_(per_hour), now_(std::move(now)) {}

  /// Whether one more question about this may be put within the hour; if so, it counts.
  bool take(const std::string& subject);

 private:
  const size_t per_hour_;
  const std::function<Clock::time_point()> now_;
  std::mutex mutex_;
  std::map<std::string, std::deque<Clock::time_point>> asked_;  // oldest first
};

}  // namespace hutch::mcp
