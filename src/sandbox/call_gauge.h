#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <stop_token>

#include "base/process.h"

namespace hutch::sandbox {

/// Counts the calls that run, so that work in the background can keep out of their way.
class CallGauge {
 public:
  class Scope {
   public:
    explicit Scope(CallGauge& gauge) : gauge_(gauge) { ++gauge_.running_; }
    ~Scope() {
      gauge_.last_end_ = Clock::now().time_since_epoch().count();
      --gauge_.running_;
    }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    CallGauge& gauge_;
  };

  /// Returns when no call has run for `pause`, after `patience` at the latest, or when a stop is requested.
  void wait_for_pause(const std::stop_token& stop, Clock::duration pause, Clock::duration patience) const {
    std::mutex mutex;
    std::condition_variable_any stopped;
    std::unique_lock lock(mutex);
    for (const auto latest = Clock::now() + patience; Clock::now() < latest && !stop.stop_requested();) {
      const Clock::time_point last_end{Clock::duration{last_end_}};
      if (running_ == 0 && Clock::now() - last_end >= pause) return;
      // Looked at rather than told: a notification would be paid by every call, for a few refills.
      stopped.wait_for(lock, stop, std::chrono::milliseconds(2), [] { return false; });
    }
  }

 private:
  std::atomic<int> running_{0};
  std::atomic<Clock::rep> last_end_{0};
};

}  // namespace hutch::sandbox
