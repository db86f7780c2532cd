// Writes what is made from the code: schemas/ and the tables of README.md. A test runs it into a copy and
// compares.

#include <fmt/format.h>

#include <cstdio>
#include <string>

#include "base/error.h"
#include "base/sys.h"
#include "config/config.h"
#include "sandbox/manager.h"
#include "schema/markdown_writer.h"
#include "schema/schema_writer.h"
#include "tools/services.h"

namespace {

using namespace hutch;

mcp::ToolRegistry all_tools(tools::Services& services) {
  mcp::ToolRegistry registry(mcp::Results::structured);
  tools::register_all(registry, services);
  return registry;
}

std::string arguments_of(const ordered_json& input_schema) {
  std::string out;
  const auto required = input_schema.value("required", ordered_json::array());
  const auto properties = input_schema.value("properties", ordered_json::object());
  for (const auto& [name, _] : properties.items()) {
    const bool is_required = std::find(required.begin(), required.end(), name) != required.end();
    out += fmt::format("{}{}", out.empty() ? "" : ", ", is_required ? fmt::format("**{}**", name) : name);
  }
  return out;
}

std::string tool_table(const mcp::ToolRegistry& registry) {
  std::string out = "| tool | arguments (required in bold) | what it does |\n| --- | --- | --- |\n";
  for (const auto& tool : registry.list()) {
    const std::string description = tool.at("description");
    const size_t first = description.find(". ");  // of one sentence all is shown
    out += fmt::format("| `{}` | {} | {} |\n", tool.at("name").get<std::string>(),
                       arguments_of(tool.at("inputSchema")),
                       first == std::string::npos ? description : description.substr(0, first + 1));
  }
  return out;
}

/// Replaces what stands between the lines `<!-- begin NAME -->` and `<!-- end NAME -->`.
std::string with_section(std::string text, const std::string& name, const std::string& content) {
  const std::string begin = fmt::format("<!-- begin {} -->\n", name),
                    end = fmt::format("<!-- end {} -->", name);
  const size_t from = text.find(begin), to = text.find(end);
  if (from == std::string::npos || to == std::string::npos || to < from)
    throw Error(Errc::not_found, fmt::format("README.md has no section '{}'", name));
  return text.replace(from + begin.size(), to - from - begin.size(), content);
}

void generate(const std::string& root) {
  const config::Config config;
  sandbox::Manager manager(config);
  tools::Services services{.manager = manager};
  const mcp::ToolRegistry registry = all_tools(services);
  sys::make_dirs(root + "/schemas/tools");
  for (const auto& tool : registry.list()) {
    ordered_json both;
    both["input"] = tool.at("inputSchema");
    both["output"] = tool.at("outputSchema");
    sys::write_file(fmt::format("{}/schemas/tools/{}.json", root, tool.at("name").get<std::string>()),
                    both.dump(2) + "\n");
  }
  sys::write_file(root + "/schemas/config.json", schema::schema_of<config::Config>().dump(2) + "\n");
  std::string readme = sys::read_file(root + "/README.md");
  readme = with_section(std::move(readme), "tools", tool_table(registry));
  readme = with_section(std::move(readme), "configuration", schema::markdown_table<config::Config>());
  sys::write_file(root + "/README.md", readme);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    generate(argc > 1 ? argv[1] : ".");
    return 0;
  } catch (const hutch::Error& e) {
    fmt::print(stderr, "{}\n", hutch::error_text(e));
    return 1;
  }
}
