#include "tools/sandbox_list_profiles.h"

#include <fmt/format.h>

namespace hutch::tools {

namespace {

SandboxListProfilesResult run(Services& services) {
  const config::Config& config = services.manager.config();
  SandboxListProfilesResult result;
  for (const auto& [name, profile] : config.profiles) {
    const config::SandboxDefaults settings = config::settings_of(config, name);
    ProfileView view;
    view.name = name;
    view.description = profile.description;
    view.is_default = name == config.default_profile;
    view.runtime = profile.runtime != "auto" ? profile.runtime : config.oci.runtime;
    view.network = profile.network;
    view.limits = {.memory = settings.memory,
                   .cpus = settings.cpus,
                   .pids = settings.pids,
                   .open_files = settings.open_files,
                   .shm = settings.shm};
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
