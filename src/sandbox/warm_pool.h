#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "sandbox/demand.h"

namespace hutch::sandbox {

struct PoolSettings {
  int min = 1, max = 4;  // of each kind; max 0 = no pool
  Clock::duration cooldown = std::chrono::seconds(60);
  Clock::duration first_check = std::chrono::seconds(1);  // when what building it cost has been freed
  Clock::duration check_every = std::chrono::seconds(30);
  Clock::duration first_retry =
      std::chrono::milliseconds(500);  // after a failed build; doubled up to a minute
};

/// What the pool does with sandboxes. It knows their ids and nothing else of them. Called without any lock of
/// the pool held, from its own thread; `build` and `discard` may take their time.
struct PoolHooks {
  /// Makes one of this kind whole and returns its id; throws when it cannot.
  std::function<std::string(const std::string& kind)> build;
  struct Health {
    bool answers = false;
    uint64_t memory_bytes = 0;  // what it costs while nobody uses it
  };
  std::function<Health(const std::string& id)> check;
  /// Ends it for good.
  std::function<void(const std::string& id)> discard;
  /// Returns when a build would disturb nobody, within a bounded time.
  std::function<void(const std::stop_token&)> wait_for_pause;
  /// How many more of this size the host has room for, and what limits it.
  struct Room {
    int count = 0;
    std::string limit;
  };
  std::function<Room(uint64_t memory_bytes)> room;
};

struct PoolStatus {
  std::string kind;
  int ready = 0, building = 0, target = 0;
  std::string reason;  // why the target is what it is
  uint64_t hits = 0, misses = 0, builds = 0, failures = 0;
  std::chrono::microseconds build_time{0};  // moving average
  uint64_t memory_bytes = 0;                // of an idle one, when it was last looked at
  std::string last_error;                   // of the latest build, empty when it worked
};

/// Sandboxes that are ready before they are asked for. Each is handed out once and never comes back. One
/// thread builds, checks and discards, one at a time, and only when no call is running (or after a bounded
/// wait). A kind is kept ready once it has been announced or claimed, a rare one once it has been claimed
/// twice, and for ten minutes after its last claim; the announced ones for good. Thread-safe.
class WarmPool {
 public:
  WarmPool(PoolSettings settings, PoolHooks hooks);
  /// Waits for a build under way.
  ~WarmPool();
  WarmPool(const WarmPool&) = delete;
  WarmPool& operator=(const WarmPool&) = delete;

  /// Begins to build. Until then claims are only counted.
  void start();
  /// Builds no more and hands nothing out; does not wait.
  void stop() noexcept;
  void announce(const std::string& kind);

  /// The id of a ready sandbox, which from now on is the caller's alone; nothing when there is none. Never
  /// waits for a build or a check.
  std::optional<std::string> claim(const std::string& kind, bool rare = false);
  /// A claimed one that nothing was done with.
  void put_back(const std::string& kind, std::string id);
  /// There will be no more of that kind.
  void drop(const std::string& kind);
  /// One that has ended by itself.
  void forget(const std::string& id);
  /// Gives one up, of whatever kind, to make room: it is the caller's then.
  std::optional<std::string> evict();
  /// Discards all that are ready, and those that are being built once they are. Returns how many were ready.
  int flush();
  /// Keeps at most `most` of each kind, as long as it is not called again; for memory pressure.
  void set_ceiling(int most, const std::string& reason);

  std::vector<PoolStatus> status() const;

 private:
  struct Ready {
    std::string id;
    Clock::time_point check_at;
  };
  struct Kind {
    explicit Kind(Clock::duration cooldown) : demand(cooldown) {}
    Demand demand;
    bool announced = false, claimed_once = false;  // the second only of a rare one
    std::vector<Ready> ready;                      // the oldest first
    int building = 0;
    Demand::Target target;
    uint64_t hits = 0, misses = 0, builds = 0, failures = 0;
    uint64_t memory_bytes = 0;
    int failures_in_a_row = 0;
    Clock::time_point retry_at{};
    std::string last_error;
  };

  Kind& kind_of(const std::string& name);
  void set_target(Kind& kind, Clock::time_point now) const;
  void keep(const std::stop_token& stop);
  bool discard_one(std::unique_lock<std::mutex>& lock);
  bool build_one(std::unique_lock<std::mutex>& lock, const std::stop_token& stop);
  bool check_one(std::unique_lock<std::mutex>& lock);
  void wait(std::unique_lock<std::mutex>& lock, const std::stop_token& stop);
  Kind* most_wanting(Clock::time_point now, std::string& name);

  const PoolSettings settings_;
  const PoolHooks hooks_;
  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::map<std::string, Kind> kinds_;
  std::vector<std::string> to_discard_;
  int ceiling_;
  std::string ceiling_reason_;
  uint64_t generation_ = 0;  // of what is built; a flush begins a new one
  bool look_again_ = false, stopped_ = false;
  std::jthread keeper_;
};

}  // namespace hutch::sandbox
