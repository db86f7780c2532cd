#include "mcp/versions.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace hutch::mcp {

namespace {

constexpr std::array<std::string_view, 5> kNames = {"2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25",
                                                    "2026-07-28"};
constexpr Revision kLatestLegacy = Revision::v2025_11_25;
constexpr Revision kModern = Revision::v2026_07_28;

constexpr const char* kVersionKey = "io.modelcontextprotocol/protocolVersion";
constexpr const char* kCapabilitiesKey = "io.modelcontextprotocol/clientCapabilities";
constexpr const char* kClientInfoKey = "io.modelcontextprotocol/clientInfo";
constexpr const char* kServerInfoKey = "io.modelcontextprotocol/serverInfo";

constexpr const char* kTasksExtension = "io.modelcontextprotocol/tasks";
constexpr const char* kRelatedTaskKey = "io.modelcontextprotocol/related-task";

constexpr int kResourceNotFound = -32002;  // not in modern answers: it is in JSON-RPC's own range
constexpr int kMissingCapability = -32021;
constexpr int kUnsupportedVersion = -32022;
// The tools of a process never change, so the host may keep the list for as long as it likes.
constexpr int64_t kListTtlMs = 3'600'000;

// A local server is cheap to ask, and a call that became a task has taken several times this already.
constexpr int64_t kPollIntervalMs = 1000;

/// The lists of tools and resources cannot change while a process lives, so `listChanged` is not declared.
ordered_json capabilities(Revision revision, bool resources) {
  const ordered_json yes = ordered_json::object();
  ordered_json out = {{"tools", yes}};
  if (resources) out["resources"] = yes;
  // 2024-11-05 has the method and no word for it.
  if (resources && revision >= Revision::v2025_03_26) out["completions"] = yes;
  switch (task_style(revision)) {
    case TaskStyle::none:
      break;
    case TaskStyle::requested:
      out["tasks"] = {{"list", yes}, {"cancel", yes}, {"requests", {{"tools", {{"call", yes}}}}}};
      break;
    case TaskStyle::offered:
      out["extensions"] = {{kTasksExtension, yes}};
      break;
  }
  return out;
}

ordered_json supported_versions() {
  return ordered_json::array({revision_name(kModern)});
}

ordered_json info_json(Revision revision, const ServerInfo& info) {
  ordered_json out = {{"name", info.name}};
  if (revision >= Revision::v2025_06_18 && !info.title.empty()) out["title"] = info.title;
  out["version"] = info.version;
  return out;
}

std::string timestamp(std::chrono::system_clock::time_point time) {
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(time.time_since_epoch()).count();
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z", fmt::gmtime(static_cast<std::time_t>(ms / 1000)),
                     ms % 1000);
}

/// 2025-11-25 counts a tool's own error among the failed tasks, the extension only what no tool said.
bool is_failure(Revision revision, const Answer& outcome) {
  const auto* result = std::get_if<ordered_json>(&outcome);
  return result == nullptr ||
         (task_style(revision) == TaskStyle::requested && result->value("isError", false));
}

const char* status_of(const Task& task) {
  if (task.cancelled) return "cancelled";
  if (!task.outcome) return task.questions.empty() ? "working" : "input_required";
  return is_failure(task.revision, *task.outcome) ? "failed" : "completed";
}

std::string message_of(const Task& task) {
  if (task.cancelled) return "The task was cancelled by request.";
  if (!task.outcome) return task.message;
  const auto* error = std::get_if<ProtocolError>(task.outcome.get());
  return error ? error->message : std::string();
}

ProtocolError missing_field(const char* key, std::string_view type) {
  return {rpc::kInvalidParams, fmt::format("Invalid params: _meta[\"{}\"] is missing or not {}", key, type)};
}

}  // namespace

std::string_view revision_name(Revision revision) {
  return kNames[static_cast<size_t>(revision)];
}

bool is_modern(Revision revision) {
  return revision >= kModern;
}

