#pragma once

#include "tools/common.h"

namespace hutch::tools {

struct SandboxDestroyArgs {
  std::string sandbox_id;
  bool confirm = false;

  template <class V>
  void describe(V& v) {
    v.required("sandbox_id", sandbox_id, "Id or name, or \"*\".", {.min = 1});
    v.optional("confirm", confirm, "Has to be true with \"*\" (default false).");
  }
};

struct SandboxDestroyResult {
  std::vector<std::string> destroyed;
  std::string note;

  template <class V>
  void describe(V& v) {
    v.required("destroyed", destroyed, "Ids of those that were ended.");
    v.required("note", note, "What else there is to know.");
  }
};

}  // namespace hutch::tools
