#pragma once

#include <string>

#include "net/http_body.h"
#include "net/secret_text.h"

/// Bodies of messages on their way through an exchange of secrets.
namespace hutch::net {

/// A body of a known length, for who wants all of it.
asio::awaitable<std::string> read_body(ReadAhead& from, uint64_t length);

/// As copy_body(), without what the mask hides. Its length stays.
asio::awaitable<void> copy_masked(ReadAhead& from, Duplex& to, const BodyFraming& framing, Mask& mask);

/// As copy_body(), but what the receiver does not take any more goes nowhere: a server may answer before it
/// has read all, and close, and its answer is worth hearing.
asio::awaitable<void> copy_to_server(ReadAhead& from, Duplex& server, const BodyFraming& framing);

}  // namespace hutch::net
