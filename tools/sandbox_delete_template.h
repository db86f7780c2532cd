#pragma once

#include "tools/common.h"

namespace hutch::tools {

struct SandboxDeleteTemplateArgs {
  std::string name;

  template <class V>
  void describe(V& v) {
    v.required("name", name, "Its name.");
  }
};

struct SandboxDeleteTemplateResult {
  std::string deleted;

  template <class V>
  void describe(V& v) {
    v.required("deleted", deleted, "Its name.");
  }
};

}  // namespace hutch::tools
