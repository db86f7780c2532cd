#pragma once

#include <optional>
#include <string>
#include <vector>

#include "config/load.h"

namespace hutch::cli {

/// What was given on the command line after the verb.
struct Options {
  std::optional<std::string> config_file, results, toolsets, profile, server;
  bool json = false, help = false;
  std::vector<std::string> words;  // what is no option; after `--` everything
};

/// Throws Error(invalid_argument) on an option that the verb does not know. `allowed`: names without dashes.
Options parse_options(int argc, char** argv, const std::vector<std::string>& allowed);

/// The configuration of this process, with what the command line changes. Sets the log level.
config::LoadedConfig load_settings(const Options& options);

}  // namespace hutch::cli
