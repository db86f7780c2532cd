#include "mcp/tool.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "schema/text.h"

namespace hutch::mcp {

namespace {

// Hosts put `mcp__<server>__` before it and cut or drop names beyond 60 to 64 characters.
constexpr size_t kMaxNameLength = 40;
constexpr size_t kMaxDescription = 1000;
constexpr std::string_view kLean = "lean";

/// `error` of a structured result.
struct ErrorFields {
  std::string code, message, hint;

  template <class V>
  void describe(V& v) {
    v.required("code", code, "What the caller can do about it.",
               {.one_of = {"invalid_argument", "not_found", "conflict", "denied", "unavailable",
                           "limit_exceeded", "timeout", "internal"}});
    v.required("message", message, "What failed and during what.");
    v.optional("hint", hint, "What to try next.");
  }
};

bool is_in(const ToolInfo& tool, std::string_view toolset) {
  return toolset == kLean ? tool.lean : tool.toolset == toolset;
}

ordered_json text_block(std::string_view text) {
  return {{"type", "text"}, {"text", text}};
}

}  // namespace

ordered_json ToolRegistry::with_error(ordered_json output_schema) {
  // An error result holds only this, a success everything else: without `anyOf` a schema can allow both only
  // by requiring nothing at the top.
  ordered_json schema = schema::schema_of<ErrorFields>(schema::SchemaWriter::Purpose::result);
  schema["description"] = "Only when isError is true.";
  output_schema["properties"]["error"] = std::move(schema);
  return output_schema;
}

void ToolRegistry::insert(Tool tool) {
  const std::string name = tool.info.name;
  const bool valid = !name.empty() && name.size() <= kMaxNameLength &&
                     name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") == name.npos;
  if (!valid) throw Error(Errc::internal, fmt::format("'{}' is no name for a tool", name));
  if (tool.info.description.size() >= kMaxDescription)
    throw Error(Errc::internal, fmt::format("the description of {} is too long", name));
  if (!tools_.emplace(name, std::move(tool)).second)
    throw Error(Errc::internal, fmt::format("tool {} was added twice", name));
}

void ToolRegistry::select(const std::vector<std::string>& toolsets) {
  std::set<std::string_view> known = {kLean};
  for (const auto& [name, tool] : tools_) known.insert(tool.info.toolset);
  for (const std::string& toolset : toolsets) {
    if (known.contains(toolset)) continue;
    const std::string_view near = schema::nearest(toolset, {known.begin(), known.end()});
    throw Error(Errc::invalid_argument,
                fmt::format("there is no toolset '{}'{}", schema::valid_utf8(toolset),
                            near.empty() ? "" : fmt::format("; did you mean '{}'?", near)))
        .hint(fmt::format("the toolsets are {}", fmt::join(known, ", ")));
  }
  std::erase_if(tools_, [&](const auto& entry) {
    return std::none_of(toolsets.begin(), toolsets.end(),
                        [&](const std::string& toolset) { return is_in(entry.second.info, toolset); });
  });
}

ordered_json ToolRegistry::list() const {
  ordered_json out = ordered_json::array();
  for (const auto& [name, tool] : tools_) {
    const ToolInfo& info = tool.info;
    ordered_json entry = {{"name", name}, {"title", info.title}, {"description", info.description}};
    entry["inputSchema"] = tool.input_schema;
    if (results_ == Results::structured) entry["outputSchema"] = tool.output_schema;
    entry["annotations"] = {{"readOnlyHint", info.read_only},
                            {"destructiveHint", info.destructive},
                            {"idempotentHint", info.idempotent},
                            {"openWorldHint", info.open_world}};
    if (info.task) entry["execution"] = {{"taskSupport", "optional"}};
    if (info.always_load) entry["_meta"] = {{"anthropic/alwaysLoad", true}};
    out.push_back(std::move(entry));
  }
  return out;
}

const ToolInfo* ToolRegistry::find(const std::string& name) const {
  const auto it = tools_.find(name);
  return it == tools_.end() ? nullptr : &it->second.info;
}

ordered_json ToolRegistry::call(const std::string& name, const json& arguments, CallContext& context) const {
  try {
    Outcome outcome = tools_.at(name).run(arguments.is_null() ? json::object() : arguments, context);
    ordered_json content = ordered_json::array({text_block(outcome.reply.text)});
    for (const Image& image : outcome.reply.images)
      content.push_back({{"type", "image"}, {"data", image.base64}, {"mimeType", image.mime_type}});
    ordered_json result;
    result["content"] = std::move(content);
    if (results_ == Results::structured) result["structuredContent"] = std::move(outcome.structured);
    result["isError"] = false;
    return result;
  } catch (const Error& error) {
    return error_result(error);
  } catch (const std::exception& failure) {  // the libraries and the standard library
    Error error(Errc::internal, failure.what());
    error.during("running " + name);
    return error_result(error);
  }
}

ordered_json ToolRegistry::error_result(const Error& error) const {
  ordered_json result;
  result["content"] = ordered_json::array({text_block(error_text(error))});
  if (results_ == Results::structured) {
    ErrorFields fields{std::string(errc_name(error.code())), error.what(), error.hint()};
    for (const std::string& step : error.steps()) fields.message += "\nwhile " + step;
    result["structuredContent"]["error"] = schema::to_json(fields);
  }
  result["isError"] = true;
  return result;
}

}  // namespace hutch::mcp
