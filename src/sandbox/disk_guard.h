#pragma once

#include <sys/types.h>

#include <cerrno>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "config/config.h"
#include "runtime/disk_image.h"

namespace hutch::sandbox {

/// The disk of one sandbox, or of a volume, as the guard sees it.
struct GuardedDisk {
  std::string id;                       // of the sandbox
  std::optional<runtime::DiskId> disk;  // nothing: its files lie in a plain folder, or in memory
  pid_t agent = 0;
  std::string image;  // path
  /// Its free blocks are held by this process, and given back with it: other servers may have it too.
  bool is_volume = false;
};

/// Of the file system that the data folder lies on.
struct DiskSpace {
  uint64_t size = 0, free = 0;
};

struct DiskSettings {
  uint64_t reserve_bytes = 0;
  double reserve_percent = 0;

  uint64_t reserve(const DiskSpace& space) const noexcept;
};

/// A call that failed since the disk of the data folder is full, as a caller is told of it.
Error full_disk();
/// Whether next to nothing is free there.
bool is_disk_full(const std::string& data_folder) noexcept;
/// Whether an error says so: a system's call, or a program of the host's.
bool says_disk_full(const Error& error) noexcept;
/// Runs what writes to the data folder.
template <class Fn>
decltype(auto) writing_to_disk(Fn&& fn) {
  try {
    return std::forward<Fn>(fn)();
  } catch (const Error& e) {
    if (!says_disk_full(e)) throw;
    Error full = full_disk();
    for (const auto& step : e.steps()) full.during(step);
    throw full;
  }
}
/// Runs what writes to a file system on a loop device there, which says no more of the disk below it than
/// EIO.
template <class Fn>
decltype(auto) writing_to_loop_device(const std::string& data_folder, Fn&& fn) {
  try {
    return std::forward<Fn>(fn)();
  } catch (const Error& e) {
    if (e.os_error() == EIO && is_disk_full(data_folder)) throw full_disk();
    throw;
  }
}

/// What touches the host, so that tests can do without one.
struct DiskHooks {
  std::function<DiskSpace()> space;
  std::function<uint64_t(const GuardedDisk&)> written;  // bytes of it that are on the host's disk
  std::function<uint64_t(const GuardedDisk&)> used;     // bytes that its files take inside
  std::function<uint64_t(const GuardedDisk&)> close;    // returns the bytes that closing takes inside
  std::function<void(const GuardedDisk&)> reopen;
};

/// Keeps the host's disk from running full. What sandboxes have been promised (data that waits in memory to
/// be written, blocks taken ahead by fallocate) counts as gone. At the reserve no sandbox can write to new
/// blocks any more, which fails inside with ENOSPC, and all else goes on; well above it they can again. Not
/// by freezing the file systems: writers then hang unkillably, and with them the agent. Thread-safe.
class DiskGuard {
 public:
  DiskGuard(std::string data_folder, const config::Limits& limits);
  DiskGuard(DiskSettings settings, DiskHooks hooks) : settings_(settings), hooks_(std::move(hooks)) {}

  struct Look {
    bool closed = false;
    std::vector<std::string> open_still;  // could not be closed: plain folders, failures
  };
  /// To be called about once a second with all disks of this server: closes and reopens them.
  Look look(const std::vector<GuardedDisk>& disks);
  /// Of a server that is dead: it may be closed, and is open afterwards.
  void take_over(const GuardedDisk& disk);

  bool closed() const;
  /// For people: how much is free, the reserve, what that means. Empty while all is well.
  std::string reason() const;
  /// Throws limit_exceeded at the reserve, also when nobody has looked since it was reached.
  void check_room_for_create() const;
  /// The same when it would be reached by that much more.
  void check_room_for(uint64_t bytes) const;

 private:
  std::string describe(const DiskSpace& space) const;
  bool wants_closed(const DiskSpace& space, bool is_closed) const noexcept;
  void close_all(const std::vector<GuardedDisk>& disks, Look& look);
  void reopen_all();
  void forget_all_but(const std::vector<GuardedDisk>& disks);
  DiskSpace space_left(const std::vector<GuardedDisk>& disks) const;

  const DiskSettings settings_;
  const DiskHooks hooks_;
  mutable std::mutex mutex_;  // guards the two below
  bool closed_ = false;
  DiskSpace seen_;
  std::mutex look_mutex_;  // one look at a time; guards the one below
  struct Filled {
    GuardedDisk disk;
    uint64_t bytes = 0;  // that closing takes inside
  };
  std::map<std::string, Filled> filled_;  // the disks that are closed
};

}  // namespace hutch::sandbox
