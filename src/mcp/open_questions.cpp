#include "mcp/open_questions.h"

#include "base/sys.h"

namespace hutch::mcp {

std::string OpenQuestions::add(const Question& question) {
  std::string id = "question-" + sys::random_hex(8);
  const std::lock_guard lock(mutex_);
  entries_.emplace(id, Entry{values_of(question)});
  return id;
}

std::optional<Decision> OpenQuestions::wait(const std::string& id, const std::stop_token& stop,
                                            std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  Entry& entry = entries_.at(id);
  // The system clock variant: thread sanitizers of this compiler generation do not know the steady one.
  answered_.wait_until(lock, stop, std::chrono::system_clock::now() + timeout,
                       [&] { return closed_ || entry.decision; });
  std::optional<Decision> out = std::move(entry.decision);
  if (!out && closed_) out = Decision{};
  entries_.erase(id);
  return out;
}

void OpenQuestions::answer(const std::string& id, const json& result) {
  const std::lock_guard lock(mutex_);
  const auto it = entries_.find(id);
  if (it == entries_.end() || it->second.decision) return;
  it->second.decision = decision_of(result, it->second.values);
  answered_.notify_all();
}

void OpenQuestions::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  answered_.notify_all();
}

}  // namespace hutch::mcp
