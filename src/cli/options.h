#pragma once

#include <optional>
#include <string>
#include <vector>

#include "config/load.h"

namespace hutch::cli {

/// What was given on the command line after the verb.
struct Options {
  std::optional<std::string> config_file, results, toolsets, profile, server, workdir, size, name, dockerfile;
  std::vector<std::string> env;                            // each NAME=VALUE
  std::optional<std::string> json_file, only, peers_file;  // of `hutch bench`
  bool json = false, quick = false, full = false, help = false;
  bool interactive = false, terminal = false;                         // -i, -t
  bool all = false, force = false, watch = false, overwrite = false;  // force: -f
  std::vector<std::string> words;  // what is no option; after `--` everything
};

/// Throws Error(invalid_argument) on an option that the verb does not know. `allowed`: names without dashes;
/// one that takes a value ends in '='; one of a single letter has one dash and may stand together with others
/// (-it). `options_first`: from the first word on all are words, since they are somebody else's command line.
Options parse_options(int argc, char** argv, const std::vector<std::string>& allowed, bool options_first);

/// The words between the commas.
std::vector<std::string> split_list(const std::string& text);

/// The configuration of this process, with what the command line changes. Sets the log level.
config::LoadedConfig load_settings(const Options& options);

}  // namespace hutch::cli
