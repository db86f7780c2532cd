#pragma once

#include <string>

#include "mcp/tool.h"
#include "sandbox/manager.h"

namespace hutch::tools {

class AskingRuns;

/// What the tools work with. Outlives the registry.
struct Services {
  sandbox::Manager& manager;
  /// Text results show both output streams in the order in which they were written; structured ones keep them
  /// apart.
  bool merge_output = true;
  AskingRuns* asking = nullptr;  // nullptr: nobody is asked
};

/// Every tool of this folder. Named one by one, so that there is one place to see what is offered.
void register_all(mcp::ToolRegistry& registry, Services& services);

void add_sandbox_close_port(mcp::ToolRegistry& registry, Services& services);
void add_sandbox_create(mcp::ToolRegistry& registry, Services& services);
void add_sandbox_create_template(mcp::ToolRegistry& registry, Services& services);
void add_sandbox_delete_template(mcp::ToolRegistry& registry, Services& services);
void add_sandbox_destroy(mcp::ToolRegistry& registry, Services& services);
void add_sandbox_edit_file(mcp::ToolRegistry& registry, Services& services);
void add_sandbox_eval(mcp::ToolRegistry& registry, Services& services);
void add_sandbox_exec(mcp::ToolRegistry& registry, Services& services);
void add_sandbox_expose_port(mcp::ToolRegistry& registry, Services& services);
void add_sandbox_fork(mcp::ToolRegistry& registry, Services& services);
void add_sandbox_info(mcp::ToolRegistry& registry, Services& services);
void add_sandbox_list(mcp::ToolRegistry& registry, Services& services);
void add_sandbox_list_files(mcp::ToolRegistry& registry, Services& services);
void add_sandbox_list_ports(mcp::ToolRegistry& registry, Services& services);
void add_sandbox_list_profiles(mcp::ToolRegistry& registry, Services& services);
void add_sandbox_list_templates(mcp::ToolRegistry& registry, Services& services);
void add_sandbox_port_url(mcp::ToolRegistry& registry, Services& services);
void add_sandbox_process(mcp::ToolRegistry& registry, Services& services);
void add_sandbox_read_file(mcp::ToolRegistry& registry, Services& services);
void add_sandbox_update(mcp::ToolRegistry& registry, Services& services);
void add_sandbox_write_file(mcp::ToolRegistry& registry, Services& services);

}  // namespace hutch::tools
