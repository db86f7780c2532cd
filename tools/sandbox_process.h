#pragma once

#include "tools/sandbox_exec.h"

namespace hutch::tools {

struct SandboxProcessArgs {
  std::string sandbox_id, action;
  std::optional<int64_t> process_id, cursor;
  std::string input;
  bool eof = false, raw = false;
  std::string signal = "TERM";
  std::optional<double> wait_s;
  std::optional<int64_t> output_limit;

  template <class V>
  void describe(V& v) {
    v.optional("sandbox_id", sandbox_id, kSandboxIdHelp);
    v.required("action", action, "What to do.", {.one_of = {"list", "read", "write", "signal", "wait"}});
    v.optional("process_id", process_id, "For all but list.", {.min = 1});
    v.optional("cursor", cursor,
               "read: from this `cursor`; negative: bytes before the end (default: the last "
               "read's end).");
    v.optional(
        "input", input,
        "write: text; in a terminal also keys: <enter> <esc> <tab> <up> <c-c> <f1>, and <lt> for \"<\".");
    v.optional("eof", eof, "write: then end its input (default false).");
    v.optional(
        "signal", signal,
        "TERM (default) ends all, by KILL after 2 s; or KILL, INT, HUP, QUIT, USR1, USR2, STOP, CONT.");
    v.optional("wait_s", wait_s,
               "Seconds to wait for output (default 0; terminal write 1) or the end (default 30).",
               {.min = 0, .max = 3600});
    v.optional("raw", raw, "Printed text of a terminal, not its screen (default false).");
    v.optional("output_limit", output_limit, "Characters to return (default 10000).",
               {.min = 200, .max = 1'000'000});
  }
};

struct ProcessView {
  int64_t process_id = 0;
  std::string command, state, end;
  bool tty = false;
  std::optional<int64_t> exit_code;
  std::optional<std::string> signal;
  int64_t duration_ms = 0;

  template <class V>
  void describe(V& v) {
    v.required("process_id", process_id, "Its number.");
    v.required("command", command, "What was started.");
    v.required("state", state, "`left_running`: the main process has ended, others live on.",
               {.one_of = {"running", "left_running", "ended"}});
    v.required("end", end, "How the main process ended.",
               {.one_of = {"exited", "signaled", "timed_out", "oom_killed", "cancelled", "running"}});
    v.required("tty", tty, "Whether it runs in a terminal.");
    v.optional("exit_code", exit_code, "When it exited.");
    v.optional("signal", signal, "When a signal ended it.");
    v.required("duration_ms", duration_ms, "How long it ran, or runs.");
  }
};

/// All of a sandbox that are not hidden.
std::vector<ProcessView> process_views(sandbox::Sandbox& sandbox);
/// "running for 12 s", "exit 0 after 3 ms" ...
std::string state_in_words(const ProcessView& process);

struct SandboxProcessResult {
  std::string sandbox_id;
  std::vector<ProcessView> processes;
  std::optional<std::string> output, log;
  std::optional<int64_t> cursor, bytes_left, bytes_skipped, cursor_row, cursor_column;
  std::vector<std::string> notes;
  bool listed = false;  // all were asked for

  template <class V>
  void describe(V& v) {
    v.required("sandbox_id", sandbox_id, "Sandbox that they run in.");
    v.required("processes", processes, "list: all of them; otherwise the one asked for.");
    v.optional("output", output, "What it printed since the last read, or its screen.");
    v.optional("cursor", cursor, "Where the next read begins.");
    v.optional("bytes_left", bytes_left, "Printed and not yet returned: read again.");
    v.optional("bytes_skipped", bytes_skipped, "Not stored any more: past the size of its log.");
    v.optional("cursor_row", cursor_row, "Of the screen's cursor, from 1.");
    v.optional("cursor_column", cursor_column, "Of the screen's cursor, from 1.");
    v.optional("log", log, "File in the sandbox with all of the output.");
    v.required("notes", notes, "What else there is to know.");
  }
};

}  // namespace hutch::tools
