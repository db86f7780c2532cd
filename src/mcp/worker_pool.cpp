#include "mcp/worker_pool.h"

#include <exception>

#include "base/log.h"

namespace hutch::mcp {

WorkerPool::~WorkerPool() {
  for (std::jthread& thread : threads_) thread.request_stop();
  threads_.clear();
}

bool WorkerPool::submit(const std::function<void()>& job) {
  {
    const std::lock_guard lock(mutex_);
    // With fewer threads calls wait longer.
    if (jobs_.size() >= idle_ && threads_.size() < max_threads_) (void)start_thread();
    if (threads_.empty()) return false;
    jobs_.push_back(job);
  }
  ready_.notify_one();
  return true;
}

bool WorkerPool::hand_over(std::function<void()> job) {
  {
    const std::lock_guard lock(mutex_);
    if (jobs_.size() >= idle_ && (threads_.size() >= max_threads_ || !start_thread())) return false;
    jobs_.push_front(std::move(job));
  }
  ready_.notify_one();
  return true;
}

bool WorkerPool::start_thread() noexcept {
  try {
    threads_.emplace_back([this](const std::stop_token& stop) { work(stop); });
    return true;
  } catch (const std::exception& e) {
    log::warning("cannot start worker thread {}: {}", threads_.size() + 1, e.what());
    return false;
  }
}

void WorkerPool::work(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  for (;;) {
    ++idle_;
    const bool has_job = ready_.wait(lock, stop, [&] { return !jobs_.empty(); });
    --idle_;
    if (!has_job || stop.stop_requested()) return;
    {
      const std::function<void()> job = std::move(jobs_.front());
      jobs_.pop_front();
      lock.unlock();
      job();
    }
    lock.lock();
  }
}

}  // namespace hutch::mcp
