#include "sandbox/drivers/drivers.h"

#include <fmt/format.h>

extern "C" {
// From the files that embed.py writes.
extern const char hutch_python_driver_begin[], hutch_python_driver_end[];
extern const char hutch_node_driver_begin[], hutch_node_driver_end[];
extern const char hutch_bash_driver_begin[], hutch_bash_driver_end[];
}

namespace hutch::sandbox {

namespace {

std::string_view text(const char* begin, const char* end) {
  return {begin, static_cast<size_t>(end - begin)};
}

std::string shell_word(std::string_view word) {
  std::string result = "'";
  for (const char c : word) {
    if (c == '\'')
      result += "'\\''";
    else
      result += c;
  }
  return result + "'";
}

}  // namespace

std::string_view python_driver() {
  return text(hutch_python_driver_begin, hutch_python_driver_end);
}

std::string_view node_driver() {
  return text(hutch_node_driver_begin, hutch_node_driver_end);
}

std::string_view bash_driver() {
  return text(hutch_bash_driver_begin, hutch_bash_driver_end);
}

std::vector<std::string> python_argv() {
  return {"python3", "-c", std::string(python_driver())};
}

std::vector<std::string> node_argv() {
  // Node cannot copy a descriptor, but makes all that it starts with close-on-exec.
  return {"sh", "-c", "exec node -e \"$1\" 3<&0 4>&1 5>&2 </dev/null", "hutch", std::string(node_driver())};
}

std::vector<std::string> bash_argv() {
  // Through bash: some sh know no descriptor above 9.
  return {"bash", "-c", "exec bash --norc --noprofile --noediting -i 96>&2 2>/dev/null"};
}

std::string bash_request(std::string_view code, std::string_view token, bool split,
                         const std::map<std::string, std::string>& env, std::string_view workdir) {
  // The code is a here-document, which needs no quoting: its end is a line that nobody can guess.
  std::string request = "{ builtin trap - INT; } 2>/dev/null; ";
  for (const auto& [name, value] : env)
    request += fmt::format("builtin export -- {} && ", shell_word(name + "=" + value));
  if (!workdir.empty()) request += fmt::format("builtin cd -- {} && ", shell_word(workdir));
  request += fmt::format("builtin . /dev/fd/97 97<<'hutch-{0}' </dev/null\n{1}\nhutch-{0}\n", token, code);
  // Quiet for code that has said `set -x`.
  request += fmt::format("{{ hutch_answer {}{}; }} 2>/dev/null\n", token, split ? " split" : "");
  return request;
}

}  // namespace hutch::sandbox
