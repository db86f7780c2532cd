#include "tools/port_view.h"

#include <fmt/format.h>

namespace hutch::tools {

PortView view_of(const sandbox::OpenPort& port) {
  PortView view{.port = port.port, .connections = static_cast<int64_t>(port.connections)};
  if (port.host_port != 0) {
    view.host_port = port.host_port;
    view.url = fmt::format("http://127.0.0.1:{}/", port.host_port);
  }
  if (port.refused != 0) view.refused = static_cast<int64_t>(port.refused);
  if (!port.url.empty()) {
    view.url = port.url;
    view.path_url = port.program_url;
  }
  return view;
}

std::string text_of(const PortView& port) {
  std::string text = fmt::format("port {}", port.port);
  if (port.host_port)
    text += fmt::format(" · 127.0.0.1:{} · {} connection{}", *port.host_port, port.connections,
                        port.connections == 1 ? "" : "s");
  if (port.refused) text += fmt::format(" · {} of other users refused (`ports.other_users`)", *port.refused);
  text += '\n';
  if (port.url) text += fmt::format("  {}\n", *port.url);
  if (port.path_url) text += fmt::format("  for programs: {}\n", *port.path_url);
  return text;
}

}  // namespace hutch::tools
