#include "mcp/worker_pool.h"

#include <system_error>

#include "base/error.h"
#include "base/log.h"

namespace hutch::mcp {

WorkerPool::~WorkerPool() {
  for (std::jthread& thread : threads_) thread.request_stop();
  threads_.clear();
}

void WorkerPool::submit(std::function<void()> job) {
  {
    const std::lock_guard lock(mutex_);
    if (jobs_.size() >= idle_ && threads_.size() < max_threads_) start_thread();
    jobs_.push_back(std::move(job));
  }
  ready_.notify_one();
}

void WorkerPool::start_thread() {
  try {
    threads_.emplace_back([this](const std::stop_token& stop) { work(stop); });
  } catch (const std::system_error& e) {
    // With fewer threads calls wait longer; without any they would wait for ever.
    if (threads_.empty())
      throw Error(Errc::unavailable, std::string("cannot start a thread: ") + e.what())
          .hint("raise the limit of processes (ulimit -u, pids.max) of the user that runs hutch");
    log::warning("cannot start worker thread {}: {}", threads_.size() + 1, e.what());
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
