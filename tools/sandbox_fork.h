#pragma once

#include "tools/common.h"

namespace hutch::tools {

struct SandboxForkArgs {
  std::string sandbox_id, name;
  int64_t count = 1;

  template <class V>
  void describe(V& v) {
    v.optional("sandbox_id", sandbox_id, kSandboxIdHelp);
    v.optional("count", count, "How many copies (default 1).", {.min = 1, .max = 16});
    v.optional("name", name, "Name of the copy; of several: name-1, name-2 and so on.", {.max = 60});
  }
};

struct SandboxForkResult {
  std::string sandbox_id;
  std::vector<std::string> sandboxes;
  double fork_ms = 0;

  template <class V>
  void describe(V& v) {
    v.required("sandbox_id", sandbox_id, "The sandbox that was copied, which goes on.");
    v.required("sandboxes", sandboxes, "Ids of the copies.");
    v.required("fork_ms", fork_ms, "How long it took.");
  }
};

}  // namespace hutch::tools
