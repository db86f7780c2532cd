#pragma once

#include "agent/spawn.h"

/// What the agent does to itself before it listens to the host.
namespace hutch::agent {

/// In order: descriptors, signals, dumpable, the fixed descriptors of sys.h, loopback, capabilities,
/// no_new_privs, seccomp. A step that the isolation needs and that fails ends the agent with a message on
/// descriptor 2 and status 70: a sandbox without it must not run.
Inherited start_up(bool load_seccomp);

}  // namespace hutch::agent
