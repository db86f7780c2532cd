#include "tools/sandbox_fork.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace hutch::tools {

namespace {

SandboxForkResult run(const SandboxForkArgs& args, Services& services) {
  const auto start = Clock::now();
  const Target target = find_target(services, args.sandbox_id);
  SandboxForkResult result{.sandbox_id = target.sandbox->id()};
  for (const auto& fork :
       services.manager.fork(target.sandbox->id(), static_cast<int>(args.count), args.name))
    result.sandboxes.push_back(fork->id());
  result.fork_ms = std::chrono::duration<double, std::milli>(Clock::now() - start).count();
  return result;
}

}  // namespace

void add_sandbox_fork(mcp::ToolRegistry& registry, Services& services) {
  registry.add<SandboxForkArgs, SandboxForkResult>(
      {.name = "sandbox_fork",
       .title = "Fork a sandbox",
       .description =
           "Makes 1 to 16 running copies of a sandbox with all its files as they are now, each with "
           "limits and a lifetime of its own, to try several ways from one state. What one writes "
           "no other sees. Processes are not copied.",
       .toolset = "templates"},
      [&services](const SandboxForkArgs& args, mcp::CallContext&) { return run(args, services); },
      [](const SandboxForkResult& result) {
        return mcp::Reply{fmt::format("forked {} in {:.0f} ms: {}\n", result.sandbox_id, result.fork_ms,
                                      fmt::join(result.sandboxes, ", "))};
      });
}

}  // namespace hutch::tools
