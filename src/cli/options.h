#pragma once

#include <optional>
#include <string>
#include <vector>

#include "config/load.h"

namespace hutch::cli {

/// What was given on the command line after the verb.
struct Options {
  std::optional<std::string> config_file, results, toolsets, profile, server;
  std::optional<std::string> json_file, only, peers_file;  // of `hutch bench`
  bool json = false, quick = false, full = false, help = false;
  std::vector<std::string> words;  // what is no option; after `--` everything
};

/// Throws Error(invalid_argument) on an option that the verb does not know. `allowed`: names without dashes;
/// one that takes a value ends in '='.
Options parse_options(int argc, char** argv, const std::vector<std::string>& allowed);

/// The words between the commas.
std::vector<std::string> split_list(const std::string& text);

/// The configuration of this process, with what the command line changes. Sets the log level.
config::LoadedConfig load_settings(const Options& options);

}  // namespace hutch::cli
