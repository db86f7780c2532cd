#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mcp/versions.h"

namespace hutch::mcp {

struct TaskLimits {
  /// Of the tasks that have ended; beyond it the oldest go, first those whose outcome the client has.
  size_t kept = 100;
  size_t kept_bytes = 64u << 20;
  /// How long an outcome is kept, from the end of the work: a client that asks now and then gets it, however
  /// long the work took.
  std::chrono::milliseconds default_ttl = std::chrono::minutes(10);
  std::chrono::milliseconds max_ttl = std::chrono::hours(24);
};

/// The tasks that run and those whose outcome is kept. Knows what is true of them; who does the work, and who
/// is told, is others' business. Thread-safe.
class Tasks {
 public:
  using Clock = std::chrono::steady_clock;
  using Waiter = std::function<void(const Task& task)>;

  /// `now` is for tests.
  explicit Tasks(TaskLimits limits = {}, std::function<Clock::time_point()> now = Clock::now)
      : limits_(limits), now_(std::move(now)) {}

  /// A new task that works, with an id that cannot be guessed. `ttl` is the client's wish.
  Task add(Revision revision, std::optional<std::chrono::milliseconds> ttl);
  /// What the task is doing now.
  void note(std::string_view id, std::string_view message);
  /// Its user is asked, until answered() is told of it.
  void asking(std::string_view id, const std::string& question, ordered_json elicitation);
  void answered(std::string_view id, const std::string& question);
  /// The work has ended: runs the waiters on this thread. A task that was cancelled stays so.
  void finish(std::string_view id, Answer outcome);

  /// Nothing when there is no such task, or no more, or it is another revision's: clients of one kind neither
  /// list nor read the tasks of the other kind.
  std::optional<Task> find(Revision revision, std::string_view id);
  /// The client has the outcome: when room is needed, this task goes first.
  void delivered(std::string_view id);

  struct Cancelled {
    Task task;
    bool worked;  // until now
  };
  std::optional<Cancelled> cancel(Revision revision, std::string_view id);

  /// Runs `waiter` once, when the work has ended; on this thread if it already has. False when there is no
  /// such task. `key` names the waiter.
  bool when_ended(Revision revision, std::string_view id, const void* key, Waiter waiter);
  /// True when the waiter had not run; it will not.
  bool stop_waiting(const void* key);

  struct Page {
    std::vector<Task> tasks;  // oldest first
    std::string next;         // cursor of the next page; empty on the last one
  };
  /// An empty cursor begins. Nothing when the cursor was never handed out.
  std::optional<Page> list(Revision revision, std::string_view cursor);

 private:
  struct Entry {
    Task task;
    uint64_t serial = 0;  // in the order of creation
    Clock::time_point created{};
    std::chrono::milliseconds keep{};  // from the end
    std::optional<Clock::time_point> ended{};
    size_t bytes = 0;  // of the outcome
    bool delivered = false;
  };
  struct Waiting {
    std::string id;
    const void* key;
    Waiter waiter;
  };

  // All need the lock.
  Entry* entry_of(std::string_view id);
  Entry* entry_of(Revision revision, std::string_view id);
  Task snapshot(const Entry& entry) const;
  void forget_expired();
  void make_room(const Entry& newest);
  std::vector<Waiting> take_waiters(std::string_view id);

  const TaskLimits limits_;
  const std::function<Clock::time_point()> now_;
  std::mutex mutex_;
  std::map<std::string, Entry, std::less<>> entries_;
  uint64_t last_serial_ = 0;
  std::vector<Waiting> waiting_;
};

}  // namespace hutch::mcp