Revision negotiate(std::string_view requested) {
  for (size_t i = 0; i <= static_cast<size_t>(kLatestLegacy); ++i)
    if (kNames[i] == requested) return static_cast<Revision>(i);
  return kLatestLegacy;
}

bool has_envelope(const json& meta) {
  return meta.contains(kVersionKey) || meta.contains(kCapabilitiesKey);
}

std::optional<ProtocolError> envelope_problem(const json& meta) {
  const auto version = meta.find(kVersionKey);
  if (version == meta.end() || !version->is_string()) return missing_field(kVersionKey, "a string");
  const auto capabilities_field = meta.find(kCapabilitiesKey);
  if (capabilities_field == meta.end() || !capabilities_field->is_object())
    return missing_field(kCapabilitiesKey, "an object");
  if (*version == revision_name(kModern)) return std::nullopt;
  return ProtocolError{kUnsupportedVersion,
                       "Unsupported protocol version",
                       {{"supported", supported_versions()}, {"requested", *version}}};
}

ProtocolError missing_envelope() {
  return {
      rpc::kInvalidParams,
      fmt::format("Invalid params: neither `initialize` was seen nor _meta[\"{}\"] is there", kVersionKey)};
}

std::string client_name(const json& meta) {
  const auto info = meta.find(kClientInfoKey);
  if (info == meta.end() || !info->is_object()) return {};
  const auto name = info->find("name");
  return name != info->end() && name->is_string() ? name->get<std::string>() : std::string();
}

TaskStyle task_style(Revision revision) {
  if (is_modern(revision)) return TaskStyle::offered;
  return revision == Revision::v2025_11_25 ? TaskStyle::requested : TaskStyle::none;
}

bool has_task_method(Revision revision, std::string_view method) {
  const TaskStyle style = task_style(revision);
  if (method == "tasks/get" || method == "tasks/cancel") return style != TaskStyle::none;
  if (method == "tasks/result" || method == "tasks/list") return style == TaskStyle::requested;
  return method == "tasks/update" && style == TaskStyle::offered;
}

json declared_capabilities(const json& meta) {
  const auto declared = meta.find(kCapabilitiesKey);
  return declared != meta.end() && declared->is_object() ? *declared : json::object();
}

bool declares_tasks(const json& meta) {
  const json declared = declared_capabilities(meta);
  const auto extensions = declared.find("extensions");
  if (extensions == declared.end() || !extensions->is_object()) return false;
  const auto tasks = extensions->find(kTasksExtension);
  return tasks != extensions->end() && tasks->is_object();
}

ProtocolError missing_tasks_capability() {
  ordered_json extensions;
  extensions[kTasksExtension] = ordered_json::object();
  return {kMissingCapability,
          "Missing required client capability",
          {{"requiredCapabilities", {{"extensions", std::move(extensions)}}}}};
}

std::variant<std::monostate, TaskRequest, ProtocolError> task_request(Revision revision, const json& params) {
  if (task_style(revision) != TaskStyle::requested) return std::monostate();
  const auto task = params.find("task");
  if (task == params.end() || task->is_null()) return std::monostate();
  if (!task->is_object()) return ProtocolError{rpc::kInvalidParams, "Invalid params: task must be an object"};
  const auto ttl = task->find("ttl");
  if (ttl == task->end()) return TaskRequest{};
  // null: without limit; and a number too large for int64_t is as good as that.
  constexpr auto kNoLimit = std::chrono::milliseconds::max();
  if (ttl->is_null()) return TaskRequest{kNoLimit};
  if (ttl->is_number_unsigned() && ttl->get<uint64_t>() > INT64_MAX) return TaskRequest{kNoLimit};
  if (!ttl->is_number_integer() || ttl->get<int64_t>() < 0)
    return ProtocolError{rpc::kInvalidParams,
                         "Invalid params: task.ttl must be milliseconds, a whole number from 0"};
  return TaskRequest{std::chrono::milliseconds(ttl->get<int64_t>())};
}

