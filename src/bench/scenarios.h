#pragma once

#include "bench/mcp_client.h"
#include "bench/measure.h"
#include "bench/peers.h"

namespace hutch::bench {

/// What all scenarios share.
struct Context {
  std::string program;  // the hutch that is measured
  std::string home;     // its data folder, of this run only
  Plan plan;
  std::vector<Peer> relays;     // what ports are measured beside
  bool can_empty_pool = false;  // the program knows pool.max: a server without a pool can be asked for

  /// `hutch mcp` with settings of its own ("SANDBOX__MEMORY=64m").
  ServerCommand server(const std::vector<std::string>& settings = {}) const;
  /// One whose creates are all cold.
  ServerCommand cold_server() const;
};

/// Looks what the program can do. `home` is an existing folder.
Context make_context(std::string program, std::string home, Plan plan, std::vector<Peer> relays);

struct Scenario {
  const char* name;
  const char* what;  // for people
  /// Throws Error when a call fails. What it returns may have a "what" that says more.
  Json (*run)(const Context& context);
};

/// By concept: single calls, the life of sandboxes, what they begin with, their ports and their network, what
/// they cost in memory, what they cost each other.
const std::vector<Scenario>& call_scenarios();
const std::vector<Scenario>& life_scenarios();
const std::vector<Scenario>& beginning_scenarios();
const std::vector<Scenario>& port_scenarios();
const std::vector<Scenario>& egress_scenarios();
const std::vector<Scenario>& memory_scenarios();
const std::vector<Scenario>& neighbour_scenarios();

}  // namespace hutch::bench
