#include "rpc/message.h"

#include <fmt/format.h>

namespace hutch::rpc {

namespace {

bool is_valid_id(const json& id) {
  return id.is_string() || id.is_number_integer();
}

Message invalid(json id, std::string what) {
  return Invalid{is_valid_id(id) ? std::move(id) : json(), kInvalidRequest, std::move(what)};
}

json take(json& object, const char* key) {
  const auto it = object.find(key);
  return it == object.end() ? json() : std::move(*it);
}

Message classify(json root) {
  const bool has_id = root.contains("id");
  const bool is_response = root.contains("result") || root.contains("error");
  json id = take(root, "id");
  if (take(root, "jsonrpc") != "2.0")
    return invalid(std::move(id), "Invalid Request: \"jsonrpc\" must be \"2.0\"");
  if (!root.contains("method")) {
    if (!is_response) return invalid(std::move(id), "Invalid Request: \"method\" is missing");
    return Response{std::move(id), std::move(root)};
  }
  json method = take(root, "method");
  if (!method.is_string()) return invalid(std::move(id), "Invalid Request: \"method\" must be a string");
  json params = take(root, "params");
  if (!has_id) return Notification{method.get<std::string>(), std::move(params)};
  if (!is_valid_id(id)) return invalid({}, "Invalid Request: \"id\" must be a string or an integer");
  return Request{std::move(id), method.get<std::string>(), std::move(params)};
}

}  // namespace

bool is_too_deep(std::string_view text, size_t max_depth) {
  size_t depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\')
        ++i;
      else if (c == '"')
        in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > max_depth) return true;
    } else if ((c == ']' || c == '}') && depth > 0) {
      --depth;
    }
  }
  return false;
}

Message parse_message(std::string_view line, size_t max_depth) {
  if (is_too_deep(line, max_depth))
    return Invalid{{}, kParseError, fmt::format("Parse error: nested deeper than {} levels", max_depth)};
  // The library would skip a byte order mark, which RFC 8259 forbids in a message.
  if (line.starts_with("\xEF\xBB\xBF")) return Invalid{{}, kParseError, "Parse error: byte order mark"};
  json root = json::parse(line, nullptr, false);
  if (root.is_discarded()) return Invalid{{}, kParseError, "Parse error: not valid JSON in UTF-8"};
  if (root.is_array()) return invalid({}, "Invalid Request: batches are not supported");
  if (!root.is_object()) return invalid({}, "Invalid Request: a message is an object");
  return classify(std::move(root));
}

ordered_json make_result(const json& id, ordered_json result) {
  ordered_json message = {{"jsonrpc", "2.0"}};
  message["id"] = id;
  message["result"] = std::move(result);
  return message;
}

ordered_json make_error(const json& id, int code, std::string_view what, ordered_json data) {
  ordered_json error = {{"code", code}, {"message", what}};
  if (!data.is_null()) error["data"] = std::move(data);
  ordered_json message = {{"jsonrpc", "2.0"}};
  message["id"] = id;
  message["error"] = std::move(error);
  return message;
}

ordered_json make_request(const json& id, ordered_json call) {
  ordered_json message = {{"jsonrpc", "2.0"}};
  message["id"] = id;
  message.update(call);
  return message;
}

ordered_json make_notification(std::string_view method, ordered_json params) {
  ordered_json message = {{"jsonrpc", "2.0"}, {"method", method}};
  message["params"] = std::move(params);
  return message;
}

std::string to_line(const ordered_json& message) {
  std::string line = message.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
  line += '\n';
  return line;
}

}  // namespace hutch::rpc
