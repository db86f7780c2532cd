#pragma once

#include <chrono>
#include <stop_token>
#include <string>
#include <vector>

#include "sandbox/image_tool.h"
#include "sandbox/sandbox.h"

namespace hutch::sandbox {

/// The setup commands of a profile, and where what they print goes.
struct Setup {
  const std::string& profile;
  const std::vector<std::string>& commands;
  std::chrono::seconds timeout;  // of all together
  std::string log;               // path on this host
  uint64_t log_max_bytes = 0;
  const Progress& progress;  // may be empty
  std::stop_token stop;
};

/// Runs them in the sandbox, one after the other. Throws for the first that fails, with the end of what it
/// printed.
void run_setup(Sandbox& sandbox, const Setup& setup);

}  // namespace hutch::sandbox
