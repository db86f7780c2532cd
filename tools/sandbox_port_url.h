#pragma once

#include "tools/port_view.h"

namespace hutch::tools {

struct SandboxPortUrlResult {
  std::string sandbox_id, url, path_url;
  int64_t port = 0;

  template <class V>
  void describe(V& v) {
    v.required("sandbox_id", sandbox_id, "The sandbox.");
    v.required("port", port, "In the sandbox.");
    v.required("url", url, "For a browser: an origin of its own.");
    v.required("path_url", path_url, "For programs, such as curl: paths go behind it.");
  }
};

}  // namespace hutch::tools
