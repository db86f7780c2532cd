#include "tools/sandbox_create_template.h"

#include <fmt/format.h>

namespace hutch::tools {

namespace {

SandboxCreateTemplateResult run(const SandboxCreateTemplateArgs& args, Services& services) {
  const auto start = Clock::now();
  const Target target = find_target(services, args.sandbox_id);
  const sandbox::Template made =
      services.manager.save_template(target.sandbox->id(), args.name, args.description, args.overwrite);
  SandboxCreateTemplateResult result{.template_name = made.name,
                                     .sandbox_id = target.sandbox->id(),
                                     .size_bytes = static_cast<int64_t>(made.size_bytes),
                                     .layers = static_cast<int64_t>(made.base.layers.size())};
  if (!made.parent.empty()) result.parent = made.parent;
  result.create_ms = std::chrono::duration<double, std::milli>(Clock::now() - start).count();
  return result;
}

std::string text_of(const SandboxCreateTemplateResult& result) {
  return fmt::format(
      "made template {} of {} in {:.0f} ms: {}{}\n"
      "sandbox_create with `template: \"{}\"` begins with these files. Not in it: /run, /dev/shm, mounts, "
      "volumes, running processes and their logs.\n",
      result.template_name, result.sandbox_id, result.create_ms,
      size_in_words(static_cast<uint64_t>(result.size_bytes)),
      result.parent ? fmt::format(" on top of {}", *result.parent) : "", result.template_name);
}

}  // namespace

void add_sandbox_create_template(mcp::ToolRegistry& registry, Services& services) {
  registry.add<SandboxCreateTemplateArgs, SandboxCreateTemplateResult>(
      {.name = "sandbox_create_template",
       .title = "Keep a sandbox's files as a template",
       .description =
           "Keeps every file that a sandbox has (installed packages, /workspace, home, /tmp) under "
           "a name, from which sandbox_create makes new sandboxes in milliseconds, also after a "
           "restart. The sandbox is held still while it is copied and then goes on.",
       .toolset = "templates"},
      [&services](const SandboxCreateTemplateArgs& args, mcp::CallContext&) { return run(args, services); },
      [](const SandboxCreateTemplateResult& result) { return mcp::Reply{text_of(result)}; });
}

}  // namespace hutch::tools
