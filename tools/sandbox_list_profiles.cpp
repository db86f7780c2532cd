#include "tools/sandbox_list_profiles.h"

#include <fmt/format.h>

namespace hutch::tools {

namespace {

WarmView warm_view(sandbox::Manager& manager, const std::string& profile) {
  const std::string kind = manager.kind_of(profile);
  for (const auto& status : manager.pool().status())
    if (status.kind == kind)
      return {.ready = status.ready,
              .target = status.target,
              .hits = static_cast<int64_t>(status.hits),
              .misses = static_cast<int64_t>(status.misses),
              .build_ms = static_cast<double>(status.build_time.count()) / 1000,
              .reason = status.reason,
              .last_error = status.last_error};
  return {.reason = "not used yet"};
}

SandboxListProfilesResult run(Services& services) {
  const config::Config& config = services.manager.config();
  SandboxListProfilesResult result;
  for (const auto& [name, profile] : config.profiles) {
    const config::SandboxDefaults settings = config::settings_of(config, name);
    ProfileView view;
    view.name = name;
    view.description = profile.description;
    view.is_default = name == config.default_profile;
    view.runtime = config::runtime_of(config, profile);
    view.network = profile.network;
    view.limits = {.memory = settings.memory,
                   .cpus = settings.cpus,
                   .pids = settings.pids,
                   .open_files = settings.open_files,
                   .shm = settings.shm};
    view.warm = warm_view(services.manager, name);
    result.profiles.push_back(std::move(view));
  }
  return result;
}

std::string text_of(const SandboxListProfilesResult& result) {
  std::string text;
  for (const auto& p : result.profiles) {
    text += fmt::format("{}{} · memory {}, cpus {}, pids {} · network {} · runtime {}\n", p.name,
                        p.is_default ? " (default)" : "", to_string(p.limits.memory), p.limits.cpus,
                        p.limits.pids, p.network, p.runtime);
    text += fmt::format("  warm: {} of {} ready ({}); {} hits, {} misses{}\n", p.warm.ready, p.warm.target,
                        p.warm.reason, p.warm.hits, p.warm.misses,
                        p.warm.build_ms > 0 ? fmt::format(", {:.1f} ms to build", p.warm.build_ms) : "");
    if (!p.warm.last_error.empty()) text += fmt::format("  the last build failed: {}\n", p.warm.last_error);
    if (!p.description.empty()) text += fmt::format("  {}\n", p.description);
  }
  return text;
}

}  // namespace

void add_sandbox_list_profiles(mcp::ToolRegistry& registry, Services& services) {
  registry.add<SandboxListProfilesArgs, SandboxListProfilesResult>(
      {.name = "sandbox_list_profiles",
       .title = "List sandbox profiles",
       .description = "The kinds of sandboxes that sandbox_create can make (`profile`), with limits, network "
                      "and runtime.",
       .toolset = "core",
       .read_only = true,
       .idempotent = true},
      [&services](const SandboxListProfilesArgs&, mcp::CallContext&) { return run(services); },
      [](const SandboxListProfilesResult& result) { return mcp::Reply{text_of(result)}; });
}

}  // namespace hutch::tools
