#pragma once

#include "tools/port_view.h"

namespace hutch::tools {

struct SandboxListPortsArgs {
  std::string sandbox_id;

  template <class V>
  void describe(V& v) {
    v.optional("sandbox_id", sandbox_id, kSandboxIdHelp);
  }
};

struct SandboxListPortsResult {
  std::string sandbox_id;
  std::vector<PortView> ports;

  template <class V>
  void describe(V& v) {
    v.required("sandbox_id", sandbox_id, "The sandbox.");
    v.required("ports", ports, "Its open ports.");
  }
};

std::vector<PortView> port_views(const std::string& sandbox_id, Services& services);

}  // namespace hutch::tools
