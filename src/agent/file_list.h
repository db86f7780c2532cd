#pragma once

#include "wire/messages.h"

namespace hutch::agent {

/// First byte of each message from the worker of a listing.
enum class ListTag : char { data, done, failed };

/// The body of a fresh fork of the agent: walks and sends records to kControlFd. Only here, in a process of
/// its own, memory grows with what is listed.
[[noreturn]] void run_list_worker(const wire::ListFiles& request);

}  // namespace hutch::agent
