#pragma once

#include <linux/filter.h>

#include <vector>

#include "runtime/network_rules.h"

namespace hutch::runtime {

/// A classic BPF program that judges Ethernet frames on their way out by where they go: TC_ACT_OK or
/// TC_ACT_SHOT. Frames that are neither IPv4 nor IPv6 do not pass.
std::vector<sock_filter> packet_filter(const std::vector<NetworkRule>& rules);

}  // namespace hutch::runtime
