#pragma once

#include "config/load.h"
#include "mcp/resources.h"
#include "tools/services.h"

namespace hutch::tools {

/// `hutch://status`, `hutch://config`, and templates for files and logs of sandboxes. What is passed must
/// outlive the registry.
void add_resources(mcp::ResourceRegistry& registry, Services& services, const config::LoadedConfig& settings);

/// The settings in force and where each came from. The values of environment variables are left out, since
/// they may be secrets.
ordered_json shown_config(const config::LoadedConfig& settings);

}  // namespace hutch::tools
