#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "mcp/tool.h"
#include "sandbox/sandbox.h"
#include "tools/common.h"
#include "tools/refusal_view.h"

namespace hutch::tools {

struct SandboxExecArgs {
  std::string sandbox_id, command;
  std::vector<std::string> argv;
  std::string workdir;
  std::map<std::string, std::string> env;
  std::string stdin_text;
  std::optional<double> timeout_s, yield_s;
  bool background = false, tty = false;
  std::optional<int64_t> rows, columns, output_limit;

  template <class V>
  void describe(V& v) {
    v.optional("sandbox_id", sandbox_id, kSandboxIdHelp);
    v.optional("command", command, "Shell command line.");
    v.optional("argv", argv, "Instead: program, arguments.");
    v.optional("workdir", workdir, "Folder to start in.");
    v.optional("env", env, "Environment.");
    v.optional("stdin", stdin_text, "Standard input.");
    v.optional("timeout_s", timeout_s, "Seconds until its end (default 120; with background none).",
               {.min = 0.05, .max = 3600});
    v.optional("background", background, "Return at once (default false).");
    v.optional("yield_s", yield_s, "Seconds until it goes to the background (default 55).",
               {.min = 0.05, .max = 3600});
    v.optional("tty", tty, "In a terminal; returns the screen (default false).");
    v.optional("rows", rows, "Of the terminal (default 24).", {.min = 1, .max = 500});
    v.optional("columns", columns, "Of the terminal (default 80).", {.min = 1, .max = 500});
    v.optional("output_limit", output_limit, "Characters to return (default 10000).",
               {.min = 200, .max = 1'000'000});
  }
};

/// Shared by sandbox_exec and sandbox_eval.
struct CommandReport {
  std::string sandbox_id, end;
  std::optional<int64_t> exit_code;
  std::optional<std::string> signal;
  std::optional<int64_t> process_id;
  std::string out, err;
  bool truncated = false;
  std::optional<std::string> log;
  int64_t duration_ms = 0;
  std::vector<std::string> notes;
  std::vector<RefusalView> refused;
  bool interrupted = false;  // an interpreter's code was, and the interpreter lives on

  template <class V>
  void describe(V& v) {
    v.required("sandbox_id", sandbox_id, "Sandbox in which it ran.");
    v.required("end", end, "How it ended.",
               {.one_of = {"exited", "signaled", "timed_out", "oom_killed", "cancelled", "running"}});
    v.optional("exit_code", exit_code, "When it exited.");
    v.optional("signal", signal, "When a signal ended it, such as SIGKILL.");
    v.optional("process_id", process_id, "For sandbox_process, when something of it still runs.");
    v.required("stdout", out, "Standard output; of a terminal its screen.");
    v.required("stderr", err, "Standard error.");
    v.required("truncated", truncated, "Whether output was cut.");
    v.optional("log", log, "File in the sandbox with all of the output.");
    v.required("duration_ms", duration_ms, "How long it took.");
    v.required("notes", notes, "What else there is to know.");
    v.required("refused", refused, "Hosts that its network did not let through meanwhile.");
  }
};

/// "exit 1", "timed out: ended with all that it had started" ...
std::string how_it_ended(const CommandReport& report);
CommandReport report_of(const sandbox::ExecResult& result, const Target& target);
/// First line what happened, then the output, then the notes.
std::string text_of(const CommandReport& report);

}  // namespace hutch::tools
