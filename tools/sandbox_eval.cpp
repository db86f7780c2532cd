#include "tools/sandbox_eval.h"

#include <fmt/format.h>

#include <cmath>

#include "base/log.h"
#include "tools/asking_run.h"
#include "tools/encoding.h"
#include "tools/eval_languages.h"

namespace hutch::tools {

namespace {

constexpr size_t kMaxArgument = 128 * 1024 - 1;  // MAX_ARG_STRLEN of Linux, with its NUL

/// What is to be run. Outlives its call where that has to end with a question to its user.
struct Evaluation {
  SandboxEvalArgs args;
  Target target;
  Language language;
  std::string name;  // what error messages call the code
  Services& services;
  bool yields;
};

/// What both ways to run code have in common.
template <class Spec>
void set_bounds(const Evaluation& evaluation, const RunControls& controls, Spec& spec) {
  const auto& defaults = evaluation.services.manager.config().sandbox;
  spec.timeout = std::chrono::milliseconds(
      std::llround(evaluation.args.timeout_s.value_or(static_cast<double>(defaults.exec_timeout_s)) * 1000));
  if (evaluation.yields) spec.yield = std::chrono::seconds(defaults.exec_yield_s);
  spec.merge_output = evaluation.services.merge_output;
  spec.output_limit = static_cast<size_t>(defaults.output_limit);
  spec.stop = controls.stop;
  spec.on_progress = controls.on_progress;
}

/// A language without a driver of ours: its program, with the code as the last argument or as its input.
sandbox::ExecResult run_program(const Evaluation& evaluation, const RunControls& controls) {
  const Language& language = evaluation.language;
  const std::string& code = evaluation.args.code;
  sandbox::ExecSpec spec;
  spec.argv = language.argv;
  spec.title = language.name + " code";
  if (language.code_is_last_argument) {
    if (code.size() > kMaxArgument)
      throw Error(Errc::limit_exceeded, fmt::format("{} code may have at most 128 KiB here", language.name))
          .hint("write it to a file with sandbox_write_file and run that with sandbox_exec");
    spec.argv.push_back(code);
    spec.argv.push_back(evaluation.name);  // $0
  } else {
    spec.input = code;
  }
  set_bounds(evaluation, controls, spec);
  return evaluation.target.sandbox->exec(spec);
}

sandbox::EvalResult run_interpreter(const Evaluation& evaluation, const RunControls& controls) {
  sandbox::EvalSpec spec;
  spec.language = *evaluation.language.interpreter;
  spec.session = evaluation.args.session;
  spec.restart = evaluation.args.restart;
  spec.code = evaluation.args.code;
  spec.name = evaluation.name;
  set_bounds(evaluation, controls, spec);
  return evaluation.target.sandbox->eval(spec);
}

/// Fetches the pictures. What a sandbox says of them is not believed: only what is a PNG and small enough.
std::vector<mcp::Image> fetch_images(sandbox::Sandbox& sandbox, const sandbox::EvalResult& evaluated,
                                     CommandReport& report, std::stop_token stop) {
  constexpr size_t kMaxTotal = 7u << 20;  // a message stays under 10 MiB, which is where clients give up
  constexpr std::string_view kPng = "\x89PNG\r\n\x1a\n";
  std::vector<mcp::Image> images;
  size_t total = 0;
  for (const std::string& path : evaluated.images) {
    std::string data;
    const size_t room = kMaxTotal - total;
    try {
      sandbox.read_file(
          path, room + 1,
          [&](std::string_view piece) {
            data += piece;
            return true;
          },
          stop);
    } catch (const Error& e) {
      report.notes.push_back(fmt::format("The image {} cannot be read: {}", path, e.what()));
      continue;
    }
    if (data.size() > room) {
      report.notes.push_back(fmt::format("The image {} is left out: more than 7 MiB in all.", path));
    } else if (data.starts_with(kPng)) {
      total += data.size();
      images.push_back({"image/png", base64_encode(data)});
    } else {
      report.notes.push_back(fmt::format("The image {} is left out: it is no PNG.", path));
    }
  }
  return images;
}

/// A process that has ended leaves its pictures behind.
void remove_images(sandbox::Sandbox& sandbox, const std::vector<std::string>& images) {
  std::vector<std::string> command{"rm", "-f", "--"};
  command.insert(command.end(), images.begin(), images.end());
  const std::string folder = images.front().substr(0, images.front().rfind('/'));
  try {
    sandbox.exec({.argv = std::move(command), .workdir = "/"});
    sandbox.exec({.argv = {"rmdir", "--", folder}, .workdir = "/"});
  } catch (const Error& e) {
    log::info("{}: images are left behind: {}", sandbox.id(), e.what());  // its processes are at their limit
  }
}

void note_session(const SandboxEvalArgs& args, const sandbox::EvalResult& evaluated, CommandReport& report) {
  if (args.session.empty()) return;
  if (evaluated.session_ended)
    report.notes.push_back(
        fmt::format("Session '{}' has ended, and what it knew is gone: the next call with it "
                    "starts a new one.",
                    args.session));
  else if (evaluated.interrupted)
    report.notes.push_back(
        fmt::format("The code was interrupted; session '{}' lives on with what it knows.", args.session));
  if (evaluated.session_new) report.notes.push_back(fmt::format("Session '{}' is new.", args.session));
}

Language language_of(const SandboxEvalArgs& args, sandbox::Sandbox& sandbox) {
  if (!args.language.empty()) return find_language(args.language);
  if (!args.session.empty())
    if (const auto known = sandbox.sessions().language_of(args.session))
      return find_language(sandbox::language_name(*known));
  return find_language(guess_language(args.code, args.path));
}

void add_interpreted(const Evaluation& evaluation, const RunControls& controls, SandboxEvalResult& result) {
  sandbox::Sandbox& sandbox = *evaluation.target.sandbox;
  const auto evaluated = run_interpreter(evaluation, controls);
  result.report = report_of(evaluated, evaluation.target);
  result.report.interrupted = evaluated.interrupted;
  constexpr int kNoProgram = 127;  // as a shell says it
  if (result.language == "javascript" && evaluated.end == sandbox::End::exited &&
      evaluated.exit_code == kNoProgram)
    result.report.notes.push_back("javascript code needs node in the sandbox: hutch doctor shows how.");
  result.value = evaluated.value;
  note_session(evaluation.args, evaluated, result.report);
  result.images = fetch_images(sandbox, evaluated, result.report, controls.stop);
  if (!result.session && !evaluated.images.empty()) remove_images(sandbox, evaluated.images);
}

SandboxEvalResult evaluate(const Evaluation& evaluation, const RunControls& controls) {
  const Language& language = evaluation.language;
  SandboxEvalResult result;
  result.language = language.name;
  if (!evaluation.args.session.empty()) result.session = evaluation.args.session;
  try {
    if (language.interpreter && (result.session || language.argv.empty()))
      add_interpreted(evaluation, controls, result);
    else
      result.report = report_of(run_program(evaluation, controls), evaluation.target);
  } catch (Error& e) {
    if (e.os_error() == ENOENT && evaluation.target.sandbox->running())
      e.hint(
          fmt::format("{} code needs {} in the sandbox: install it on the host, or name its folder in "
                      "`host_paths` of the profile (hutch doctor shows how)",
                      language.name, language.needs));
    throw;
  }
  return result;
}

SandboxEvalResult run(const SandboxEvalArgs& args, Services& services, mcp::CallContext& context) {
  if (context.resumed()) return std::any_cast<SandboxEvalResult>(go_on_for(context, services));
  if (args.restart && args.session.empty())
    throw Error(Errc::invalid_argument, "'restart' is given without 'session'");
  if (one_line(args.session) != args.session)
    throw Error(Errc::invalid_argument, "'session' holds control characters");
  const Target target = find_target(services, args.sandbox_id, context);
  sandbox::Sandbox& sandbox = *target.sandbox;
  const Language language = language_of(args, sandbox);
  if (!args.session.empty() && !language.interpreter)
    throw Error(Errc::invalid_argument, fmt::format("there are no sessions for {}", language.name))
        .hint("python, javascript and bash have them; leave `session` out for the rest");
  if (!args.path.empty()) sandbox.write_file(args.path, args.code, {}, context.stop());
  const std::string name = args.path.empty() ? "<eval>" : sandbox.absolute(args.path);
  auto work = [evaluation =
                   Evaluation{args, target, language, name, services, !context.caller().may_be_task}](
                  const RunControls& controls) { return evaluate(evaluation, controls); };
  return std::any_cast<SandboxEvalResult>(
      run_for(context, services, {target.sandbox, "code", args.code, true, std::move(work)}));
}

std::string text_of(const SandboxEvalResult& result) {
  CommandReport shown = result.report;
  if (result.value) {
    add_line(shown.out, fmt::format("=> {}", *result.value));
  }
  return text_of(shown);
}

}  // namespace

void add_sandbox_eval(mcp::ToolRegistry& registry, Services& services) {
  registry.add<SandboxEvalArgs, SandboxEvalResult>(
      {.name = "sandbox_eval",
       .title = "Run code",
       .description =
           "Runs code in the sandbox and returns what it printed, the value of the last expression (python, "
           "javascript), and plots as images. With `session` (python, javascript, bash) variables, imports "
           "and functions live on between calls; without, each call is a fresh process.",
       .toolset = "core",
       .lean = true,
       .task = true},
      [&services](const SandboxEvalArgs& args, mcp::CallContext& context) {
        return run(args, services, context);
      },
      [](const SandboxEvalResult& result) {
        return mcp::Reply{text_of(result), result.images};
      });
}

}  // namespace hutch::tools
