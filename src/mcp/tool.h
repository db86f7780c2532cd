#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "mcp/call_context.h"
#include "schema/json_reader.h"
#include "schema/json_writer.h"
#include "schema/schema_writer.h"

namespace hutch::mcp {

struct ToolInfo {
  std::string name;         // [a-z0-9_], at most 40
  std::string title;        // for people
  std::string description;  // for the model: when to use it and what comes back; under 1,000 characters
  std::string toolset;      // "core", "files" ...
  bool lean = false;        // also part of the toolset `lean`
  bool read_only = false;   // hosts run read-only calls side by side
  bool destructive = false;
  bool idempotent = false;
  bool open_world = false;
  bool always_load = false;  // in the model's context from the start (Claude Code)
  bool task = false;         // may take long: clients that know tasks need not wait for its answer
};

struct Image {
  std::string mime_type, base64;
};

/// For a tool without arguments.
struct NoArgs {
  template <class V>
  void describe(V&) {}
};

/// What the model reads.
struct Reply {
  std::string text;
  std::vector<Image> images{};
};

/// `text`: one text block (and images). `structured`: besides it structuredContent, declared by outputSchema.
enum class Results { text, structured };

/// The tools that a server offers. Filled and selected before the server runs, constant afterwards; calls may
/// then come from many threads.
class ToolRegistry {
 public:
  explicit ToolRegistry(Results results = Results::text) : results_(results) {}

  /// Args and Result are structs with describe() (schema/describe.h). `run` gets arguments that keep all
  /// rules; an Error it throws becomes a result with isError. `render` says the same as Result in words.
  /// Throws Error(internal) on a bad or repeated name.
  template <class Args, class Result>
  void add(ToolInfo info, std::function<Result(const Args&, CallContext&)> run,
           std::function<Reply(const Result&)> render) {
    Tool tool{.info = std::move(info), .input_schema = schema::schema_of<Args>()};
    tool.output_schema = with_error(schema::schema_of<Result>(schema::SchemaWriter::Purpose::result));
    const std::string name = tool.info.name;
    tool.run = [name, structured = results_ == Results::structured, run = std::move(run),
                render = std::move(render)](const json& arguments, CallContext& context) {
      const Args args = during("reading the arguments of " + name,
                               [&] { return schema::parse_arguments<Args>(arguments); });
      return during("running " + name, [&] {
        const Result result = run(args, context);
        return Outcome{render(result), structured ? schema::to_json(result) : ordered_json()};
      });
    };
    insert(std::move(tool));
  }

  /// Keeps the tools of these toolsets; `lean` is one across all. Throws Error(invalid_argument) that names
  /// the known ones. Without a call all tools are offered.
  void select(const std::vector<std::string>& toolsets);

  /// Full listings for tools/list, sorted by name.
  ordered_json list() const;
  /// Null when there is none.
  const ToolInfo* find(const std::string& name) const;

  /// The one place where an Error becomes a result with isError. `arguments` null means none. The tool must
  /// exist.
  ordered_json call(const std::string& name, const json& arguments, CallContext& context) const;
  ordered_json error_result(const Error& error) const;

 private:
  struct Outcome {
    Reply reply;
    ordered_json structured;
  };
  struct Tool {
    ToolInfo info;
    ordered_json input_schema, output_schema{};
    std::function<Outcome(const json&, CallContext&)> run{};
  };

  static ordered_json with_error(ordered_json output_schema);
  void insert(Tool tool);

  Results results_;
  std::map<std::string, Tool> tools_;
};

}  // namespace hutch::mcp
