#include "tools/sandbox_exec.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>

#include "tools/asking_run.h"

namespace hutch::tools {

namespace {

std::string what_happened(const CommandReport& report) {
  const std::string time = in_words(std::chrono::milliseconds(report.duration_ms));
  if (report.end == "running")
    return fmt::format("running as process {} for {}", report.process_id.value_or(0), time);
  if (report.end == "exited") return fmt::format("{} in {}", how_it_ended(report), time);
  return fmt::format("{} after {}", how_it_ended(report), time);
}

void note_limits(const sandbox::ExecResult& result, const sandbox::Sandbox& sandbox, CommandReport& report) {
  if (result.pids_refused > 0)
    report.notes.push_back(fmt::format(
        "The sandbox is at its limit of {} processes (pids): end some, or make one with more: sandbox_create "
        "with `pids`.",
        sandbox.about().limits.pids));
  if (result.oom_kills == 0) return;
  report.notes.push_back(
      fmt::format("The kernel ended {} process{} at the sandbox's memory limit of {}. A sandbox with more: "
                  "sandbox_create with `memory`.",
                  result.oom_kills, result.oom_kills == 1 ? "" : "es",
                  to_string(Bytes{sandbox.about().limits.memory_bytes})));
}

void note_running(bool takes_input, double timeout_s, CommandReport& report) {
  report.notes.push_back(
      fmt::format("It goes on in the background: sandbox_process with process_id {} reads what it prints "
                  "(action read), waits for its end (wait), {}ends it (signal).",
                  report.process_id.value_or(0), takes_input ? "writes to it (write), " : ""));
  if (timeout_s > 0)
    report.notes.push_back(fmt::format("It is ended {} s after its start (timeout_s).", timeout_s));
}

CommandReport run(const SandboxExecArgs& args, Services& services, mcp::CallContext& context) {
  if (context.resumed()) return std::any_cast<CommandReport>(go_on_for(context, services));
  if (args.command.empty() == args.argv.empty())
    throw Error(Errc::invalid_argument, args.command.empty() ? "neither 'command' nor 'argv' is given"
                                                             : "both 'command' and 'argv' are given")
        .hint("`command` for a shell command line, or `argv` for a program and its arguments");
  const auto& defaults = services.manager.config().sandbox;
  const Target target = find_target(services, args.sandbox_id, context);
  const double timeout_s =
      args.timeout_s.value_or(args.background ? 0 : static_cast<double>(defaults.exec_timeout_s));
  sandbox::ExecSpec spec;
  spec.command = args.command;
  spec.argv = args.argv;
  spec.workdir = args.workdir;
  spec.env = args.env;
  spec.input = args.stdin_text;
  spec.timeout = std::chrono::milliseconds(std::llround(timeout_s * 1000));
  // A client that asks for the result later has no time limit that the yield would have to keep.
  if (args.yield_s || !context.caller().may_be_task)
    spec.yield = std::chrono::milliseconds(
        std::llround(args.yield_s.value_or(static_cast<double>(defaults.exec_yield_s)) * 1000));
  spec.background = args.background;
  if (args.tty)
    spec.terminal = {static_cast<int>(args.rows.value_or(24)), static_cast<int>(args.columns.value_or(80))};
  spec.merge_output = services.merge_output || args.background;
  spec.output_limit = static_cast<size_t>(args.output_limit.value_or(defaults.output_limit));
  const std::string line = args.command.empty() ? fmt::format("{}", fmt::join(args.argv, " ")) : args.command;
  auto work = [spec = std::move(spec), target, timeout_s](const RunControls& controls) mutable {
    spec.stop = controls.stop;
    spec.on_progress = controls.on_progress;
    const sandbox::ExecResult result = target.sandbox->exec(spec);
    CommandReport report = report_of(result, target);
    if (result.end == sandbox::End::running)
      note_running(spec.background || spec.terminal, timeout_s, report);
    return report;
  };
  return std::any_cast<CommandReport>(
      run_for(context, services, {target.sandbox, "command", line, !args.background, std::move(work)}));
}

}  // namespace

std::string how_it_ended(const CommandReport& report) {
  if (report.end == "exited") return fmt::format("exit {}", report.exit_code.value_or(0));
  if (report.interrupted)
    return fmt::format("{}: interrupted", report.end == "timed_out" ? "timed out" : "cancelled");
  if (report.end == "timed_out") return "timed out: ended with all that it had started";
  if (report.end == "oom_killed") return "out of memory: killed";
  if (report.end == "cancelled") return "cancelled";
  return fmt::format("ended by {}", report.signal.value_or("a signal"));
}

CommandReport report_of(const sandbox::ExecResult& result, const Target& target) {
  CommandReport report;
  report.sandbox_id = target.sandbox->id();
  report.end = sandbox::end_name(result.end);
  if (result.signal == 0) report.exit_code = result.exit_code;
  if (result.signal != 0) report.signal = signal_name(result.signal);
  if (result.end == sandbox::End::running) report.exit_code.reset();
  if (result.process_id != 0) report.process_id = result.process_id;
  report.out = result.out;
  report.err = result.err;
  report.truncated = result.truncated;
  if (!result.log.empty()) report.log = result.log;
  report.duration_ms = result.duration.count();

  note_limits(result, *target.sandbox, report);
  if (result.end == sandbox::End::timed_out)
    report.notes.push_back("A longer run: `timeout_s` (at most 3600).");
  if (result.supervisor_lost)
    report.notes.push_back("The command ended its own supervisor: all of its processes were ended at once.");
  if (result.left_running > 0)
    report.notes.push_back(fmt::format(
        "{} process{} that it started still run{} as process {}: sandbox_process ends {} (action "
        "signal) and reads what {} print{}.",
        result.left_running, result.left_running == 1 ? "" : "es", result.left_running == 1 ? "s" : "",
        result.process_id, result.left_running == 1 ? "it" : "them", result.left_running == 1 ? "it" : "they",
        result.left_running == 1 ? "s" : ""));
  if (result.input_left > 0)
    report.notes.push_back(fmt::format("The last {} bytes of `stdin` were not taken.", result.input_left));
  if (!result.tree_ended)
    report.notes.push_back(
        "Some of its processes could not be ended in time; sandbox_destroy ends them for certain.");
  report.refused = refusal_views(*target.sandbox, target.refusals_before);
  for (auto& note : refusal_notes(report.refused)) report.notes.push_back(std::move(note));
  if (!target.note.empty()) report.notes.push_back(target.note);
  return report;
}

std::string text_of(const CommandReport& report) {
  std::string text = fmt::format("{} · {}\n", what_happened(report), report.sandbox_id);
  text += report.out;
  if (!report.err.empty()) {
    add_line(text, "[stderr]");
    text += report.err;
  }
  if (report.out.empty() && report.err.empty())
    add_line(text, report.end == "running" ? "(no output yet)" : "(no output)");
  for (const auto& note : report.notes) add_line(text, note);
  while (text.ends_with('\n')) text.pop_back();
  return text;
}

void add_sandbox_exec(mcp::ToolRegistry& registry, Services& services) {
  registry.add<SandboxExecArgs, CommandReport>(
      {.name = "sandbox_exec",
       .title = "Run a command",
       .description =
           "Runs a shell command in an isolated Linux sandbox and returns its exit code and output. Each "
           "call starts in /workspace: files stay between calls, shell variables and `cd` do not. A failing "
           "command is a normal result. One that runs longer than 55 s, or has `background`, goes on: see "
           "sandbox_process. Long output is cut in the middle; a log has all of it.",
       .toolset = "core",
       .lean = true,
       .always_load = true,
       .task = true},
      [&services](const SandboxExecArgs& args, mcp::CallContext& context) {
        return run(args, services, context);
      },
      [](const CommandReport& report) { return mcp::Reply{text_of(report)}; });
}

}  // namespace hutch::tools
