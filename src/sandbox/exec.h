#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "sandbox/process.h"

namespace hutch::sandbox {

/// How a command ended; `running`: it goes on. None of these is an Error: an Error means that hutch itself
/// could not do its job.
enum class End { exited, signaled, timed_out, oom_killed, cancelled, running };
std::string_view end_name(End end) noexcept;

/// Between SIGTERM and SIGKILL.
inline constexpr std::chrono::milliseconds kGrace{wire::kGraceMs};

struct ExecSpec {
  std::string command;                     // for bash where there is one, else sh
  std::vector<std::string> argv;           // instead of `command`
  std::string workdir;                     // empty = the sandbox's; relative = below it
  std::map<std::string, std::string> env;  // on top of the sandbox's
  std::string title;                       // what it is called in lists; empty = its command line
  std::string input;
  int input_fd = -1;                               // of ours, passed on until its end; instead of `input`
  std::chrono::milliseconds timeout{120'000};      // after which its whole tree is ended; 0 = never
  std::optional<std::chrono::milliseconds> yield;  // after which it goes on without the caller
  bool has_answers = false;                        // its output holds answers to sandbox_eval
  bool hidden = false;                   // not in lists, nor does it keep its sandbox from being idle
  bool background = false;               // so at once, with standard input for write()
  std::optional<TerminalSize> terminal;  // it runs in one
  bool merge_output = false;
  size_t output_limit = 10'000;  // bytes of each stream to keep
  std::stop_token stop;          // ends it
  /// Called once a second from the calling thread with the last line printed.
  std::function<void(const std::string&)> on_progress;
  /// When set, every piece goes here (1 = standard output, 2 = error) from whoever reads the channel, and
  /// nothing is kept.
  Process::Sink on_output;
  std::function<std::string()> last_line;  // then of that, for on_progress; with the same lock held
};

struct ExecResult {
  End end = End::exited;
  int exit_code = -1;  // -1 unless it exited
  int signal = 0;      // 0 unless a signal ended it
  std::string out, err;
  bool truncated = false;
  std::string log;  // path inside of the whole output; empty when it printed nothing
  uint64_t log_bytes = 0;
  uint32_t left_running = 0;     // processes that it left behind, alive
  bool supervisor_lost = false;  // it ended its own supervisor; its processes were ended at once
  bool tree_ended = true;        // false: something of it could not be ended in time
  size_t input_left = 0;         // bytes of input that it did not take
  std::chrono::milliseconds duration{0};
  uint64_t cpu_us = 0, max_rss_kib = 0;
  uint64_t pids_refused = 0;  // processes that its pids limit refused
  uint64_t oom_kills = 0;     // processes that its memory limit cost, the main one or others
  /// Set when something of it still runs, otherwise 0.
  uint32_t process_id = 0;
};

/// What was started, and where its output was not given out yet.
struct Started {
  ExecResult result;
  std::shared_ptr<Process> process;  // nullptr when nothing is left to ask for
  uint64_t next_unread = 0;
};

/// What the agent said of a command's end.
void note_end(const wire::Exited& end, ExecResult& result);

/// Runs a command through the agent and waits for its end, its deadline, the stop token or the yield.
/// Deadline and stop end its whole tree: SIGTERM, after kGrace SIGKILL. The output of a terminal is not in
/// the result. Throws when it could not be started or the sandbox ended.
Started run_command(const std::shared_ptr<Channel>& channel, CommandSpec command, const ExecSpec& spec);

}  // namespace hutch::sandbox