ProtocolError no_task_tool(std::string_view tool) {
  return {rpc::kMethodNotFound, fmt::format("Method not found: {} cannot be called as a task", tool)};
}

bool shows_forms(Revision revision, const json& capabilities) {
  if (revision < Revision::v2025_06_18 || !capabilities.is_object()) return false;
  const auto elicitation = capabilities.find("elicitation");
  if (elicitation == capabilities.end() || !elicitation->is_object()) return false;
  // Who names no mode means forms: there was no other one in 2025-06-18.
  return elicitation->contains("form") || !elicitation->contains("url");
}

QuestionStyle question_style(Revision revision, bool forms, bool offered) {
  if (!forms) return QuestionStyle::none;
  return is_modern(revision) && !offered ? QuestionStyle::round_trip : QuestionStyle::waiting;
}

ordered_json elicitation(Revision revision, const Question& question, std::string_view task_id) {
  ordered_json choice = {{"type", "string"}, {"title", "Your choice"}};
  for (const Question::Option& option : question.options) {
    if (revision == Revision::v2025_06_18) {
      choice["enum"].push_back(option.value);
      choice["enumNames"].push_back(printable(option.label));
    } else {
      choice["oneOf"].push_back({{"const", option.value}, {"title", printable(option.label)}});
    }
  }
  ordered_json params;
  if (!task_id.empty() && !is_modern(revision)) params["_meta"][kRelatedTaskKey] = {{"taskId", task_id}};
  if (revision != Revision::v2025_06_18) params["mode"] = "form";
  params["message"] = printable(question.message);
  params["requestedSchema"] = {{"type", "object"},
                               {"properties", {{"choice", std::move(choice)}}},
                               {"required", ordered_json::array({"choice"})}};
  return {{"method", "elicitation/create"}, {"params", std::move(params)}};
}

ordered_json input_required(Revision revision, const Question& question, std::string request_state) {
  return {{"resultType", "input_required"},
          {"inputRequests", {{kQuestionKey, elicitation(revision, question, {})}}},
          {"requestState", std::move(request_state)}};
}

ordered_json task_entry(const Task& task) {
  const bool offered = task_style(task.revision) == TaskStyle::offered;
  ordered_json out = {{"taskId", task.id}, {"status", status_of(task)}};
  if (std::string message = message_of(task); !message.empty()) out["statusMessage"] = std::move(message);
  out["createdAt"] = timestamp(task.created);
  out["lastUpdatedAt"] = timestamp(task.updated);
  out[offered ? "ttlMs" : "ttl"] = task.ttl.count();
  out[offered ? "pollIntervalMs" : "pollInterval"] = kPollIntervalMs;
  return out;
}

ordered_json task_created(const Task& task, const ServerInfo& info) {
  if (task_style(task.revision) == TaskStyle::requested) return {{"task", task_entry(task)}};
  ordered_json out = finish_result(task.revision, task_entry(task), Cacheable::no, info);
  out["resultType"] = "task";
  return out;
}

ordered_json task_state(const Task& task, const ServerInfo& info) {
  ordered_json out = task_entry(task);
  const bool asks = task_style(task.revision) == TaskStyle::offered && !task.outcome && !task.cancelled;
  if (asks && !task.questions.empty()) out["inputRequests"] = task.questions;
  const bool inlined = task_style(task.revision) == TaskStyle::offered && task.outcome && !task.cancelled;
  if (inlined) {
    Answer payload = task_payload(task, info);
    if (auto* error = std::get_if<ProtocolError>(&payload)) {
      out["error"] = {{"code", error->code}, {"message", error->message}};
      if (!error->data.is_null()) out["error"]["data"] = std::move(error->data);
    } else {
      out["result"] = std::move(std::get<ordered_json>(payload));
    }
  }
  return finish_result(task.revision, std::move(out), Cacheable::no, info);
}

Answer task_payload(const Task& task, const ServerInfo& info) {
  Answer out = finished_call(task.revision, *task.outcome, info);
  if (auto* result = std::get_if<ordered_json>(&out);
      result && task_style(task.revision) == TaskStyle::requested)
    (*result)["_meta"][kRelatedTaskKey] = {{"taskId", task.id}};
  return out;
}

