#include "mcp/question.h"

#include <algorithm>

namespace hutch::mcp {

Decision decision_of(const json& result, const std::vector<std::string>& values) {
  if (!result.is_object()) return {};
  const auto action = result.find("action");
  if (action == result.end()) return {};
  if (*action == "decline") return {Decision::Kind::declined};
  const auto content = result.find("content");
  if (*action != "accept" || content == result.end() || !content->is_object()) return {};
  const auto choice = content->find("choice");
  if (choice == content->end() || !choice->is_string()) return {};
  const auto& value = choice->get_ref<const std::string&>();
  if (std::find(values.begin(), values.end(), value) == values.end()) return {};
  return {Decision::Kind::chosen, value};
}

std::vector<std::string> values_of(const Question& question) {
  std::vector<std::string> out;
  for (const Question::Option& option : question.options) out.push_back(option.value);
  return out;
}

std::string in_quotes(std::string_view text, size_t max_bytes) {
  const bool cut = text.size() > max_bytes;
  const json whole = std::string(text.substr(0, max_bytes));
  // Escapes as in JSON: known, unambiguous, and there is nothing they leave out.
  return whole.dump(-1, ' ', true, json::error_handler_t::replace) + (cut ? "..." : "");
}

std::string printable(std::string_view text) {
  std::string out;
  for (const char c : text) out += (c >= ' ' && c <= '~') || c == '\n' ? c : '?';
  return out;
}

}  // namespace hutch::mcp
