#pragma once

#include <memory>

#include "net/egress.h"

/// The proxy between a sandbox and the Internet. What connects inside, to the agent's port on the sandbox's
/// loopback, ends here; by its first byte it is SOCKS5 or HTTP (CONNECT, or requests with an absolute
/// target). Nothing gets out but by open_route().
namespace hutch::net {

/// Serves one connection until it ends, and closes it. Never throws. On the I/O thread.
asio::awaitable<void> serve_egress(std::shared_ptr<Duplex> client, std::shared_ptr<Egress> egress);

}  // namespace hutch::net
