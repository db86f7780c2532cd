#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace hutch::tools {

/// How code of one language is run.
struct Language {
  std::string name;
  std::vector<std::string> argv;
  bool code_is_last_argument = false;  // otherwise the code comes on standard input
  bool has_value = false;              // its driver reports the value of the last expression
  std::string needs;                   // the program, and where it comes from
};

std::vector<std::string_view> language_names();
/// Throws Error(invalid_argument) that names the known ones.
Language find_language(std::string_view name);
/// By the first line ("#!"), the ending of `path`, or what the code looks like; python when nothing tells.
std::string guess_language(std::string_view code, std::string_view path);

/// The drivers print the value between two of these, with the token of the call: apart from all that code
/// prints.
inline constexpr char kValueMark = '\x1e';
inline constexpr const char* kTokenVariable = "HUTCH_EVAL_TOKEN";
inline constexpr const char* kNameVariable = "HUTCH_EVAL_NAME";

}  // namespace hutch::tools
