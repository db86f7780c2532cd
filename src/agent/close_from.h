#pragma once

namespace hutch::agent {

/// Closes all descriptors from `first` on.
void close_from(int first);

}  // namespace hutch::agent
