#pragma once

#include <asio/awaitable.hpp>
#include <atomic>
#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "config/config.h"
#include "net/duplex.h"
#include "net/http_head.h"
#include "net/rule.h"

/// What one sandbox may reach, what it was refused, and what it has used.
namespace hutch::net {

/// One connection or request that was not let through.
struct Refusal {
  enum class Reason {
    no_rule,    // a rule is missing: the only one that a person is asked about
    special,    // an address that must be named
    mismatch,   // the traffic names another host than the connection
    malformed,  // a request that is not understood, or in more than one way
    limit,
    unreachable  // a rule allows it, and nobody answers: clients of CONNECT do not say why
  };
  uint64_t number = 0;  // counts the sandbox's refusals, from 1
  std::chrono::system_clock::time_point time;
  std::string host;  // fit to be shown
  uint16_t port = 0;
  Reason reason = Reason::no_rule;
  std::string why;          // a sentence
  std::string rule;         // the one that would allow it; empty: none would
  bool callers_may = true;  // give that rule; otherwise it is for the configuration
  uint64_t count = 1;
};

std::string_view reason_name(Refusal::Reason reason);

/// What was refused, in one line, and what to do about it, in another.
std::string refusal_text(const Refusal& refusal);

/// Thrown on the way of a connection that is refused.
class Refused : public Error {
 public:
  explicit Refused(Refusal refused)
      : Error(Errc::denied, refusal_text(refused)), refusal_(std::move(refused)) {}
  const Refusal& refusal() const { return refusal_; }

 private:
  Refusal refusal_;
};

/// For the audit log: every connection and every plain request. Never a path, query, field or body.
struct EgressEvent {
  bool allowed = false;
  std::string_view protocol;  // "connect", "http", "socks5"; "port": from the host into the sandbox
  std::string host;
  uint16_t port = 0;
  std::string address;  // that was connected to; empty: refused, or left to the upstream proxy
  std::string why;      // it was refused
};

/// What the proxy needs from outside. All run on the I/O thread.
struct EgressHooks {
  /// The addresses of a name; throws Error.
  std::function<asio::awaitable<std::vector<Address>>(std::string name)> resolve;
  std::function<void(const EgressEvent&)> audit;
  /// Whether who runs commands may add a rule: nobody is advised to do what would be refused.
  std::function<bool(const std::string& rule)> callers_may_add;
  /// Whether a person allows this connection, for which a rule is missing. It is waited for, for kAskWithin.
  std::function<asio::awaitable<bool>(Refusal)> ask;
  /// Whether the traffic with a host is to be looked into, and who does it; both streams are its own then,
  /// and the ClientHello is still to be read.
  std::function<bool(const HostPort&)> needs_inspection;
  std::function<asio::awaitable<void>(Duplex& client, Duplex& upstream, const HostPort&)> inspect;
  /// Called for each plain request before it goes out; may change its fields.
  std::function<void(RequestHead&, const HostPort&)> rewrite_plain;
};

constexpr std::chrono::seconds kAskWithin{300};

struct EgressLimits {
  std::chrono::milliseconds connect_timeout{10'000};
  size_t max_connections = 256;
  uint64_t bytes_per_second = 0;  // both directions together; 0: no limit
  uint64_t max_bytes = 0;
};

EgressLimits limits_of(const config::Egress& settings);

class UpstreamProxy;

class Egress {
 public:
  Egress(RuleSet rules, EgressLimits limits, EgressHooks hooks,
         std::shared_ptr<const UpstreamProxy> upstream_proxy = nullptr);

  // On any thread:
  /// For what is asked from now on; connections that are there stay, their next plain request is checked.
  void set_rules(RuleSet rules);
  std::shared_ptr<const RuleSet> rules() const;
  /// The number of the last refusal: a place in time for refusals_since().
  uint64_t cursor() const;
  /// Those after the cursor, one of each kind with its count, oldest first; of many, the last 256.
  std::vector<Refusal> refusals_since(uint64_t cursor) const;

  struct Usage {
    size_t connections = 0;  // open now
    uint64_t allowed = 0, refused = 0, bytes = 0;
  };
  Usage usage() const;

  // On the I/O thread:
  const EgressLimits& limits() const { return limits_; }
  const EgressHooks& hooks() const { return hooks_; }
  const UpstreamProxy* upstream_proxy() const { return upstream_proxy_.get(); }
  /// Remembers and audits it.
  Refused refuse(std::string_view protocol, Refusal refusal);
  /// The same for what was tried.
  void failed(std::string_view protocol, const HostPort& target, const Error& error);
  void allowed(std::string_view protocol, const HostPort& target, const std::string& address);

  /// One of max_connections, as long as it lives.
  class Place {
   public:
    explicit Place(Egress& egress)
        : egress_(egress), there_is_(egress.connections_++ < egress.limits_.max_connections) {}
    ~Place() { --egress_.connections_; }
    Place(const Place&) = delete;
    Place& operator=(const Place&) = delete;
    explicit operator bool() const { return there_is_; }

   private:
    Egress& egress_;
    bool there_is_;
  };

  /// Accounts for bytes that were passed on. Returns how long to wait before the next ones; throws Refused
  /// when there were too many.
  std::chrono::nanoseconds spend(size_t bytes);
  /// Whether max_bytes are used up.
  bool used_up() const;

 private:
  void remember(std::string_view protocol, Refusal& refusal);

  const EgressLimits limits_;
  const EgressHooks hooks_;
  const std::shared_ptr<const UpstreamProxy> upstream_proxy_;
  std::atomic<size_t> connections_{0};
  std::atomic<uint64_t> allowed_{0}, refused_{0}, bytes_{0};
  std::chrono::steady_clock::time_point
      paid_until_;  // when the bytes so far are through at the limit's speed

  mutable std::mutex mutex_;
  std::shared_ptr<const RuleSet> rules_;
  std::deque<Refusal> refusals_;
  uint64_t last_refusal_ = 0;
};

/// The stream to the outside, counted and slowed down as the sandbox's limits say.
class Metered final : public ForwardingOwner {
 public:
  Metered(std::unique_ptr<Duplex> rest, std::shared_ptr<Egress> egress)
      : ForwardingOwner(std::move(rest)), egress_(std::move(egress)) {}
  asio::awaitable<std::string_view> read() override;
  asio::awaitable<void> write(std::string_view bytes) override;

 private:
  asio::awaitable<void> account(size_t bytes);

  const std::shared_ptr<Egress> egress_;
};

}  // namespace hutch::net
