#pragma once

#include "base/unique_fd.h"

namespace hutch::rpc {

struct Stdio {
  UniqueFd in, out;
};

/// Takes the protocol's two ends for ourselves: close-on-exec duplicates above 2. Afterwards fd 0 is
/// /dev/null and fd 1 is stderr, so that no print of a library reaches the protocol and no child can eat its
/// bytes. Call before anything else opens files. Throws Error when stdin or stdout is closed.
Stdio claim_stdio();

}  // namespace hutch::rpc
