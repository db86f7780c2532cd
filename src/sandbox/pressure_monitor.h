#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "config/config.h"
#include "sandbox/throttle.h"

namespace hutch::sandbox {

struct PressureSettings {
  bool enabled = true;
  PressureBands bands;
  uint64_t floor_bytes = 32u << 20;
  Clock::duration interval = std::chrono::seconds(1);
};

PressureSettings pressure_settings(const config::Pressure& pressure);

/// What the monitor does with sandboxes; it knows their ids and nothing else of them. Called without any lock
/// of the monitor held, from its own thread.
struct PressureHooks {
  std::function<PressureFigures()> figures;
  /// Whether there is any, a warm one or one that is being made too.
  std::function<bool()> any;
  /// Whether there is memory.high, which slows down and ends nothing.
  std::function<bool()> has_soft_limit;
  /// Those that somebody has.
  std::function<std::vector<PressuredSandbox>()> sandboxes;
  /// Puts in force what it gets instead of what it asked for, or again what it asked for. Returns what holds
  /// now, read back: "memory.high is 67108864".
  struct Applied {
    bool frozen = false;
    std::string text;
  };
  std::function<Applied(const std::string& id, const Squeeze& squeeze)> squeeze;
  std::function<void(const std::string& id, const std::string& cause)> end;
  /// Keeps no warm ones, or as many as before.
  std::function<void(bool drain, const std::string& reason)> drain_warm;
};

/// For reports.
struct PressureStatus {
  PressureLevel level = PressureLevel::normal;
  Clock::time_point since{};
  PressureFigures figures;
  struct Done {
    Squeeze squeeze;
    bool frozen = false;
    std::string text;
  };
  std::map<std::string, Done> sandboxes;  // what was done to whom; the others have what they asked for
  bool warm_drained = false;
  std::string last_action, last_refusal;

  /// In words, when something was done to it.
  std::optional<std::string> done_to(const std::string& id) const;
};

/// Looks once in an interval how short memory is, as long as there is any sandbox, and does what the level
/// asks for. Thread-safe.
class PressureMonitor {
 public:
  PressureMonitor(PressureSettings settings, PressureHooks hooks);
  PressureMonitor(const PressureMonitor&) = delete;
  PressureMonitor& operator=(const PressureMonitor&) = delete;
  ~PressureMonitor() { stop(); }

  /// There is a sandbox now; does nothing when it looks already.
  void wake();
  /// Throws unavailable while no new sandbox may be made, with why and when to try again.
  void admit();
  void stop() noexcept;
  PressureStatus status() const;

 private:
  void watch(const std::stop_token& stop);
  PressureLevel look();
  void tick();
  void apply(const PressurePlan& plan);
  void end_worst(const PressurePlan& plan, const PressureFigures& figures);
  void note(std::string action);

  const PressureSettings settings_;
  const PressureHooks hooks_;
  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  PressureGauge gauge_;
  PressureStatus status_;
  Clock::time_point looked_at_{};
  int ticks_since_end_ = 0;
  bool woken_up_ = false, stopped_ = false;
  std::jthread watcher_;
};

}  // namespace hutch::sandbox
