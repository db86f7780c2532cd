#pragma once

#include "sandbox/channel.h"

namespace hutch::sandbox {

/// Whether the agent answers before `deadline`. Harmless at any time, whatever else runs.
bool ping(Channel& channel, Clock::time_point deadline);

}  // namespace hutch::sandbox
