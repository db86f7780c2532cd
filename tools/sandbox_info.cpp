#include "tools/sandbox_info.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace hutch::tools {

SandboxInfo info_of(sandbox::Sandbox& sandbox, Services& services) {
  const auto about = sandbox.about();
  SandboxInfo info{.view = view_of(about, sandbox.state()), .created_at = iso_time(about.created_at)};
  for (auto& volume : info.view.volumes)
    volume.used_bytes = static_cast<int64_t>(services.manager.volumes().used_bytes(volume.name));
  info.last_used_at = iso_time(sandbox.last_used());
  info.labels = about.labels;
  info.processes = process_views(sandbox);
  info.ports = port_views(about.id, services);
  info.allow = about.allow;
  info.refused = refusal_views(sandbox);
  const sandbox::Usage usage = sandbox.usage();
  info.memory_bytes = usage.cgroup.memory_bytes;
  info.pids = usage.cgroup.pids;
  if (usage.cgroup.cpu_us) info.cpu_s = static_cast<double>(*usage.cgroup.cpu_us) / 1e6;
  info.disk_bytes = static_cast<int64_t>(usage.disk_bytes);
  info.pressure = services.manager.pressure().status().done_to(about.id);
  for (const auto& more : {services.manager.disk_guard().reason(), sandbox.damage()})
    if (!more.empty()) info.pressure = info.pressure ? *info.pressure + "\n" + more : more;
  return info;
}

namespace {

SandboxInfo describe_ended(const sandbox::Ended& ended) {
  SandboxInfo info{.view = view_of(ended.about, "ended"), .created_at = iso_time(ended.about.created_at)};
  info.labels = ended.about.labels;
  info.cause = fmt::format("{} ({})", ended.cause, iso_time(ended.ended_at));
  return info;
}

}  // namespace

SandboxInfo sandbox_info(const SandboxInfoArgs& args, Services& services) {
  try {
    return info_of(*find_target(services, args.sandbox_id).sandbox, services);
  } catch (const Error&) {
    const auto all = services.manager.ended();
    const auto ended = std::find_if(all.rbegin(), all.rend(), [&](const auto& e) {
      return !args.sandbox_id.empty() && (e.about.id == args.sandbox_id || e.about.name == args.sandbox_id);
    });
    if (ended == all.rend()) throw;
    return describe_ended(*ended);
  }
}

std::string text_of(const SandboxInfo& info) {
  std::string text = fmt::format("{}{} · {}\n", info.view.sandbox_id,
                                 info.view.name ? " (" + *info.view.name + ")" : "", info.view.state);
  if (info.cause) text += fmt::format("ended because {}\n", *info.cause);
  if (info.memory_bytes)
    text += fmt::format("in use: memory {}, processes {}, cpu time {:.2f} s, disk {}\n",
                        size_in_words(static_cast<uint64_t>(*info.memory_bytes)), info.pids.value_or(0),
                        info.cpu_s.value_or(0),
                        size_in_words(static_cast<uint64_t>(info.disk_bytes.value_or(0))));
  if (info.pressure) text += *info.pressure + "\n";
  text += text_of(info.view);
  for (const auto& item : info.view.isolation)
    text += fmt::format("  {} {}: {}\n", item.enforced ? "+" : "-", item.name, item.detail);
  text += fmt::format("made at {}{}\n", info.created_at,
                      info.last_used_at ? fmt::format(", last used at {}", *info.last_used_at) : "");
  for (const auto& process : info.processes)
    if (process.state != "ended")
      text +=
          fmt::format("process {} {}: {}\n", process.process_id, state_in_words(process), process.command);
  for (const auto& port : info.ports) text += text_of(port);
  if (!info.allow.empty()) text += fmt::format("may reach: {}\n", fmt::join(info.allow, ", "));
  for (const auto& note : refusal_notes(info.refused)) text += note + "\n";
  for (const auto& [name, value] : info.labels) text += fmt::format("label {}={}\n", name, value);
  return text;
}

void add_sandbox_info(mcp::ToolRegistry& registry, Services& services) {
  registry.add<SandboxInfoArgs, SandboxInfo>(
      {.name = "sandbox_info",
       .title = "Describe a sandbox",
       .description =
           "Everything about one sandbox: limits, what of its isolation is enforced on this host, memory, "
           "processes, processor time and disk in use, lifetime, labels; for one that has ended, why.",
       .toolset = "core",
       .read_only = true,
       .idempotent = true},
      [&services](const SandboxInfoArgs& args, mcp::CallContext&) { return sandbox_info(args, services); },
      [](const SandboxInfo& info) { return mcp::Reply{text_of(info)}; });
}

}  // namespace hutch::tools
