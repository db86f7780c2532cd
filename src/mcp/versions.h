#pragma once

#include <optional>
#include <string>
#include <string_view>

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

ordered_json initialize_result(Revision revision, const ServerInfo& info, std::string_view instructions);
/// Not yet finished: see finish_result().
ordered_json discover_result(std::string_view instructions);

/// Leaves out of a full tool listing what the revision does not know.
ordered_json tool_for(Revision revision, ordered_json tool);
/// The same for the result of a call.
ordered_json call_result_for(Revision revision, ordered_json result);
/// The parameters of one progress notification.
ordered_json progress_params(Revision revision, const json& token, int64_t progress,
                             std::string_view message);

enum class Cacheable { no, yes };
/// Adds the fields that every modern result must have; a legacy result stays as it is.
ordered_json finish_result(Revision revision, ordered_json result, Cacheable cacheable,
                           const ServerInfo& info);

}  // namespace hutch::mcp
