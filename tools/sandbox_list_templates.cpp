#include "tools/sandbox_list_templates.h"

#include <fmt/format.h>

namespace hutch::tools {

namespace {

SandboxListTemplatesResult run(const SandboxListTemplatesArgs&, Services& services) {
  SandboxListTemplatesResult result;
  for (const auto& one : services.manager.bases().templates().list()) {
    TemplateView view{.name = one.name,
                      .description = one.description,
                      .created_at = iso_time(sandbox::WallClock::from_time_t(one.created_at)),
                      .size_bytes = static_cast<int64_t>(one.size_bytes)};
    if (!one.parent.empty()) view.parent = one.parent;
    if (!one.base.layers.empty()) view.in_use = services.manager.bases().users_of(one.base.layers.back());
    result.templates.push_back(std::move(view));
  }
  return result;
}

std::string text_of(const SandboxListTemplatesResult& result) {
  if (result.templates.empty()) return "no templates; sandbox_create_template makes one\n";
  std::string text;
  for (const auto& t : result.templates)
    text +=
        fmt::format("{} · {} · made {}{}{}{}\n", t.name, size_in_words(static_cast<uint64_t>(t.size_bytes)),
                    t.created_at, t.parent ? fmt::format(" · on top of {}", *t.parent) : "",
                    t.in_use.empty() ? "" : fmt::format(" · in use by {}", t.in_use.size()),
                    t.description.empty() ? "" : "\n  " + t.description);
  return text;
}

}  // namespace

void add_sandbox_list_templates(mcp::ToolRegistry& registry, Services& services) {
  registry.add<SandboxListTemplatesArgs, SandboxListTemplatesResult>(
      {.name = "sandbox_list_templates",
       .title = "List templates",
       .description = "The templates that sandbox_create can begin with (`template`), with size, parent and "
                      "what uses them.",
       .toolset = "templates",
       .read_only = true,
       .idempotent = true},
      [&services](const SandboxListTemplatesArgs& args, mcp::CallContext&) { return run(args, services); },
      [](const SandboxListTemplatesResult& result) { return mcp::Reply{text_of(result)}; });
}

}  // namespace hutch::tools
