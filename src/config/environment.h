#pragma once

#include <map>
#include <string>

#include "config/config.h"

namespace hutch::config {

/// Reads HUTCH_<FIELD>, HUTCH_<SECTION>__<FIELD> and HUTCH_PROFILES__<NAME>__<FIELD> over `config`; lists are
/// written "a,b". An empty variable counts as not set; HUTCH_CONFIG and HUTCH_TEST_* are
/// left alone. Returns the variable of
/// each path that was set. Throws one Error(invalid_argument) that names every variable that is wrong or
/// unknown.
std::map<std::string, std::string> read_environment(const std::map<std::string, std::string>& environment,
                                                    Config& config);

}  // namespace hutch::config
