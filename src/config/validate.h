#pragma once

#include <string>

#include "config/load.h"

namespace hutch::config {

/// Replaces a leading `~/` in the paths of the configuration.
void expand_home(Config& config, const std::string& user_home);

/// What a field alone cannot tell: paths are absolute, names exist. Throws one Error(invalid_argument) that
/// names every problem and where the value came from.
void validate(const LoadedConfig& loaded);

}  // namespace hutch::config
