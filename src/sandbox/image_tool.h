#pragma once

#include <functional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/stage_process.h"

namespace hutch::sandbox {

/// Told what is going on, a line at a time.
using Progress = std::function<void(std::string_view)>;

/// What ends the work on one image before it is done.
struct ImageBounds {
  uint64_t max_bytes = 0;  // of what is fetched, and of what it is unpacked to
  Clock::time_point deadline;
  std::stop_token stop;
};

/// A program of the host's that handles images, which may be hostile: it runs in a process that dies with
/// this server and is ended when the bounds are passed.
struct ImageTool {
  std::string program;  // also the name of its Debian package
  std::vector<std::string> arguments = {};
  std::string work;                     // a folder of ours: its temporary files
  std::vector<std::string> grows = {};  // folders whose content counts against the size
  runtime::StagePlan before = {};       // what is mounted for it
  Progress line = {};                   // of what it says, as it comes
  bool has_children = false;            // they end with it, too
  std::vector<std::string> env = {};    // further variables
  std::string output = {};              // a file that its standard output goes to; empty: that is said too
};

/// Returns the end of what it said. Throws unavailable when it is not installed or failed, limit_exceeded,
/// timeout and, when it was stopped, conflict.
std::string run_image_tool(ImageTool tool, runtime::StageProcess& stage, const std::string& data_folder,
                           const ImageBounds& bounds);

/// Throws unavailable with what to install.
std::string find_image_tool(const std::string& program);

}  // namespace hutch::sandbox
