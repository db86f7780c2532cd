#pragma once

#include "bench/measure.h"

namespace hutch::bench {

/// What the machine itself takes for the least of each thing: no sandbox can be faster.
struct Floor {
  const char* name;
  const char* what;  // for people
  Json (*run)(const Plan& plan);
};

/// To be run before any thread is started: they fork. Each run() throws Error, also when the machine forbids
/// it.
const std::vector<Floor>& floors();

}  // namespace hutch::bench
