#include "tools/services.h"

namespace hutch::tools {

void register_all(mcp::ToolRegistry& registry, Services& services) {
  add_sandbox_close_port(registry, services);
  add_sandbox_create(registry, services);
  add_sandbox_create_template(registry, services);
  add_sandbox_delete_template(registry, services);
  add_sandbox_destroy(registry, services);
  add_sandbox_edit_file(registry, services);
  add_sandbox_eval(registry, services);
  add_sandbox_exec(registry, services);
  add_sandbox_expose_port(registry, services);
  add_sandbox_fork(registry, services);
  add_sandbox_info(registry, services);
  add_sandbox_list(registry, services);
  add_sandbox_list_files(registry, services);
  add_sandbox_list_ports(registry, services);
  add_sandbox_list_profiles(registry, services);
  add_sandbox_list_templates(registry, services);
  add_sandbox_port_url(registry, services);
  add_sandbox_process(registry, services);
  add_sandbox_read_file(registry, services);
  add_sandbox_update(registry, services);
  add_sandbox_write_file(registry, services);
}

}  // namespace hutch::tools
