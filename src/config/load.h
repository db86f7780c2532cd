#pragma once

#include <map>
#include <optional>
#include <string>

#include "config/config.h"

namespace hutch::config {

struct LoadOptions {
  std::optional<std::string> file;  // --config
  std::map<std::string, std::string> environment;
  bool is_root = false;
};

/// The environment and user of this process.
LoadOptions process_options(std::optional<std::string> file);

struct LoadedConfig {
  Config config;
  std::string file;  // empty when none was read
  /// Where each field that is not a default came from, by its path ("sandbox.memory"):
  /// "/etc/hutch/config.yaml:3:5" or "HUTCH_SANDBOX__MEMORY".
  std::map<std::string, std::string> origins;
};

/// Reads the first of `--config`, $HUTCH_CONFIG, $XDG_CONFIG_HOME/hutch/config.yaml (~/.config when unset)
/// and /etc/hutch/config.yaml, then the HUTCH_<SECTION>__<FIELD> variables over it. A file that was named
/// must exist. Throws one Error(invalid_argument) that names every problem with file, line and column, or its
/// variable.
LoadedConfig load_config(const LoadOptions& options);

/// Every field with its value and origin, one a line: what `hutch config` prints.
std::string to_text(const LoadedConfig& loaded);

}  // namespace hutch::config
