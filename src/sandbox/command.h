#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "sandbox/channel.h"
#include "sandbox/output.h"

namespace hutch::sandbox {

/// How a command ended. None of these is an Error: an Error means that hutch itself could not do its job.
enum class End { exited, signaled, timed_out, oom_killed, cancelled };
std::string_view end_name(End end) noexcept;

struct CommandSpec {
  std::vector<std::string> argv;
  std::map<std::string, std::string> env;  // the whole environment
  std::string workdir;
  std::string input;  // for standard input; empty = /dev/null
  int input_fd = -1;  // of ours, passed on until its end; instead of `input`
  std::chrono::milliseconds timeout{120'000};
  bool merge_output = false;     // both streams in one pipe, in the order in which they were written
  size_t output_limit = 10'000;  // bytes of each stream to keep
  std::string log_path;          // inside; empty = no log
  uint64_t log_max_bytes = 64ull << 20;
  std::stop_token stop;
  /// Called once a second from the calling thread with the last line printed.
  std::function<void(const std::string&)> on_progress;
  /// When set, every piece goes here (1 = standard output, 2 = error) from the I/O thread, and nothing is
  /// kept.
  std::function<void(int, std::string_view)> on_output;
};

struct CommandResult {
  End end = End::exited;
  int exit_code = -1;  // -1 unless it exited
  int signal = 0;      // 0 unless a signal ended it
  std::string out, err;
  bool truncated = false;
  uint64_t out_bytes = 0, err_bytes = 0;
  uint64_t log_bytes = 0;
  uint32_t left_running = 0;     // processes that it left behind, alive
  bool supervisor_lost = false;  // it ended its own supervisor; its processes were ended at once
  bool tree_ended = true;        // false: something of it could not be ended in time
  std::chrono::milliseconds duration{0};
  uint64_t cpu_us = 0, max_rss_kib = 0;
};

/// Throws invalid_argument for a name that is empty or holds "=", and for a NUL byte.
void check_environment(const std::map<std::string, std::string>& env);

/// Runs a command through the agent and waits for its end, its deadline or the stop token. Deadline and stop
/// end its whole tree: SIGTERM, after a grace of 2 s SIGKILL. Throws when it could not be started or the
/// sandbox ended.
CommandResult run_command(Channel& channel, const CommandSpec& spec);

}  // namespace hutch::sandbox
