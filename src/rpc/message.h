#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <variant>

/// JSON-RPC 2.0 messages. What travels in them is not known here.
namespace hutch::rpc {

/// Parsed messages: a sorted map, so that a million keys cost no quadratic time.
using nlohmann::json;
/// Written messages: keys stay in the order in which they were put in.
using nlohmann::ordered_json;

inline constexpr int kParseError = -32700;
inline constexpr int kInvalidRequest = -32600;
inline constexpr int kMethodNotFound = -32601;
inline constexpr int kInvalidParams = -32602;
inline constexpr int kInternalError = -32603;

struct Request {
  json id;  // a string or an integer, echoed as it came
  std::string method;
  json params;  // null when absent
};
struct Notification {
  std::string method;
  json params;  // null when absent
};
struct Response {
  json id;
  json body;  // the whole message: has `result` or `error`
};
/// Not a message. `id` is null unless the sender's id could be made out.
struct Invalid {
  json id;
  int code;
  std::string what;
};
using Message = std::variant<Request, Notification, Response, Invalid>;

/// Never throws on content. Refuses nesting beyond `max_depth` before parsing it, since copying or dumping
/// a deep value would overflow the stack. Batches (arrays) are refused.
Message parse_message(std::string_view line, size_t max_depth);

/// True when the brackets outside of strings nest deeper than `max_depth`.
bool is_too_deep(std::string_view text, size_t max_depth);

ordered_json make_result(const json& id, ordered_json result);
/// `data` is left out when null.
ordered_json make_error(const json& id, int code, std::string_view message, ordered_json data = nullptr);
/// `call`: method and params.
ordered_json make_request(const json& id, ordered_json call);
ordered_json make_notification(std::string_view method, ordered_json params);

/// One line with its newline. Invalid UTF-8 is replaced.
std::string to_line(const ordered_json& message);

}  // namespace hutch::rpc
