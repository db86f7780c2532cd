#pragma once

#include "tools/sandbox_create.h"

namespace hutch::tools {

struct SandboxListProfilesArgs {
  template <class V>
  void describe(V&) {}
};

/// Sandboxes of this kind that are ready before they are asked for.
struct WarmView {
  int64_t ready = 0, target = 0, hits = 0, misses = 0;
  double build_ms = 0;
  std::string reason, last_error;

  template <class V>
  void describe(V& v) {
    v.required("ready", ready, "How many are ready.");
    v.required("target", target, "How many are to be ready.");
    v.required("reason", reason, "Why that many.");
    v.required("hits", hits, "Sandboxes that were ready when they were asked for.");
    v.required("misses", misses, "Sandboxes that had to be built first.");
    v.required("build_ms", build_ms, "How long building one takes.");
    v.required("last_error", last_error, "Why the latest one could not be built; empty when it could.");
  }
};

struct ProfileView {
  std::string name, description, runtime, network;
  bool is_default = false;
  LimitsView limits;
  WarmView warm;

  template <class V>
  void describe(V& v) {
    v.required("name", name, "For sandbox_create.");
    v.required("description", description, "When to take it.");
    v.required("default", is_default, "Whether sandboxes are of this kind unless another one is named.");
    v.required("runtime", runtime, "What isolates its sandboxes.");
    v.required("network", network, "What they can reach.");
    v.required("limits", limits, "Their limits.");
    v.required("warm", warm,
               "Those that are ready; shared by profiles that differ in no more than limits, "
               "environment and lifetime.");
  }
};

struct SandboxListProfilesResult {
  std::vector<ProfileView> profiles;

  template <class V>
  void describe(V& v) {
    v.required("profiles", profiles, "The kinds of sandboxes.");
  }
};

}  // namespace hutch::tools
