#pragma once

#include "tools/common.h"

namespace hutch::tools {

struct PortView {
  int64_t port = 0;
  std::optional<int64_t> host_port;
  std::optional<std::string> url, path_url;
  int64_t connections = 0;
  std::optional<int64_t> refused;

  template <class V>
  void describe(V& v) {
    v.required("port", port, "In the sandbox.");
    v.optional("host_port", host_port, "Of its own listener on the host's 127.0.0.1.");
    v.optional("url", url, "For browsers, an origin of its own; or of its own listener.");
    v.optional("path_url", path_url, "For programs.");
    v.required("connections", connections, "Open ones of its own listener.");
    v.optional(
        "refused", refused,
        "Connections to its own listener that were closed at once: it is for the user of the server, and "
        "root (setting `ports.other_users`).");
  }
};

PortView view_of(const sandbox::OpenPort& port);
std::string text_of(const PortView& port);

struct PortArgs {
  std::string sandbox_id;
  int64_t port = 0;

  template <class V>
  void describe(V& v) {
    v.optional("sandbox_id", sandbox_id, kSandboxIdHelp);
    v.required("port", port, "Port that a server inside listens on.", {.min = 1, .max = 65'535});
  }
};

}  // namespace hutch::tools
