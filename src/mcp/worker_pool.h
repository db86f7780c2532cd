#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace hutch::mcp {

/// Threads for calls, started one by one as they are needed: an idle server has none.
class WorkerPool {
 public:
  explicit WorkerPool(size_t max_threads) : max_threads_(max_threads) {}
  /// Waits for running jobs; drops those that have not begun.
  ~WorkerPool();

  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  /// Jobs begin in the order in which they come. A job must not throw. False, and nothing done, when there is
  /// no thread and none can be started.
  bool submit(const std::function<void()>& job);
  /// Has another thread begin with this job at once, before those that wait. False, and nothing done, when
  /// all are busy.
  bool hand_over(std::function<void()> job);

 private:
  void work(const std::stop_token& stop);
  bool start_thread() noexcept;

  const size_t max_threads_;
  std::mutex mutex_;
  std::condition_variable_any ready_;
  std::deque<std::function<void()>> jobs_;
  size_t idle_ = 0;
  std::vector<std::jthread> threads_;
};

}  // namespace hutch::mcp
