#include "tools/sandbox_delete_template.h"

#include <fmt/format.h>

namespace hutch::tools {

void add_sandbox_delete_template(mcp::ToolRegistry& registry, Services& services) {
  registry.add<SandboxDeleteTemplateArgs, SandboxDeleteTemplateResult>(
      {.name = "sandbox_delete_template",
       .title = "Delete a template",
       .description = "Deletes a template and its files for good. One that a sandbox or another template "
                      "needs is a conflict.",
       .toolset = "templates",
       .destructive = true},
      [&services](const SandboxDeleteTemplateArgs& args, mcp::CallContext&) {
        services.manager.remove_template(args.name);
        return SandboxDeleteTemplateResult{args.name};
      },
      [](const SandboxDeleteTemplateResult& result) {
        return mcp::Reply{fmt::format("deleted template {}\n", result.deleted)};
      });
}

}  // namespace hutch::tools
