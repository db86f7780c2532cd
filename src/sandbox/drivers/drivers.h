#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace hutch::sandbox {

/// The programs that keep an interpreter's state between calls inside a sandbox: the files beside this one.
std::string_view python_driver();
std::string_view node_driver();
/// Has to be written to bash once, before the first request.
std::string_view bash_driver();

/// How each is started. Requests come on standard input; nothing that the code starts can read them.
std::vector<std::string> python_argv();
std::vector<std::string> node_argv();
std::vector<std::string> bash_argv();

/// What to write to bash for one call. `code` has no NUL; `token` is letters and digits.
std::string bash_request(std::string_view code, std::string_view token, bool split = false,
                         const std::map<std::string, std::string>& env = {}, std::string_view workdir = {});

}  // namespace hutch::sandbox
