#include "tools/sandbox_update.h"

#include <fmt/format.h>

namespace hutch::tools {

namespace {

std::optional<std::chrono::seconds> seconds(const std::optional<int64_t>& number) {
  return number ? std::optional(std::chrono::seconds(*number)) : std::nullopt;
}

SandboxInfo run(const SandboxUpdateArgs& args, Services& services) {
  sandbox::Changes changes{.ttl = seconds(args.ttl_s),
                           .idle_timeout = seconds(args.idle_timeout_s),
                           .cpus = args.cpus,
                           .pids = args.pids,
                           .paused = args.paused,
                           .network = args.network,
                           .allow = args.allow};
  if (args.memory) changes.memory_bytes = args.memory->value;
  if (!args.labels.empty()) changes.labels = args.labels;
  if (changes.allow) sandbox::check_may_allow(services.manager.config(), *changes.allow);
  const auto sandbox = find_target(services, args.sandbox_id).sandbox;
  services.manager.update(sandbox->id(), changes);
  return info_of(*sandbox, services);
}

}  // namespace

void add_sandbox_update(mcp::ToolRegistry& registry, Services& services) {
  registry.add<SandboxUpdateArgs, SandboxInfo>(
      {.name = "sandbox_update",
       .title = "Change a sandbox",
       .description =
           "Changes a living sandbox: gives it more time (ttl_s, counted from now), other limits or "
           "labels, pauses it or lets it go on. What is left out stays. Returns what sandbox_info does.",
       .toolset = "core",
       .idempotent = true},
      [&services](const SandboxUpdateArgs& args, mcp::CallContext&) { return run(args, services); },
      [](const SandboxInfo& info) { return mcp::Reply{text_of(info)}; });
}

}  // namespace hutch::tools
