#pragma once

#include "bench/line_program.h"

/// A web server and clients of it that are as thin as they can be, so that the way between them is measured.
namespace hutch::bench {

/// Of web_server.py and web_client.py, which run on the host and in sandboxes alike.
std::string web_server_code();
std::string web_client_code();

/// A program that listens on `port` of 127.0.0.1. Ended by the destructor, with all that it has started.
class TcpServer {
 public:
  /// Waits until it can be connected to. Throws Error(unavailable) with the end of its stderr.
  TcpServer(const ServerCommand& command, uint16_t port);
  uint16_t port() const noexcept { return port_; }

 private:
  uint16_t port_;
  UniqueFd stderr_;
  Process process_;
};

/// One that nobody listens on.
uint16_t free_port();
/// web_server.py on the host.
TcpServer start_web_server();

/// An HTTP connection to a port of 127.0.0.1, which is kept.
class WebConnection {
 public:
  explicit WebConnection(uint16_t port);
  /// To the last byte of the answer, which has to be a 200 with a length.
  void get(const std::string& path);

 private:
  uint16_t port_;
  UniqueFd socket_;
};

}  // namespace hutch::bench
