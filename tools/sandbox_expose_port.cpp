#include "tools/sandbox_expose_port.h"

#include <fmt/format.h>

namespace hutch::tools {

namespace {

SandboxExposePortResult run(const SandboxExposePortArgs& args, Services& services,
                            const std::stop_token& stop) {
  const Target target = find_target(services, args.where.sandbox_id);
  const auto patience =
      std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(args.timeout_s));
  const sandbox::OpenPort open = services.manager.ports().expose(
      target.sandbox, static_cast<uint16_t>(args.where.port),
      static_cast<uint16_t>(args.host_port.value_or(0)), Clock::now() + patience, stop);
  return {.sandbox_id = target.sandbox->id(),
          .url = fmt::format("http://127.0.0.1:{}/", open.host_port),
          .port = open.port,
          .host_port = open.host_port};
}

}  // namespace

void add_sandbox_expose_port(mcp::ToolRegistry& registry, Services& services) {
  registry.add<SandboxExposePortArgs, SandboxExposePortResult>(
      {.name = "sandbox_expose_port",
       .title = "Open a port of a sandbox to the host",
       .description =
           "Waits until a server inside answers on a port (on its 127.0.0.1, ::1 or all addresses) and "
           "gives that port a listener of its own on the host's 127.0.0.1, for any protocol over TCP: "
           "databases, debuggers, HTTP. For web pages in a browser sandbox_port_url is better: pages of "
           "two sandboxes are then kept apart. Works without a network in the sandbox; closed with it.",
       .toolset = "ports"},
      [&services](const SandboxExposePortArgs& args, mcp::CallContext& context) {
        return run(args, services, context.stop());
      },
      [](const SandboxExposePortResult& result) {
        return mcp::Reply{fmt::format("port {} of {} is 127.0.0.1:{} on the host · {}\n", result.port,
                                      result.sandbox_id, result.host_port, result.url)};
      });
}

}  // namespace hutch::tools
