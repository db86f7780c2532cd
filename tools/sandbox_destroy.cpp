#include "tools/sandbox_destroy.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <thread>

namespace hutch::tools {

namespace {

SandboxDestroyResult run(const SandboxDestroyArgs& args, Services& services) {
  SandboxDestroyResult result;
  std::string id;
  if (args.sandbox_id != "*") {
    if (services.manager.destroy(args.sandbox_id, id))
      result.destroyed.push_back(id);
    else
      result.note =
          fmt::format("there is no sandbox '{}' any more: nothing to do", args.sandbox_id.substr(0, 80));
    return result;
  }
  if (!args.confirm)
    throw Error(Errc::invalid_argument, "all sandboxes of this server would end")
        .hint("say so with `confirm: true`");
  const auto all = services.manager.list();
  {
    std::vector<std::jthread> removals;
    for (const auto& sandbox : all)
      removals.emplace_back([&services, name = sandbox->id()] {
        std::string ignored;
        services.manager.destroy(name, ignored);
      });
  }
  for (const auto& sandbox : all) result.destroyed.push_back(sandbox->id());
  if (all.empty()) result.note = "there was no sandbox";
  return result;
}

}  // namespace

void add_sandbox_destroy(mcp::ToolRegistry& registry, Services& services) {
  registry.add<SandboxDestroyArgs, SandboxDestroyResult>(
      {.name = "sandbox_destroy",
       .title = "Destroy a sandbox",
       .description = "Ends a sandbox and deletes its files for good. One that is already gone counts as "
                      "done. \"*\" with confirm ends all of this server.",
       .toolset = "core",
       .lean = true,
       .destructive = true,
       .idempotent = true},
      [&services](const SandboxDestroyArgs& args, mcp::CallContext&) { return run(args, services); },
      [](const SandboxDestroyResult& result) {
        return mcp::Reply{result.destroyed.empty()
                              ? result.note
                              : fmt::format("destroyed {}", fmt::join(result.destroyed, ", "))};
      });
}

}  // namespace hutch::tools
