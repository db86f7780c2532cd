#include "tools/sandbox_exec.h"

#include <fmt/format.h>

#include <cmath>

namespace hutch::tools {

namespace {

std::string what_happened(const CommandReport& report) {
  const std::string time = in_words(std::chrono::milliseconds(report.duration_ms));
  if (report.end == "exited") return fmt::format("exit {} in {}", report.exit_code.value_or(0), time);
  if (report.end == "timed_out")
    return fmt::format("timed out after {}: ended with all that it had started", time);
  if (report.end == "oom_killed") return fmt::format("out of memory: killed after {}", time);
  if (report.end == "cancelled") return fmt::format("cancelled after {}", time);
  return fmt::format("ended by {} after {}", report.signal.value_or("a signal"), time);
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

CommandReport run(const SandboxExecArgs& args, Services& services, mcp::CallContext& context) {
  if (args.command.empty() == args.argv.empty())
    throw Error(Errc::invalid_argument, args.command.empty() ? "neither 'command' nor 'argv' is given"
                                                             : "both 'command' and 'argv' are given")
        .hint("`command` for a shell command line, or `argv` for a program and its arguments");
  const auto& defaults = services.manager.config().sandbox;
  const Target target = find_target(services, args.sandbox_id);
  const double timeout_s = args.timeout_s.value_or(static_cast<double>(defaults.exec_timeout_s));
  sandbox::ExecSpec spec;
  spec.command = args.command;
  spec.argv = args.argv;
  spec.workdir = args.workdir;
  spec.env = args.env;
  spec.input = args.stdin_text;
  spec.timeout = std::chrono::milliseconds(std::llround(timeout_s * 1000));
  spec.merge_output = services.merge_output;
  spec.output_limit = static_cast<size_t>(args.output_limit.value_or(defaults.output_limit));
  spec.stop = context.stop();
  if (context.has_progress())
    spec.on_progress = [&](const std::string& line) { context.progress(line.empty() ? "running" : line); };
  return report_of(target.sandbox->exec(spec), target);
}

}  // namespace

CommandReport report_of(const sandbox::ExecResult& result, const Target& target) {
  CommandReport report;
  report.sandbox_id = target.sandbox->about().id;
  report.end = sandbox::end_name(result.end);
  if (result.signal == 0) report.exit_code = result.exit_code;
  if (result.signal != 0) report.signal = signal_name(result.signal);
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
    report.notes.push_back(fmt::format("{} process{} that it started still run{} in the sandbox.",
                                       result.left_running, result.left_running == 1 ? "" : "es",
                                       result.left_running == 1 ? "s" : ""));
  if (!result.tree_ended)
    report.notes.push_back(
        "Some of its processes could not be ended in time; sandbox_destroy ends them for certain.");
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
  if (report.out.empty() && report.err.empty()) add_line(text, "(no output)");
  for (const auto& note : report.notes) add_line(text, note);
  while (text.ends_with('\n')) text.pop_back();
  return text;
}

void add_sandbox_exec(mcp::ToolRegistry& registry, Services& services) {
  registry.add<SandboxExecArgs, CommandReport>(
      {.name = "sandbox_exec",
       .title = "Run a command in a sandbox",
       .description = "Runs a shell command in an isolated Linux sandbox and returns its exit code and "
                      "output. Use it for anything "
                      "that executes code, builds, tests or installs. The host's programs are there; the "
                      "host's files and network "
                      "are not. Each call starts in the working folder (/workspace): files stay between "
                      "calls, shell variables "
                      "and `cd` do not. A command that fails is a normal result with its exit code. Output "
                      "over the limit is cut "
                      "in the middle, and the result names the log file in the sandbox that has all of it.",
       .toolset = "core",
       .lean = true,
       .always_load = true},
      [&services](const SandboxExecArgs& args, mcp::CallContext& context) {
        return run(args, services, context);
      },
      [](const CommandReport& report) { return mcp::Reply{text_of(report)}; });
}

}  // namespace hutch::tools
