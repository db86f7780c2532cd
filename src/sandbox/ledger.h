#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>

#include "base/unique_fd.h"

namespace hutch::sandbox {

/// What one sandbox is counted with. A warm one, which nobody uses yet, costs less than its limits.
struct Charge {
  uint64_t memory_bytes = 0, disk_bytes = 0;
  bool warm = false;
};

/// The sums over all servers of a data folder.
struct Totals {
  int64_t sandboxes = 0, warm = 0;  // warm ones are among the sandboxes
  uint64_t memory_bytes = 0, disk_bytes = 0;
};

/// What all of them together may take.
struct HostTotals {
  int64_t sandboxes = 0;
  uint64_t memory_bytes = 0, disk_bytes = 0;  // already multiplied by what may be promised of it
};

/// Who has promised how much of this host: one table in the data folder, one lock, all servers. A line is
/// taken before anything of a sandbox is made and given back when all of it is removed; what a server that
/// was killed has taken stays counted until its sandboxes are removed or taken up. Thread-safe.
///
/// The file is memory-mapped: 4,096 lines of 64 bytes. A line counts from the moment its last field is
/// written, so that a process may die anywhere in between.
class Ledger {
 public:
  static constexpr int64_t kMaxLines = 4096;

  Ledger() = default;
  ~Ledger();
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;

  void open(const std::string& data_folder);
  bool is_open() const noexcept { return lines_ != nullptr; }

  /// Adds the sandbox, or changes what it is counted with and whose it is, when all together then stay within
  /// `host`. Throws limit_exceeded, which names the total that would be passed and what is free of it;
  /// nothing is changed then. A change to less, or to the same, always works.
  void charge(std::string_view server_id, std::string_view sandbox_id, const Charge& charge,
              const HostTotals& host);
  void release(std::string_view sandbox_id) noexcept;
  /// Releases all sandboxes of the servers for which it says so. For those of which nobody else would: their
  /// server is dead and had made nothing of them yet.
  void release_of(const std::function<bool(const std::string& server_id)>& gone);
  Totals totals() const;

 private:
  struct Line;
  class Locked;
  Line* find(std::string_view sandbox_id) const;
  Totals sum() const;

  mutable std::mutex mutex_;  // flock(2) does not tell threads of one process apart
  UniqueFd file_;
  Line* lines_ = nullptr;
};

}  // namespace hutch::sandbox
