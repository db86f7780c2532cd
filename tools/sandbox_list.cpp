#include "tools/sandbox_list.h"

#include <fmt/format.h>

#include <algorithm>

namespace hutch::tools {

namespace {

SandboxListEntry entry_of(const sandbox::Description& about) {
  SandboxListEntry entry;
  entry.sandbox_id = about.id;
  if (!about.name.empty()) entry.name = about.name;
  entry.profile = about.profile;
  if (!about.base.template_name.empty()) entry.template_name = about.base.template_name;
  entry.created_at = iso_time(about.created_at);
  entry.labels = about.labels;
  return entry;
}

bool has_labels(const sandbox::Description& about, const std::map<std::string, std::string>& wanted) {
  return std::ranges::all_of(wanted, [&](const auto& label) {
    const auto it = about.labels.find(label.first);
    return it != about.labels.end() && it->second == label.second;
  });
}

SandboxListResult run(const SandboxListArgs& args, Services& services) {
  SandboxListResult result;
  if (args.state != "ended")
    for (const auto& sandbox : services.manager.list()) {
      if (!has_labels(sandbox->about(), args.label)) continue;
      SandboxListEntry entry = entry_of(sandbox->about());
      entry.state = sandbox->state();
      if (args.state == "paused" && entry.state != "paused") continue;
      entry.last_used_at = iso_time(sandbox->last_used());
      if (const auto expires = sandbox->expires_at()) entry.expires_at = iso_time(*expires);
      entry.memory_bytes = sandbox->cgroup().usage().memory_bytes;
      result.sandboxes.push_back(std::move(entry));
    }
  if (args.state == "ended" || args.state == "all")
    for (const auto& ended : services.manager.ended()) {
      if (!has_labels(ended.about, args.label)) continue;
      SandboxListEntry entry = entry_of(ended.about);
      entry.state = "ended";
      entry.cause = ended.cause;
      result.sandboxes.push_back(std::move(entry));
    }
  return result;
}

std::string text_of(const SandboxListResult& result) {
  if (result.sandboxes.empty())
    return "no sandboxes; the first call without sandbox_id makes the default one, sandbox_create makes "
           "others";
  std::string text =
      fmt::format("{} sandbox{}\n", result.sandboxes.size(), result.sandboxes.size() == 1 ? "" : "es");
  for (const auto& s : result.sandboxes) {
    text += fmt::format("{} {}{} · profile {} · made {}", s.sandbox_id,
                        s.name ? fmt::format("({}) ", *s.name) : "", s.state, s.profile, s.created_at);
    if (s.memory_bytes)
      text += fmt::format(" · memory {}", size_in_words(static_cast<uint64_t>(*s.memory_bytes)));
    if (s.expires_at) text += fmt::format(" · ends {}", *s.expires_at);
    if (s.cause) text += fmt::format(" · because {}", *s.cause);
    for (const auto& [name, value] : s.labels) text += fmt::format(" · {}={}", name, value);
    text += '\n';
  }
  return text;
}

}  // namespace

void add_sandbox_list(mcp::ToolRegistry& registry, Services& services) {
  registry.add<SandboxListArgs, SandboxListResult>(
      {.name = "sandbox_list",
       .title = "List sandboxes",
       .description = "The sandboxes of this server with state, profile, age, memory and labels. With "
                      "`state: ended`, those "
                      "that are gone, and why.",
       .toolset = "core",
       .read_only = true,
       .idempotent = true},
      [&services](const SandboxListArgs& args, mcp::CallContext&) { return run(args, services); },
      [](const SandboxListResult& result) { return mcp::Reply{text_of(result)}; });
}

}  // namespace hutch::tools
