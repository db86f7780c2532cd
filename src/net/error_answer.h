#pragma once

#include "net/duplex.h"
#include "net/egress.h"

namespace hutch::net {

/// What a client of HTTP is told instead of what it asked for.
struct ErrorAnswer {
  int status = 502;
  std::string text;
  std::string refused;  // one line, for X-Hutch-Refused
};

ErrorAnswer answer_to(const Error& error);

/// Ends the connection with it.
asio::awaitable<void> write_error(Duplex& client, const ErrorAnswer& answer);

}  // namespace hutch::net
