#include "tools/resources.h"

#include <fmt/format.h>

#include <algorithm>

#include "net/upstream_proxy.h"
#include "sandbox/status.h"
#include "schema/json_writer.h"
#include "schema/text.h"
#include "tools/encoding.h"
#include "tools/sandbox_read_file.h"

namespace hutch::tools {

namespace {

constexpr const char* kFilesTemplate = "sandbox://{id}/files/{+path}";
constexpr const char* kLogsTemplate = "sandbox://{id}/logs/{number}";
constexpr const char* kJson = "application/json";
constexpr const char* kText = "text/plain";

using mcp::ResourceContent;
using Variables = mcp::ResourceRegistry::Variables;

/// Half of what a message may have: the other half is for what JSON and base64 add.
uint64_t content_max(const config::Limits& limits) {
  return std::min(limits.file_max.value, limits.message_max.value / 2);
}

std::string bytes_of(Services& services, const std::string& id, const std::string& path,
                     mcp::CallContext& context) {
  std::string bytes;
  read_content(
      *services.manager.find(id), path, content_max(services.manager.config().limits),
      [&](std::string_view piece) { bytes += piece; }, context.stop());
  return bytes;
}

ResourceContent as_text(std::string_view bytes) {
  return {.mime_type = kText, .content = schema::valid_utf8(bytes)};
}

/// From the root, whatever the working folder is: an address is to mean one file.
ResourceContent read_sandbox_file(Services& services, const Variables& variables, mcp::CallContext& context) {
  const std::string path = "/" + variables.at("path");
  const std::string bytes = bytes_of(services, variables.at("id"), path, context);
  if (is_text(bytes)) return as_text(bytes);
  const std::string_view image = image_type(bytes);
  return {.mime_type = image.empty() ? "application/octet-stream" : std::string(image),
          .content = base64_encode(bytes),
          .is_base64 = true};
}

ResourceContent read_log(Services& services, const Variables& variables, mcp::CallContext& context) {
  const std::string& number = variables.at("number");
  if (number.size() > 10 || number.find_first_not_of("0123456789") != number.npos)
    throw Error(Errc::not_found, fmt::format("'{}' is no command's number", one_line(number)))
        .hint("results name it: /var/log/hutch/3.log is that of command 3");
  return as_text(
      bytes_of(services, variables.at("id"), fmt::format("/var/log/hutch/{}.log", number), context));
}

/// Ids and names. A server without its first call has none, and must not begin to work for a completion.
std::vector<std::string> sandbox_names(sandbox::Manager& manager) {
  std::vector<std::string> out;
  if (!manager.prepared()) return out;
  for (const auto& sandbox : manager.list()) {
    out.push_back(sandbox->id());
    if (const std::string& name = sandbox->about().name; !name.empty()) out.push_back(name);
  }
  std::ranges::sort(out);
  return out;
}

ResourceContent as_json(const ordered_json& value) {
  return {.mime_type = kJson, .content = value.dump(2)};
}

void add_state(mcp::ResourceRegistry& registry, Services& services, const config::LoadedConfig& settings) {
  registry.add({.uri = "hutch://status",
                .name = "status",
                .title = "State of hutch",
                .description = "Memory, disk and load of this machine, pressure, the warm pool, and every "
                               "sandbox of this server with what it uses and may use.",
                .mime_type = kJson},
               [&services](const Variables&, mcp::CallContext&) {
                 return as_json(schema::to_json(sandbox::status_of(services.manager)));
               });
  registry.add({.uri = "hutch://config",
                .name = "config",
                .title = "Settings of hutch",
                .description = "The settings in force and where each came from; values of environment "
                               "variables are left out.",
                .mime_type = kJson},
               [&settings](const Variables&, mcp::CallContext&) { return as_json(shown_config(settings)); });
}

void add_contents(mcp::ResourceRegistry& registry, Services& services) {
  const mcp::ResourceRegistry::Completer names = [&services] { return sandbox_names(services.manager); };
  registry.add({.uri = kFilesTemplate,
                .name = "file",
                .title = "File in a sandbox",
                .description = "A file by its path from the root, such as sandbox://ID/files/workspace/a.py; "
                               "text as text, all else as bytes. ID is a sandbox's id or name.",
                .mime_type = {}},
               [&services](const Variables& variables, mcp::CallContext& context) {
                 return read_sandbox_file(services, variables, context);
               },
               {{"id", names}});
  registry.add(
      {.uri = kLogsTemplate,
       .name = "log",
       .title = "Log of a command",
       .description = "All that a command printed, by its number, also while it runs. It lies in the "
                      "sandbox, where it can be changed: the sandbox's word, not evidence.",
       .mime_type = kText},
      [&services](const Variables& variables, mcp::CallContext& context) {
        return read_log(services, variables, context);
      },
      {{"id", names}});
}

}  // namespace

ordered_json shown_config(const config::LoadedConfig& settings) {
  config::Config config = settings.config;
  for (auto& [_, profile] : config.profiles)
    for (auto& [name, value] : profile.env) value = "(left out)";
  config.egress.upstream_proxy = net::without_credentials(config.egress.upstream_proxy);
  ordered_json out;
  out["file"] = settings.file;
  out["settings"] = schema::to_json(config);
  out["origins"] = schema::to_json(settings.origins);
  return out;
}

void add_resources(mcp::ResourceRegistry& registry, Services& services,
                   const config::LoadedConfig& settings) {
  add_state(registry, services, settings);
  add_contents(registry, services);
}

}  // namespace hutch::tools
