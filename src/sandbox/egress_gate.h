#pragma once

#include <asio/io_context.hpp>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "config/config.h"
#include "net/egress.h"
#include "net/resolver.h"
#include "net/upstream_proxy.h"
#include "sandbox/audit_log.h"

namespace hutch::sandbox {

class Sandbox;

/// On the loopback of a filtered sandbox, for HTTP, CONNECT and SOCKS5.
inline constexpr uint16_t kEgressPort = 13128;

/// What has programs in such a sandbox use it: curl, git, pip, npm, apt, Node.
std::map<std::string, std::string> egress_environment();

/// The way to the outside for all filtered sandboxes of a server. Thread-safe.
class EgressGate {
 public:
  EgressGate(asio::io_context& io, const config::Config& config);

  /// Throws invalid_argument, which names what is no rule and how one is written.
  net::RuleSet rules(const std::vector<std::string>& allow) const;
  /// From now on what connects to kEgressPort in the sandbox is served, by what its description allows.
  void open(const std::shared_ptr<Sandbox>& sandbox);
  /// Behind another proxy names decide, and pinning is its business.
  bool has_upstream_proxy() const { return upstream_ != nullptr; }

 private:
  net::EgressHooks hooks_for(const std::shared_ptr<Sandbox>& sandbox);

  asio::io_context& io_;
  const config::Egress settings_;
  const std::shared_ptr<const net::UpstreamProxy> upstream_;
  AuditLog audit_;
  net::Resolver resolver_;
};

}  // namespace hutch::sandbox
