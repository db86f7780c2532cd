#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "runtime/cgroup.h"

namespace hutch::runtime {

/// What the kernel counts per user of the host and not per container: inotify, fanotify and namespaces by
/// `/proc/sys/user`, pending signals, message queues and locked memory by resource limits.
struct Counts {
  std::vector<std::string> caps;    // a file of /proc/sys/user and its value, in turn
  std::map<int, uint64_t> rlimits;  // RLIMIT_SIGPENDING...
  Enforcement said;
};

/// A user namespace is charged to the user who made it. `own_user`: that is an id of the sandbox's alone, so
/// that everybody has the host's full numbers. Otherwise it is the server's user, whose sandboxes get a small
/// share each.
Counts counts_of_sandbox(bool own_user);

}  // namespace hutch::runtime
