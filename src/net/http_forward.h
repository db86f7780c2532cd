#pragma once

#include "net/http_head.h"
#include "net/read_ahead.h"

namespace hutch::net {

/// Which streams another request may be sent on.
struct Forwarded {
  bool client_stays = false, upstream_stays = false;
};

/// Passes one request with its body on, and its answer back; both heads are written anew, without what is
/// between two neighbours only. `target` and Host of the request are as the server is to see them. A
/// WebSocket is relayed until it ends. Throws when it cannot; `answered` tells whether the client has seen
/// any of an answer by then, `used_body` whether its body is partly gone, `bad_body` that this was no body:
/// the client's mistake.
struct ForwardState {
  bool answered = false, used_body = false, bad_body = false;
};
asio::awaitable<Forwarded> forward(ReadAhead& client, RequestHead request, ReadAhead& upstream,
                                   ForwardState& state);

}  // namespace hutch::net
