#pragma once

#include <string>

#include "runtime/runtime.h"

namespace hutch::runtime {

/// The OCI bundle's config.json (runtime-spec 1.0.2) of a sandbox whose root file system a stage process has
/// mounted at `root` and whose agent binary is at `agent`, both as the runtime sees them.
struct BundleOptions {
  std::string root, agent;
  std::string trust;           // what is shown at kTrustPath; empty = nothing
  std::string cgroups_path;    // empty = the runtime leaves cgroups alone
  std::string user_namespace;  // to join; empty = the runtime is in it already
  bool is_kernel = false;      // see OciDialect
};
std::string bundle_config(const SandboxSpec& spec, const BundleOptions& options);

/// Where the agent's binary is inside.
inline constexpr const char* kAgentPath = "/run/hutch/agent";

}  // namespace hutch::runtime