Answer task_cancelled(const Task& task, bool cancelled, const ServerInfo& info) {
  if (task_style(task.revision) == TaskStyle::offered)
    return finish_result(task.revision, ordered_json::object(), Cacheable::no, info);
  if (cancelled) return task_entry(task);
  return ProtocolError{rpc::kInvalidParams,
                       fmt::format("Invalid params: the task is already {}", status_of(task))};
}

ordered_json initialize_result(Revision revision, const ServerInfo& info, std::string_view instructions,
                               bool resources) {
  ordered_json out = {{"protocolVersion", revision_name(revision)}};
  out["capabilities"] = capabilities(revision, resources);
  out["serverInfo"] = info_json(revision, info);
  if (!instructions.empty()) out["instructions"] = instructions;
  return out;
}

ordered_json discover_result(std::string_view instructions, bool resources) {
  ordered_json out = {{"supportedVersions", supported_versions()}};
  out["capabilities"] = capabilities(kModern, resources);
  if (!instructions.empty()) out["instructions"] = instructions;
  return out;
}

ordered_json resource_for(Revision revision, ordered_json resource) {
  if (revision < Revision::v2025_06_18) resource.erase("title");
  return resource;
}

ordered_json read_result(Revision revision, ordered_json content) {
  ordered_json out = {{"contents", ordered_json::array({std::move(content)})}};
  if (is_modern(revision)) {  // what is read may be another thing the next moment, and is this user's
    out["ttlMs"] = 0;
    out["cacheScope"] = "private";
  }
  return out;
}

ProtocolError resource_not_found(Revision revision, const std::string& uri, std::string what) {
  return {is_modern(revision) ? rpc::kInvalidParams : kResourceNotFound, std::move(what), {{"uri", uri}}};
}

ordered_json tool_for(Revision revision, ordered_json tool) {
  if (task_style(revision) != TaskStyle::requested) tool.erase("execution");
  if (revision >= Revision::v2025_06_18) return tool;
  // 2025-03-26 knows a title, but inside of the annotations; 2024-11-05 knows neither.
  if (revision == Revision::v2025_03_26 && tool.contains("title"))
    tool["annotations"]["title"] = tool["title"];
  if (revision == Revision::v2024_11_05) tool.erase("annotations");
  for (const char* key : {"title", "outputSchema", "_meta"}) tool.erase(key);
  return tool;
}

ordered_json call_result_for(Revision revision, ordered_json result) {
  if (revision < Revision::v2025_06_18) result.erase("structuredContent");
  return result;
}

Answer finished_call(Revision revision, Answer outcome, const ServerInfo& info) {
  auto* result = std::get_if<ordered_json>(&outcome);
  if (result == nullptr) return outcome;
  return finish_result(revision, call_result_for(revision, std::move(*result)), Cacheable::no, info);
}

ordered_json progress_params(Revision revision, const json& token, int64_t progress, std::string_view message,
                             std::string_view task_id) {
  ordered_json out;
  out["progressToken"] = token;
  out["progress"] = progress;
  if (revision >= Revision::v2025_03_26 && !message.empty()) out["message"] = message;
  if (!task_id.empty()) out["_meta"][kRelatedTaskKey] = {{"taskId", task_id}};
  return out;
}

bool tasks_have_progress(Revision revision) {
  return task_style(revision) == TaskStyle::requested;
}

ordered_json finish_result(Revision revision, ordered_json result, Cacheable cacheable,
                           const ServerInfo& info) {
  if (!is_modern(revision)) return result;
  ordered_json out = {{"resultType", "complete"}};
  out.update(result);
  if (cacheable == Cacheable::yes) {
    out["ttlMs"] = kListTtlMs;
    out["cacheScope"] = "public";
  }
  out["_meta"][kServerInfoKey] = info_json(revision, info);
  return out;
}

}  // namespace hutch::mcp
