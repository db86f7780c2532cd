#pragma once

#include "tools/port_view.h"

namespace hutch::tools {

struct SandboxExposePortArgs {
  PortArgs where;
  std::optional<int64_t> host_port;
  double timeout_s = 30;

  template <class V>
  void describe(V& v) {
    where.describe(v);
    v.optional("host_port", host_port, "Port of the host's 127.0.0.1 (default: any free one).",
               {.min = 1, .max = 65'535});
    v.optional("timeout_s", timeout_s, "How long to wait until the port answers (default 30).",
               {.min = 0, .max = 600});
  }
};

struct SandboxExposePortResult {
  std::string sandbox_id, url;
  int64_t port = 0, host_port = 0;

  template <class V>
  void describe(V& v) {
    v.required("sandbox_id", sandbox_id, "The sandbox.");
    v.required("port", port, "In the sandbox.");
    v.required("host_port", host_port, "On the host's 127.0.0.1.");
    v.required("url", url, "The same as a URL, should it speak HTTP.");
  }
};

}  // namespace hutch::tools
