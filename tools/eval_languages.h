#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sandbox/sessions.h"

namespace hutch::tools {

/// How code of one language is run.
struct Language {
  std::string name;
  std::vector<std::string> argv;                 // of a fresh process; empty: `interpreter` runs that too
  bool code_is_last_argument = false;            // otherwise the code comes on standard input
  std::optional<sandbox::Language> interpreter;  // can keep state between calls
  std::string needs;                             // the program, and where it comes from
};

std::vector<std::string_view> language_names();
/// Throws Error(invalid_argument) that names the known ones.
Language find_language(std::string_view name);
/// By the first line ("#!"), the ending of `path`, or what the code looks like; python when nothing tells.
std::string guess_language(std::string_view code, std::string_view path);

}  // namespace hutch::tools
