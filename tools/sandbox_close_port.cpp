#include "tools/sandbox_close_port.h"

#include <fmt/format.h>

namespace hutch::tools {

namespace {

SandboxClosePortResult run(const PortArgs& args, Services& services) {
  const Target target = find_target(services, args.sandbox_id);
  const std::string& id = target.sandbox->id();
  return {.sandbox_id = id,
          .port = args.port,
          .closed = services.manager.ports().close(id, static_cast<uint16_t>(args.port))};
}

}  // namespace

void add_sandbox_close_port(mcp::ToolRegistry& registry, Services& services) {
  registry.add<PortArgs, SandboxClosePortResult>(
      {.name = "sandbox_close_port",
       .title = "Close a port of a sandbox",
       .description = "Closes what sandbox_expose_port and sandbox_port_url have opened for a port, with the "
                      "connections to it; its URLs are no longer good. The server inside goes on.",
       .toolset = "ports",
       .idempotent = true},
      [&services](const PortArgs& args, mcp::CallContext&) { return run(args, services); },
      [](const SandboxClosePortResult& result) {
        return mcp::Reply{fmt::format("port {} of {} {}\n", result.port, result.sandbox_id,
                                      result.closed ? "is closed" : "was not open")};
      });
}

}  // namespace hutch::tools
