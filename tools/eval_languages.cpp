#include "tools/eval_languages.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>

#include "base/error.h"
#include "schema/text.h"

namespace hutch::tools {

namespace {

const std::vector<Language>& table() {
  static const std::vector<Language> languages = {
      {.name = "python", .interpreter = sandbox::Language::python, .needs = "python3"},
      {.name = "javascript", .interpreter = sandbox::Language::javascript, .needs = "node"},
      {.name = "typescript",
       .argv = {"node", "--no-warnings", "--experimental-strip-types", "--input-type=module-typescript", "-"},
       .needs = "node 22.18 or newer"},
      {.name = "bash",
       .argv = {"bash", "-c"},
       .code_is_last_argument = true,
       .interpreter = sandbox::Language::bash,
       .needs = "bash"},
      {.name = "sh", .argv = {"sh", "-c"}, .code_is_last_argument = true, .needs = "sh"},
      {.name = "ruby", .argv = {"ruby", "-"}, .needs = "ruby"},
      {.name = "perl", .argv = {"perl", "-"}, .needs = "perl"},
      {.name = "php", .argv = {"php"}, .needs = "php"},
      {.name = "lua", .argv = {"lua", "-"}, .needs = "lua"},
      {.name = "r", .argv = {"Rscript", "-"}, .needs = "Rscript"},
  };
  return languages;
}

std::string_view first_line(std::string_view code) {
  return code.substr(0, code.find('\n'));
}

std::string by_ending(std::string_view path) {
  static const std::map<std::string_view, const char*> endings = {{"py", "python"},
                                                                  {"js", "javascript"},
                                                                  {"mjs", "javascript"},
                                                                  {"cjs", "javascript"},
                                                                  {"ts", "typescript"},
                                                                  {"sh", "bash"},
                                                                  {"bash", "bash"},
                                                                  {"rb", "ruby"},
                                                                  {"pl", "perl"},
                                                                  {"php", "php"},
                                                                  {"lua", "lua"},
                                                                  {"R", "r"},
                                                                  {"r", "r"}};
  const size_t dot = path.rfind('.');
  if (dot == std::string_view::npos) return "";
  const auto it = endings.find(path.substr(dot + 1));
  return it == endings.end() ? "" : it->second;
}

bool contains_any(std::string_view text, std::initializer_list<std::string_view> words) {
  return std::ranges::any_of(
      words, [&](std::string_view word) { return text.find(word) != std::string_view::npos; });
}

}  // namespace

std::vector<std::string_view> language_names() {
  std::vector<std::string_view> names;
  for (const auto& language : table()) names.push_back(language.name);
  return names;
}

Language find_language(std::string_view name) {
  static const std::map<std::string_view, std::string_view> aliases = {{"py", "python"},
                                                                       {"python3", "python"},
                                                                       {"js", "javascript"},
                                                                       {"node", "javascript"},
                                                                       {"ts", "typescript"},
                                                                       {"shell", "bash"},
                                                                       {"R", "r"}};
  if (const auto alias = aliases.find(name); alias != aliases.end()) name = alias->second;
  const auto it = std::ranges::find(table(), name, &Language::name);
  if (it != table().end()) return *it;
  const auto names = language_names();
  throw Error(Errc::invalid_argument,
              fmt::format("the language '{}' is not known", schema::valid_utf8(name.substr(0, 40))))
      .hint(fmt::format("one of {}; sandbox_exec runs anything else that is installed",
                        fmt::join(names, ", ")));
}

std::string guess_language(std::string_view code, std::string_view path) {
  const std::string_view line = first_line(code);
  if (line.starts_with("#!")) {
    for (const char* name : {"python", "node", "ruby", "perl", "php", "lua", "Rscript", "bash", "sh"})
      if (line.find(name) != std::string_view::npos)
        return std::string_view(name) == "Rscript" ? "r" : find_language(name).name;
  }
  if (const std::string language = by_ending(path); !language.empty()) return language;
  if (code.starts_with("<?php")) return "php";
  if (contains_any(code, {"console.log", "require(", "=> ", "const ", "let ", "function("}))
    return "javascript";
  if (contains_any(code, {"print(", "import ", "def ", "for ", "lambda "})) return "python";
  if (contains_any(code, {"echo ", "fi\n", "$(", "ls ", "cd ", "export "})) return "bash";
  return "python";
}

}  // namespace hutch::tools
