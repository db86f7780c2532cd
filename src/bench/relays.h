#pragma once

#include "bench/peers.h"
#include "bench/web.h"

namespace hutch::bench {

/// Starts a peer of the kind "relay", which passes connections on to `target` of 127.0.0.1. `folder` is made.
TcpServer start_relay(const Peer& peer, const std::string& folder, uint16_t target);

}  // namespace hutch::bench
