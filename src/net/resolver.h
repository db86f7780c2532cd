#pragma once

#include <asio/any_io_executor.hpp>
#include <asio/awaitable.hpp>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "net/address.h"

namespace hutch::net {

/// Names to addresses, by this host's own resolver (getaddrinfo), on threads of its own: it blocks for as
/// long as name servers do not answer, and cannot be called off.
class Resolver {
 public:
  /// The answers are waited for there; must live longer.
  explicit Resolver(asio::any_io_executor io, size_t threads = 256, size_t threads_per_owner = 4);
  /// Nobody may still wait.
  ~Resolver();
  Resolver(const Resolver&) = delete;
  Resolver& operator=(const Resolver&) = delete;

  /// In the order of getaddrinfo, without any check. Throws Error: unavailable, timeout, or limit_exceeded
  /// when too many of this owner wait. `owner` is any value that tells sandboxes apart: those of one whose
  /// name servers are slow do not hold up the others, nor a few slow names its own.
  asio::awaitable<std::vector<Address>> resolve(std::string name, const void* owner,
                                                std::chrono::milliseconds within);

 private:
  struct State;
  const asio::any_io_executor io_;
  const std::shared_ptr<State> state_;
};

}  // namespace hutch::net
