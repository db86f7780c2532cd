#pragma once

#include <asio/io_context.hpp>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "config/config.h"
#include "net/port_gateway.h"
#include "sandbox/audit_log.h"
#include "sandbox/sandbox.h"

namespace hutch::sandbox {

/// A port of a sandbox that can be reached from the host's loopback.
struct OpenPort {
  uint16_t port = 0;
  uint16_t host_port = 0;        // of its own listener; 0 = none
  std::string url, program_url;  // over the shared listener; empty = sandbox_port_url was not called
  size_t connections = 0;        // to its own listener
  uint64_t refused = 0;          // of those, because of whose they were
};

/// Ways from the host into sandboxes: a listener of its own for any protocol over TCP, or the shared one for
/// HTTP and WebSocket. On 127.0.0.1 only. The first has no token: it is for our own user and root, unless the
/// settings say otherwise. Thread-safe. They end with their sandbox, and with the server.
class Ports {
 public:
  Ports(asio::io_context& io, const config::Ports& settings, AuditLog& audit);
  ~Ports();

  /// A listener of its own; `host_port` 0: any free one. Waits until something inside answers; throws timeout
  /// when nothing has by `deadline`, conflict when the port of the host is taken. Twice for the same port:
  /// what there is.
  OpenPort expose(const std::shared_ptr<Sandbox>& sandbox, uint16_t port, uint16_t host_port,
                  Clock::time_point deadline, const std::stop_token& stop);
  /// At once, whether something answers or not.
  OpenPort url(const std::shared_ptr<Sandbox>& sandbox, uint16_t port);
  /// With the connections to it; URLs of it are no longer good. False: it was not open.
  bool close(const std::string& sandbox_id, uint16_t port);
  std::vector<OpenPort> list(const std::string& sandbox_id) const;
  /// The sandbox has ended.
  void close_all(const std::string& sandbox_id) noexcept;

 private:
  class Way;
  class Shared;
  std::shared_ptr<Way> way_to(const std::shared_ptr<Sandbox>& sandbox, uint16_t port);
  OpenPort describe(const Way& way) const;

  asio::io_context& io_;
  const config::Ports settings_;
  AuditLog& audit_;
  mutable std::mutex mutex_;
  std::map<std::pair<std::string, uint16_t>, std::shared_ptr<Way>> ways_;
  std::shared_ptr<Shared> shared_;  // from the first url() on
};

}  // namespace hutch::sandbox
