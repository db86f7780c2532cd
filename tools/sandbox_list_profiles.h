#pragma once

#include "tools/sandbox_create.h"

namespace hutch::tools {

struct SandboxListProfilesArgs {
  template <class V>
  void describe(V&) {}
};

struct ProfileView {
  std::string name, description, runtime, network;
  bool is_default = false;
  LimitsView limits;

  template <class V>
  void describe(V& v) {
    v.required("name", name, "For sandbox_create.");
    v.required("description", description, "When to take it.");
    v.required("default", is_default, "Whether sandboxes are of this kind unless another one is named.");
    v.required("runtime", runtime, "What isolates its sandboxes.");
    v.required("network", network, "What they can reach.");
    v.required("limits", limits, "Their limits.");
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
