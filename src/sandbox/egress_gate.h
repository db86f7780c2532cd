#pragma once

#include <asio/io_context.hpp>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "config/config.h"
#include "net/egress.h"
#include "net/resolver.h"
#include "net/secret_exchange.h"
#include "net/upstream_proxy.h"
#include "sandbox/audit_log.h"
#include "sandbox/description.h"

namespace hutch::sandbox {

class Sandbox;

/// On the loopback of a filtered sandbox, for HTTP, CONNECT and SOCKS5.
inline constexpr uint16_t kEgressPort = 13128;

/// What has programs in such a sandbox use it: curl, git, pip, npm, apt, Node.
std::map<std::string, std::string> egress_environment();

/// Whether sandbox_create and sandbox_update may add a rule.
bool callers_may_add(const config::Egress& settings, const std::string& rule);

/// The way to the outside for all filtered sandboxes of a server. Thread-safe.
class EgressGate {
 public:
  EgressGate(asio::io_context& io, const config::Config& config, AuditLog& audit);

  /// What a sandbox may reach: what it is allowed, and the hosts of its secrets. Throws invalid_argument,
  /// which names what is no rule and how one is written.
  net::RuleSet rules(const Description& about) const;
  /// From now on what connects to kEgressPort in the sandbox is served, by what its description allows.
  void open(const std::shared_ptr<Sandbox>& sandbox);
  /// That sandboxes have to trust besides the host's, so that secrets can be put in for them; empty: there
  /// are no secrets. Made at the first call.
  std::string trusted_certificate();

 private:
  net::EgressHooks hooks_for(const std::shared_ptr<Sandbox>& sandbox);
  net::SecretExchange& exchange();

  asio::io_context& io_;
  const std::string home_;
  const config::Egress settings_;
  const std::map<std::string, config::Secret> secret_settings_;
  const std::shared_ptr<net::SecretStore> secrets_;  // on the I/O thread alone
  std::mutex mutex_;
  std::unique_ptr<net::SecretExchange> exchange_;
  const std::shared_ptr<const net::UpstreamProxy> upstream_;
  AuditLog& audit_;
  net::Resolver resolver_;
};

}  // namespace hutch::sandbox
