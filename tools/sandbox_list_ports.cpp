#include "tools/sandbox_list_ports.h"

#include <fmt/format.h>

namespace hutch::tools {

std::vector<PortView> port_views(const std::string& sandbox_id, Services& services) {
  std::vector<PortView> out;
  for (const auto& open : services.manager.ports().list(sandbox_id)) out.push_back(view_of(open));
  return out;
}

void add_sandbox_list_ports(mcp::ToolRegistry& registry, Services& services) {
  registry.add<SandboxListPortsArgs, SandboxListPortsResult>(
      {.name = "sandbox_list_ports",
       .title = "List the open ports of a sandbox",
       .description =
           "The ports of a sandbox that can be reached from the host, with their URLs and how many "
           "connections are open.",
       .toolset = "ports",
       .read_only = true,
       .idempotent = true},
      [&services](const SandboxListPortsArgs& args, mcp::CallContext&) {
        const Target target = find_target(services, args.sandbox_id);
        return SandboxListPortsResult{.sandbox_id = target.sandbox->id(),
                                      .ports = port_views(target.sandbox->id(), services)};
      },
      [](const SandboxListPortsResult& result) {
        std::string text;
        for (const auto& port : result.ports) text += text_of(port);
        return mcp::Reply{text.empty() ? fmt::format("no port of {} is open\n", result.sandbox_id) : text};
      });
}

}  // namespace hutch::tools
