#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace hutch::runtime {

/// Zero means "leave the kernel's value alone".
struct CgroupLimits {
  uint64_t memory_bytes = 0;  // swap is included and gets nothing on top
  double cpus = 0;            // 1.5 = one and a half processors' time
  int64_t pids = 0;
};

/// What the kernel says that a group uses now. Absent where the controller is missing.
struct CgroupUsage {
  std::optional<uint64_t> memory_bytes;
  std::optional<uint64_t> cpu_us;
  std::optional<uint64_t> pids;
};

/// What became of one limit after it was written and read back.
struct Enforcement {
  bool enforced = false;
  std::string detail;  // the value that is in force, or why there is none
};

/// Memory of a group that bounds ours too.
struct GroupMemory {
  uint64_t limit_bytes = 0;
  uint64_t used_bytes = 0;  // without what the kernel can take back at once
};

/// cgroup v2: lets the groups below `folder` have the memory, pids and cpu controllers, as far as it has them
/// itself. Returns those that it has not.
std::string hand_controllers_down(const std::string& folder);

/// Where on this host groups of our own can be made, found by looking and not by kernel version.
/// cgroup v2: `hutch.slice` at the top (root), or below the user's delegated group. Where processes of that
/// group are in the way, they are moved into `supervisor` below it. v1 and hybrid hosts: below our own group
/// in each controller.
class CgroupHost {
 public:
  static CgroupHost probe();

  bool v2() const noexcept { return v2_; }
  /// v1 controllers beside a cgroup2 mount: crun 1.8 refuses such a host while it sees that mount.
  const std::string& hybrid_mount() const noexcept { return hybrid_mount_; }
  /// The mount below which v2 groups are; empty on v1.
  const std::string& v2_mount() const noexcept { return v2_mount_; }
  /// Controller ("memory", "cpu", "pids", "cpuacct", "freezer") to the folder below which our groups go. v2:
  /// one entry, key "".
  const std::map<std::string, std::string>& bases() const noexcept { return bases_; }
  /// Why limits, or some of them, cannot be enforced here; empty when all can.
  const std::string& problem() const noexcept { return problem_; }
  /// Of the groups that the server or its sandboxes are in, the one with a limit of which least is left, in
  /// proportion; nothing when none has one below `host_bytes`.
  std::optional<GroupMemory> tightest_memory(uint64_t host_bytes) const;

 private:
  bool v2_ = false;
  std::string hybrid_mount_, v2_mount_, problem_;
  std::map<std::string, std::string> bases_;
  std::vector<std::string> memory_groups_;
};

/// The groups of one sandbox: `<base>/hutch/<server>/<sandbox>` in every controller.
class Cgroup {
 public:
  Cgroup() = default;
  /// Names the folders; nothing is made yet, so that they can be recorded first.
  Cgroup(const CgroupHost& host, const std::string& server_id, const std::string& sandbox_id);
  /// Takes up folders that a record names.
  Cgroup(bool v2, std::map<std::string, std::string> folders) : v2_(v2), folders_(std::move(folders)) {}

  const std::map<std::string, std::string>& folders() const noexcept { return folders_; }
  void create();
  /// Files into which a process writes "0" to join. v1: `tasks`, whose single-thread move is 400 times
  /// cheaper than `cgroup.procs` (no global lock; kernel commit 9a3284fad42f).
  std::vector<std::string> join_files() const;

  /// Writes in the order that the kernel accepts, up or down, and reads everything back.
  /// Keys: memory, swap, cpus, pids.
  std::map<std::string, Enforcement> apply(const CgroupLimits& limits) const;
  /// Less memory than was asked for, while the host is short of it. v2: `memory.high`, above which the kernel
  /// slows down and takes back, and ends nothing. v1: the limit, as far down as the kernel accepts it.
  Enforcement throttle_memory(uint64_t bytes) const;
  /// The end of that. v1: and of fewer processors; `asked` is what is then in force, as by apply().
  std::map<std::string, Enforcement> unthrottle(const CgroupLimits& asked) const;
  /// Whether the process is in these groups or right below them: otherwise no limit here means anything for
  /// it.
  bool holds(pid_t pid) const;
  CgroupUsage usage() const;
  /// What the group's memory really is: usage() counts up to 64 pages for each processor that the kernel has
  /// only charged ahead. Nothing where the controller is missing.
  std::optional<uint64_t> exact_memory_bytes() const;
  /// Processes that the kernel's out-of-memory killer has ended in this group so far.
  uint64_t oom_kills() const;
  /// Times that a process or thread was refused at the limit so far.
  uint64_t pids_refused() const;

  /// Stops every process in the group, or lets them go on, and waits a bounded time until the kernel says
  /// that it is so. Throws when that cannot be; then they run.
  void freeze(bool frozen) const;

  /// Also what is frozen. On v1 a frozen process does not even end: it is thawed after its signal.
  void kill_all() const noexcept;
  /// Lets them go on, whatever was before; for after a kill.
  void thaw() const noexcept;
  /// Removes the folders, and the server's folder above when it became empty. False when one is still busy.
  bool remove() const noexcept;

 private:
  const std::string* folder(const std::string& controller) const;
  const std::string* freezer_folder() const;
  bool is_frozen() const;
  void write_freezer(bool frozen) const;
  Enforcement apply_memory(uint64_t bytes) const;
  Enforcement apply_swap(uint64_t bytes) const;
  Enforcement apply_cpus(double cpus) const;
  Enforcement apply_pids(int64_t pids) const;

  bool v2_ = false;
  std::map<std::string, std::string> folders_;
};

}  // namespace hutch::runtime
