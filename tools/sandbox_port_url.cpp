#include "tools/sandbox_port_url.h"

#include <fmt/format.h>

namespace hutch::tools {

namespace {

SandboxPortUrlResult run(const PortArgs& args, Services& services) {
  const Target target = find_target(services, args.sandbox_id);
  const sandbox::OpenPort open =
      services.manager.ports().url(target.sandbox, static_cast<uint16_t>(args.port));
  return {
      .sandbox_id = target.sandbox->id(), .url = open.url, .path_url = open.program_url, .port = open.port};
}

}  // namespace

void add_sandbox_port_url(mcp::ToolRegistry& registry, Services& services) {
  registry.add<PortArgs, SandboxPortUrlResult>(
      {.name = "sandbox_port_url",
       .title = "Get the URL of a web server in a sandbox",
       .description =
           "Gives the URLs under which a port of a sandbox can be reached from this machine with HTTP "
           "and WebSocket, at once, whether a server runs there yet or not: one to show to the user, for a "
           "browser, and one for programs. Both have a token in them: who has the URL has access. For "
           "other protocols: sandbox_expose_port.",
       .toolset = "ports",
       .idempotent = true},
      [&services](const PortArgs& args, mcp::CallContext&) { return run(args, services); },
      [](const SandboxPortUrlResult& result) {
        return mcp::Reply{fmt::format("port {} of {}\nbrowser: {}\nprograms: {}\n", result.port,
                                      result.sandbox_id, result.url, result.path_url)};
      });
}

}  // namespace hutch::tools
