#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "mcp/question.h"
#include "rpc/message.h"
#include "schema/json.h"

/// Everything in which the revisions of the Model Context Protocol differ, and nothing else.
///
/// Legacy revisions begin with `initialize`, which fixes one revision for the connection. Since 2026-07-28
/// there is no handshake: each request carries its revision in `params._meta`. Both kinds are served on one
/// stream.
namespace hutch::mcp {

enum class Revision { v2024_11_05, v2025_03_26, v2025_06_18, v2025_11_25, v2026_07_28 };

std::string_view revision_name(Revision revision);
bool is_modern(Revision revision);

struct ServerInfo {
  std::string name, title, version;
};

/// What answers a request that cannot be served; not for failures that a model can repair.
struct ProtocolError {
  int code;
  std::string message;
  ordered_json data = nullptr;
};

/// What a request is answered with.
using Answer = std::variant<ordered_json, ProtocolError>;

/// The legacy revision to speak with a client that asked for `requested`: the same one when it is known,
/// otherwise the latest legacy one. Never a modern one, since that has no `initialize`.
Revision negotiate(std::string_view requested);

/// Whether `params._meta` claims a modern revision.
bool has_envelope(const json& meta);
/// What is wrong with the envelope: missing or ill-typed fields, or a revision that is not served.
std::optional<ProtocolError> envelope_problem(const json& meta);
/// The answer to a request without an envelope before any `initialize`.
ProtocolError missing_envelope();
/// "claude-code"; empty when the client does not say.
std::string client_name(const json& meta);

/// How a call of a tool comes to be a task, which is asked for its result later.
enum class TaskStyle {
  none,
  requested,  // 2025-11-25: the client asks for it with `params.task`
  offered,    // extension of 2026-07-28: the server decides, for a client that declares to know tasks
};
TaskStyle task_style(Revision revision);
bool has_task_method(Revision revision, std::string_view method);
/// Whether the envelope of a modern request declares the extension.
bool declares_tasks(const json& meta);
/// The answer to a method of the extension from a client that does not declare it.
ProtocolError missing_tasks_capability();

struct TaskRequest {
  std::optional<std::chrono::milliseconds> ttl;  // how long the client wants its result kept
};
/// Whether the parameters of a call ask for a task. Where the server decides, they are not looked at.
std::variant<std::monostate, TaskRequest, ProtocolError> task_request(Revision revision, const json& params);
/// The answer to a request for a task with a tool that cannot be one.
ProtocolError no_task_tool(std::string_view tool);

/// Whether a client with these capabilities shows forms to its user.
bool shows_forms(Revision revision, const json& capabilities);
/// The capabilities in the envelope of a modern request.
json declared_capabilities(const json& meta);
/// How a question can be put to such a client. `offered`: the call may become a task, whose state then
/// carries the question.
QuestionStyle question_style(Revision revision, bool forms, bool offered);
/// The request that puts the question, without the parts of JSON-RPC. `task_id` is empty for a call that is
/// no task.
ordered_json elicitation(Revision revision, const Question& question, std::string_view task_id);
/// Answers a call that ends with a question; not yet finished.
ordered_json input_required(Revision revision, const Question& question, std::string request_state);
/// Under which the answer comes back.
inline constexpr const char* kQuestionKey = "question";

/// One task as it is at a moment.
struct Task {
  std::string id;
  Revision revision;  // of the client that has it
  bool cancelled = false;
  std::string message;                              // what it is doing; may be empty
  std::map<std::string, ordered_json> questions{};  // which its user is asked: elicitations by their id
  std::chrono::system_clock::time_point created, updated;
  std::chrono::milliseconds ttl;  // from `created`
  std::shared_ptr<const Answer>
      outcome;  // of the call, not yet finished for any revision; null while it runs
};

/// Answers the call that has become a task.
ordered_json task_created(const Task& task, const ServerInfo& info);
/// Answers `tasks/get`.
ordered_json task_state(const Task& task, const ServerInfo& info);
/// Answers `tasks/result`: exactly what the call would have been answered with.
Answer task_payload(const Task& task, const ServerInfo& info);
/// Answers `tasks/cancel`. `cancelled`: the task worked until now.
Answer task_cancelled(const Task& task, bool cancelled, const ServerInfo& info);
/// One entry of `tasks/list`.
ordered_json task_entry(const Task& task);

/// `resources`: whether there is something to read, which can be completed too.
ordered_json initialize_result(Revision revision, const ServerInfo& info, std::string_view instructions,
                               bool resources);
/// Not yet finished: see finish_result().
ordered_json discover_result(std::string_view instructions, bool resources);

/// Leaves out of a full listing of resources, or of their templates, what the revision does not know.
ordered_json resource_for(Revision revision, ordered_json resource);
/// Answers `resources/read`; not yet finished.
ordered_json read_result(Revision revision, ordered_json content);
/// The answer when nothing has this address (any more).
ProtocolError resource_not_found(Revision revision, const std::string& uri, std::string what);

/// Leaves out of a full tool listing what the revision does not know.
ordered_json tool_for(Revision revision, ordered_json tool);
/// The same for the result of a call.
ordered_json call_result_for(Revision revision, ordered_json result);
/// A call's outcome as its client gets it.
Answer finished_call(Revision revision, Answer outcome, const ServerInfo& info);
/// The parameters of one progress notification; `task_id` is empty for a call that is no task.
ordered_json progress_params(Revision revision, const json& token, int64_t progress, std::string_view message,
                             std::string_view task_id);
/// Whether the progress token of a call is still good after it has become a task.
bool tasks_have_progress(Revision revision);

enum class Cacheable { no, yes };
/// Adds the fields that every modern result must have; a legacy result stays as it is.
ordered_json finish_result(Revision revision, ordered_json result, Cacheable cacheable,
                           const ServerInfo& info);

}  // namespace hutch::mcp
