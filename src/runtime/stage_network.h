#pragma once

#include <string>
#include <vector>

#include "base/unique_fd.h"

namespace hutch::runtime {

/// Of a running sandbox; part of hutch-stage.
struct StageNetwork {
  UniqueFd agent;           // its pidfd
  UniqueFd users, network;  // its namespaces
  std::string pasta;        // the program
  std::vector<std::string> allow;
};

/// Starts pasta for the sandbox and a process that ends it with the agent, both with the rights of the
/// sandbox's root, and returns when the sandbox has its network. Nothing passes before all rules hold.
void attach_network(StageNetwork wanted);

}  // namespace hutch::runtime
