#pragma once

#include <string>

#include "bench/samples.h"

namespace hutch::bench {

/// One line about what has just been measured, for those who wait.
std::string progress_line(const Json& entry);

/// All of a result for people: ratios first, absolute times second, then what failed or is missing.
std::string to_text(const Json& result);

}  // namespace hutch::bench
