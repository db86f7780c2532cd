#include "schema/markdown_writer.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace hutch::schema {

std::string MarkdownWriter::table() const {
  return "| name | type | default | meaning |\n| --- | --- | --- | --- |\n" + rows_;
}

std::string MarkdownWriter::default_text(const ordered_json& value) {
  if (value.empty() || value == "") return "";
  if (value.is_string()) return fmt::format("`{}`", value.get_ref<const std::string&>());
  return fmt::format("`{}`", value.dump(-1, ' ', false, ordered_json::error_handler_t::replace));
}

void MarkdownWriter::row(const char* name, const std::string& type, std::string_view help, const Rules& rules,
                         const std::string& fallback) {
  std::string meaning(help);
  if (!rules.one_of.empty()) meaning += fmt::format(" One of `{}`.", fmt::join(rules.one_of, "`, `"));
  std::string escaped;
  for (const char c : meaning) escaped.append(c == '|' ? "\\|" : std::string(1, c));
  rows_ += fmt::format("| `{}{}` | {} | {} | {} |\n", prefix_, name, type, fallback, escaped);
}

}  // namespace hutch::schema
