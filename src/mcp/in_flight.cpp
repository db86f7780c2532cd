#include "mcp/in_flight.h"

#include <vector>

namespace hutch::mcp {

namespace {

// A message that fits into one write(2) to a pipe can be sent without waiting.
constexpr size_t kMaxProgressText = 1000;

}  // namespace

std::string_view shortened(std::string_view text) {
  if (text.size() <= kMaxProgressText) return text;
  size_t end = kMaxProgressText;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end);
}

void Call::cancel() {
  {
    const std::lock_guard lock(mutex_);
    if (state_ == State::closed) return;
    state_ = State::closed;
    cancelled_ = true;
  }
  stop_.request_stop();  // outside of the lock: it runs callbacks of the tool
}

bool Call::is_cancelled() const {
  const std::lock_guard lock(mutex_);
  return cancelled_;
}

bool Call::is_open() const {
  const std::lock_guard lock(mutex_);
  return state_ == State::open;
}

bool Call::become_task(const std::function<std::string()>& make) {
  const std::lock_guard lock(mutex_);
  if (state_ != State::open) return false;
  task_id_ = make();
  state_ = State::task;
  return true;
}

std::string Call::progress(std::string_view message) {
  const auto now = std::chrono::steady_clock::now();
  const std::lock_guard lock(mutex_);
  if (state_ == State::closed || now < next_progress_) return {};
  next_progress_ = now + progress_interval_;
  const bool told = state_ == State::open || tasks_have_progress(origin_.revision);
  if (told && !origin_.progress_token.is_null()) {
    ordered_json params =
        progress_params(origin_.revision, origin_.progress_token, ++progress_count_, message, task_id_);
    // Sent under the lock, so that the answer cannot overtake it. try_send() does not wait.
    writer_.try_send(rpc::make_notification("notifications/progress", std::move(params)));
  }
  return task_id_;
}

Call::Ending Call::end() {
  const std::lock_guard lock(mutex_);
  const bool open = state_ == State::open;
  state_ = State::closed;
  if (open) return Ending::answer;
  return task_id_.empty() ? Ending::nothing : Ending::task;
}

bool InFlight::contains(const json& id) const {
  const std::lock_guard lock(mutex_);
  return calls_.count(id) != 0;
}

size_t InFlight::size() const {
  const std::lock_guard lock(mutex_);
  return unfinished_;
}

void InFlight::add(std::shared_ptr<Call> call) {
  const std::lock_guard lock(mutex_);
  const json id = call->origin().id;
  calls_.emplace(id, std::move(call));
  ++unfinished_;
}

void InFlight::free_id(const json& id) {
  const std::lock_guard lock(mutex_);
  calls_.erase(id);
}

void InFlight::continue_as_task(const json& id, const std::string& task_id) {
  const std::lock_guard lock(mutex_);
  auto entry = calls_.extract(id);
  if (!entry.empty()) tasks_.emplace(task_id, std::move(entry.mapped()));
}

void InFlight::free_task(const std::string& task_id) {
  const std::lock_guard lock(mutex_);
  tasks_.erase(task_id);
}

void InFlight::finish() {
  const std::lock_guard lock(mutex_);
  if (--unfinished_ == 0) empty_.notify_all();
}

std::shared_ptr<Call> InFlight::find(const json& id) const {
  const std::lock_guard lock(mutex_);
  const auto it = calls_.find(id);
  return it == calls_.end() ? nullptr : it->second;
}

std::shared_ptr<Call> InFlight::find_task(const std::string& task_id) const {
  const std::lock_guard lock(mutex_);
  const auto it = tasks_.find(task_id);
  return it == tasks_.end() ? nullptr : it->second;
}

void InFlight::stop_all() {
  std::vector<std::shared_ptr<Call>> calls;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [id, call] : calls_) calls.push_back(call);
    for (const auto& [id, call] : tasks_) calls.push_back(call);
  }
  for (const auto& call : calls) call->stop();
}

bool InFlight::wait_until_empty(std::chrono::milliseconds timeout) const {
  std::unique_lock lock(mutex_);
  // The system clock variant: thread sanitizers of this compiler generation do not know the steady one.
  return empty_.wait_until(lock, std::chrono::system_clock::now() + timeout,
                           [&] { return unfinished_ == 0; });
}

}  // namespace hutch::mcp
