#pragma once

#include <sys/types.h>

#include <cstddef>

/// Who descends from whom, read from /proc without allocating.
namespace hutch::agent {

/// A picture of all processes, a little old as soon as it is taken: callers repeat until nothing is left.
class ProcTree {
 public:
  /// False when /proc cannot be read.
  bool scan();

  /// Marks what descends from `root`, without `root` itself.
  void mark_descendants(pid_t root);
  /// Marks one process; mark_descendants_of_marked() adds what is below.
  void mark(size_t index) { marked_[index] = true; }
  void mark_descendants_of_marked();

  size_t size() const { return count_; }
  pid_t pid(size_t index) const { return pid_[index]; }
  pid_t parent(size_t index) const { return parent_[index]; }

  /// Living (not zombie) processes among the marked.
  size_t count_living() const;
  void kill_marked(int signal) const;

 private:
  // Enough for every sandbox: pid limits lie far below. Past it the rest is found by the next scan, when
  // the first ones are dead. Untouched pages of these arrays cost nothing.
  static constexpr size_t kCapacity = 65536;

  void add(pid_t pid);
  size_t find(pid_t pid) const;

  size_t count_ = 0;
  pid_t pid_[kCapacity];
  pid_t parent_[kCapacity];
  bool zombie_[kCapacity];
  bool marked_[kCapacity];
};

/// The one table of this process: agent and supervisors have their own after fork.
ProcTree& proc_tree();

}  // namespace hutch::agent
