#pragma once

#include <memory>
#include <optional>

#include "net/egress.h"
#include "net/read_ahead.h"

namespace hutch::net {

/// A connection to the outside that was allowed, to the address that was checked.
struct Route {
  HostPort target;
  std::string_view protocol;       // for the audit
  std::optional<Address> address;  // none: the upstream proxy's business
  bool asked = false;              // a person allowed it, no rule does
  std::unique_ptr<Duplex> stream;  // counted and slowed down
  std::unique_ptr<ReadAhead> ahead;
};

/// Decides and connects: a rule for the name and port, then its addresses, each checked, then the first that
/// answers. Throws Refused, or Error when the name does not resolve or nothing answers.
asio::awaitable<Route> open_route(const std::shared_ptr<Egress>& egress, HostPort target,
                                  std::string_view protocol, asio::any_io_executor executor);

/// The same decision for a route that is open already: rules may have changed.
void check_route(Egress& egress, const Route& route);

/// What the traffic says about its host (SNI, Host) must be what was connected to; where that was an address,
/// a name that a rule allows at that port. Throws Refused.
void check_inner_host(Egress& egress, const Route& route, const Host& inner);

}  // namespace hutch::net
