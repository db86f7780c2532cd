#pragma once

#include <string>
#include <vector>

#include "base/ip_range.h"

/// What a sandbox with a network of its own can reach: every public address, and what it is allowed besides.
namespace hutch::runtime {

/// The network between a sandbox and its pasta process. All of it is for documentation (RFC 5737) or made up
/// for here (RFC 4193): no host has these addresses, so none that is allowed can be one of them.
struct SandboxNetwork {
  const char *address, *gateway, *resolver;
};
inline constexpr SandboxNetwork kNetwork4{"192.0.2.2", "192.0.2.1", "192.0.2.3"};
inline constexpr SandboxNetwork kNetwork6{"fd68:7574:6368::2", "fd68:7574:6368::1", "fd68:7574:6368::3"};

struct NetworkRule {
  IpRange range;
  bool allowed = false;
};

/// The ranges of one profile or caller. Throws invalid_argument for what is no address and no network, and
/// for what nobody can have: the host's loopback, its links, multicast.
std::vector<IpRange> allowed_ranges(const std::vector<std::string>& allow);

/// The longest prefix first, so that the first match decides; what none matches is allowed. `of_host` are
/// addresses of the host, refused unless each is allowed by itself.
std::vector<NetworkRule> network_rules(const std::vector<IpRange>& allow,
                                       const std::vector<IpRange>& of_host);

}  // namespace hutch::runtime
