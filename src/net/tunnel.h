#pragma once

#include "net/route.h"

namespace hutch::net {

/// What a stream begins with, as far as it has come.
enum class Speech { undecided, tls, http, other };
Speech recognize(std::string_view bytes);

/// Passes the bytes of a connection on that was allowed and answered. Where the client speaks TLS its SNI
/// must name what was allowed, where it speaks HTTP the Host of every request; on the ports 443 and 80 it
/// must speak one of them. What is refused is told so in its own protocol where there is one, otherwise
/// Refused is thrown; what else breaks just ends it.
asio::awaitable<void> run_tunnel(ReadAhead& client, Route& route, std::shared_ptr<Egress> egress);

}  // namespace hutch::net
