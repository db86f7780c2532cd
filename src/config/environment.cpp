#include "config/environment.h"

#include <fmt/format.h>

#include <algorithm>

#include "schema/json_reader.h"

namespace hutch::config {

namespace {

constexpr std::string_view kPrefix = "HUTCH_";
// For the tools of the test suite, whose children inherit their environment.
constexpr std::string_view kTestPrefix = "HUTCH_TEST_";
// home, sandbox.memory, profiles.big.memory
constexpr size_t kMaxParts = 3;

std::vector<std::string> path_of(std::string_view variable) {
  std::string rest(variable.substr(kPrefix.size()));
  std::transform(rest.begin(), rest.end(), rest.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; });
  std::vector<std::string> parts;
  for (size_t cut; (cut = rest.find("__")) != rest.npos; rest.erase(0, cut + 2))
    parts.push_back(rest.substr(0, cut));
  parts.push_back(rest);
  return parts;
}

/// Puts the text at the path; false when something else is there already.
bool put(json& root, const std::vector<std::string>& parts, const std::string& text) {
  json* at = &root;
  for (const std::string& part : parts) {
    if (!at->is_object()) return false;
    at = &(*at)[part];
    if (at->is_null() && &part != &parts.back()) *at = json::object();
  }
  if (!at->is_null()) return false;
  *at = text;
  return true;
}

std::string join_path(const std::vector<std::string>& parts) {
  std::string path;
  for (const std::string& part : parts) path = schema::JsonReader::join(path, part);
  return path;
}

/// The variable that a problem is about: that of the path itself, or of the nearest path above or below.
std::string variable_for(const std::map<std::string, std::string>& variables, const std::string& path) {
  for (std::string outer = path; !outer.empty();) {
    if (const auto it = variables.find(outer); it != variables.end()) return it->second;
    const size_t cut = outer.find_last_of(".[");
    outer.resize(cut == outer.npos ? 0 : cut);
  }
  const auto below = variables.lower_bound(path);
  return below == variables.end() ? std::string(kPrefix) : below->second;
}

}  // namespace

std::map<std::string, std::string> read_environment(const std::map<std::string, std::string>& environment,
                                                    Config& config) {
  json overlay = json::object();
  std::map<std::string, std::string> variables;
  std::vector<schema::Problem> problems;
  for (const auto& [name, text] : environment) {
    if (!name.starts_with(kPrefix) || name.starts_with(kTestPrefix) || name == "HUTCH_CONFIG" || text.empty())
      continue;
    const std::vector<std::string> parts = path_of(name);
    const std::string path = join_path(parts);
    variables[path] = name;
    if (parts.size() > kMaxParts || !put(overlay, parts, text))
      problems.push_back({path, "cannot be set by a variable"});
  }
  schema::JsonReader reader(overlay, "", schema::Coercion::from_text, problems);
  config.describe(reader);
  reader.finish();
  if (problems.empty()) return variables;
  std::string message;
  for (const schema::Problem& problem : problems)
    message += fmt::format("{}environment variable {}: {}", message.empty() ? "" : "\n",
                           variable_for(variables, problem.path), problem.text());
  throw Error(Errc::invalid_argument, message)
      .hint("unset it, or see `hutch config` for the names there are");
}

}  // namespace hutch::config
