#include "mcp/question_budget.h"

namespace hutch::mcp {

bool QuestionBudget::take(const std::string& subject) {
  const std::lock_guard lock(mutex_);
  const auto now = now_();
  for (auto it = asked_.begin(); it != asked_.end();) {
    std::erase_if(it->second, [&](auto time) { return now - time >= std::chrono::hours(1); });
    it = it->second.empty() ? asked_.erase(it) : std::next(it);
  }
  auto& times = asked_[subject];
  if (times.size() >= per_hour_) return false;
  times.push_back(now);
  return true;
}

}  // namespace hutch::mcp
