#include "agent/strays.h"

#include <signal.h>

#include <algorithm>

#include "agent/proc_tree.h"

namespace hutch::agent {

bool StrayHunt::sweep(const KnownChildren& ours, uint64_t now_ms) {
  constexpr uint64_t kLongestPauseMs = 50;
  ProcTree& tree = proc_tree();
  bool found = false;
  if (tree.scan()) {
    for (size_t i = 0; i < tree.size(); ++i) {
      if (tree.parent(i) != 1 || ours.knows(tree.pid(i))) continue;
      tree.mark(i);
      found = true;
    }
  }
  if (!found) {
    sweep_at_ms_ = 0;
    pause_ms_ = 1;
    return true;
  }
  tree.mark_descendants_of_marked();
  tree.kill_marked(SIGKILL);
  sweep_at_ms_ = now_ms + pause_ms_;
  pause_ms_ = std::min(pause_ms_ + 1, kLongestPauseMs);
  return false;
}

}  // namespace hutch::agent
