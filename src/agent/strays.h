#pragma once

#include <sys/types.h>

#include <cstdint>

namespace hutch::agent {

/// Which children of PID 1 it started itself.
class KnownChildren {
 public:
  virtual bool knows(pid_t pid) const = 0;

 protected:
  ~KnownChildren() = default;
};

/// A command can kill its supervisor, and what that watched becomes children of PID 1. They are killed with
/// all their descendants, in sweeps, until a scan finds none.
class StrayHunt {
 public:
  void expect(uint64_t now_ms) { sweep_at_ms_ = now_ms; }
  /// 0 = nothing to do.
  uint64_t due_at_ms() const { return sweep_at_ms_; }
  /// One sweep. True when there were none: the hunt is over.
  bool sweep(const KnownChildren& ours, uint64_t now_ms);

 private:
  uint64_t sweep_at_ms_ = 0;
  uint64_t pause_ms_ = 1;
};

}  // namespace hutch::agent
