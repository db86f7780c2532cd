#pragma once

#include "tools/port_view.h"

namespace hutch::tools {

struct SandboxClosePortResult {
  std::string sandbox_id;
  int64_t port = 0;
  bool closed = false;

  template <class V>
  void describe(V& v) {
    v.required("sandbox_id", sandbox_id, "The sandbox.");
    v.required("port", port, "In the sandbox.");
    v.required("closed", closed, "False: it was not open.");
  }
};

}  // namespace hutch::tools
