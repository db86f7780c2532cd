#include "tools/sandbox_eval.h"

#include <fmt/format.h>

#include <cmath>

#include "base/sys.h"
#include "tools/eval_languages.h"

namespace hutch::tools {

namespace {

constexpr size_t kMaxArgument = 128 * 1024 - 1;  // MAX_ARG_STRLEN of Linux, with its NUL

/// Takes the marked value out of the output.
std::optional<std::string> take_value(std::string& out, const std::string& token) {
  const std::string mark = kValueMark + token;
  const size_t start = out.rfind(mark);
  if (start == std::string::npos) return std::nullopt;
  const size_t end = out.find(kValueMark, start + mark.size());
  if (end == std::string::npos) return std::nullopt;
  std::string value = out.substr(start + mark.size(), end - start - mark.size());
  out.erase(start, end + 1 - start);
  return value;
}

sandbox::ExecSpec spec_of(const SandboxEvalArgs& args, const Language& language, const std::string& token,
                          const std::string& name) {
  sandbox::ExecSpec spec;
  spec.argv = language.argv;
  if (language.code_is_last_argument) {
    if (args.code.size() > kMaxArgument)
      throw Error(Errc::limit_exceeded, fmt::format("{} code may have at most 128 KiB here", language.name))
          .hint("write it to a file with sandbox_write_file and run that with sandbox_exec");
    spec.argv.push_back(args.code);
    spec.argv.push_back(name);  // $0
  } else {
    spec.input = args.code;
  }
  if (language.has_value) spec.env = {{kTokenVariable, token}, {kNameVariable, name}};
  return spec;
}

SandboxEvalResult run(const SandboxEvalArgs& args, Services& services, mcp::CallContext& context) {
  const Language language =
      find_language(args.language.empty() ? guess_language(args.code, args.path) : args.language);
  const auto& defaults = services.manager.config().sandbox;
  const Target target = find_target(services, args.sandbox_id);
  if (!args.path.empty()) target.sandbox->write_file(args.path, args.code, {}, context.stop());

  const std::string token = sys::random_hex(16);
  sandbox::ExecSpec spec =
      spec_of(args, language, token, args.path.empty() ? "<eval>" : target.sandbox->absolute(args.path));
  spec.timeout = std::chrono::milliseconds(
      std::llround(args.timeout_s.value_or(static_cast<double>(defaults.exec_timeout_s)) * 1000));
  spec.merge_output = services.merge_output;
  spec.output_limit = static_cast<size_t>(defaults.output_limit);
  spec.stop = context.stop();
  if (context.has_progress())
    spec.on_progress = [&](const std::string& line) { context.progress(line.empty() ? "running" : line); };

  SandboxEvalResult result;
  result.language = language.name;
  try {
    result.report = report_of(target.sandbox->exec(spec), target);
  } catch (Error& e) {
    if (e.code() == Errc::not_found && target.sandbox->running())
      e.hint(
          fmt::format("{} code needs {} in the sandbox: install it on the host, or name its folder in "
                      "`host_paths` of the "
                      "profile (hutch doctor shows how)",
                      language.name, language.needs));
    throw;
  }
  result.value = take_value(result.report.out, token);
  return result;
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
       .title = "Run code in a sandbox",
       .description = "Runs a piece of code (python, javascript, typescript, bash, ruby, perl, php, lua, r) "
                      "in a fresh process in the "
                      "sandbox and returns what it printed and, for python and javascript, the value of its "
                      "last expression. No "
                      "quoting is needed, unlike with sandbox_exec. Variables do not live on between calls; "
                      "files do. With `path`, the "
                      "code is kept as that file.",
       .toolset = "core",
       .lean = true,
       .task = true},
      [&services](const SandboxEvalArgs& args, mcp::CallContext& context) {
        return run(args, services, context);
      },
      [](const SandboxEvalResult& result) { return mcp::Reply{text_of(result)}; });
}

}  // namespace hutch::tools
