#pragma once

#include "schema/json_reader.h"

namespace hutch::schema {

/// A YAML text as JSON, with the place of every key and element.
struct YamlDocument {
  struct Place {
    int line, column;  // from 1
  };

  json root = json::object();
  std::map<std::string, Place> places;  // by path: "sandbox.memory", "toolsets[0]"
  std::vector<Problem> problems;        // repeated keys, numbers that YAML versions read differently

  /// "hutch.yaml:3:5"; the place of the nearest enclosing key when the path itself is not in the file.
  std::string place(const std::string& file, const std::string& path) const;
};

/// Stricter than YAML, because a configuration must not mean something else than it seems to:
/// plain `no`, `yes`, `on`, `0x10` are texts, `012` is refused, quoted values are always texts, and
/// a repeated key is a problem. Throws Error(invalid_argument) with file, line and column on bad syntax.
YamlDocument parse_yaml(const std::string& text, const std::string& file);

/// Fills `out` from the document. Throws one Error(invalid_argument) that names every problem as
/// `file:line:column: 'path' what`.
template <Described T>
void read_yaml(const YamlDocument& document, const std::string& file, T& out);

[[noreturn]] void throw_yaml_problems(const YamlDocument& document, const std::string& file,
                                      const std::vector<Problem>& problems);

template <Described T>
void read_yaml(const YamlDocument& document, const std::string& file, T& out) {
  std::vector<Problem> problems = document.problems;
  JsonReader reader(document.root, "", Coercion::none, problems);
  out.describe(reader);
  reader.finish();
  if (!problems.empty()) throw_yaml_problems(document, file, problems);
}

}  // namespace hutch::schema
