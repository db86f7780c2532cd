#pragma once

namespace hutch::agent {

/// Loads the filters that were generated from seccomp_policy.cpp at build time. False: errno says why, and
/// the process may have a part of them.
bool load_seccomp_filters();

}  // namespace hutch::agent
