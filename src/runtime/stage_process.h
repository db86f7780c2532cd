#pragma once

#include <array>
#include <functional>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/process.h"
#include "runtime/stage.h"

namespace hutch::runtime {

/// Where the OCI runtime that a stage process became writes the container's process number, for runtimes that
/// write to any path they are given: kStagePidFd.
inline constexpr const char* kStagePidFile = "/proc/self/fd/6";

/// Starts stage processes. Its program runs from memory that nobody can change any more, so that no file in
/// the data folder, which may also lie on a noexec mount, stands between this server and what does its
/// mounts; only where the host executes no such memory is it a file there, like the agent. Safe from any
/// thread.
class StageProcess {
 public:
  /// Runs the plan, does `meanwhile`, which is over before the plan goes on behind its step `wait`, and waits
  /// until the runtime that the stage became has ended. Returns what that wrote to kStagePidFile. Throws
  /// unavailable with the step that failed or with what the runtime said, or what `meanwhile` throws.
  std::string run(
      const StagePlan& plan, const std::string& data_folder, Clock::time_point deadline,
      const std::function<void()>& meanwhile = [] {});

  /// Runs a plan that waits for nobody and ends in exec_tool(). What the program says goes to `output`;
  /// `status` is to be read when it has ended: the step that failed, or nothing.
  struct Tool {
    Process process;
    UniqueFd status;
  };
  Tool start_tool(const StagePlan& plan, const std::string& data_folder, const UniqueFd& output);

 private:
  Process spawn(const StagePlan& plan, const std::string& data_folder, std::array<int, 3> stdio,
                std::vector<std::pair<int, int>> fds);
  std::string program(const std::string& data_folder);

  std::mutex mutex_;
  UniqueFd memory_;
};

}  // namespace hutch::runtime
