#include "tools/sandbox_process.h"

#include <fmt/format.h>
#include <signal.h>

#include <algorithm>
#include <cmath>

#include "sandbox/output.h"
#include "schema/text.h"

namespace hutch::tools {

using namespace std::chrono_literals;
using sandbox::BackgroundProcess;

namespace {

constexpr auto kAgentTimeout = 60s;
constexpr auto kQuiet = 100ms;       // output that pauses for so long is shown
constexpr auto kLongestSettle = 1s;  // even when it does not pause
constexpr auto kProgressEvery = 1s;
constexpr size_t kTitleBytes = 200;

/// One call: what the actions share.
struct Call {
  const SandboxProcessArgs& args;
  sandbox::Sandbox& sandbox;
  std::shared_ptr<BackgroundProcess> process;
  mcp::CallContext& context;
  size_t output_limit;

  bool screen() const { return process->has_terminal() && !args.raw; }
  Clock::time_point deadline(double default_s) const {
    return Clock::now() + std::chrono::milliseconds(std::llround(args.wait_s.value_or(default_s) * 1000));
  }
};

uint64_t printed_so_far(BackgroundProcess& process) {
  return process.process().read(UINT64_MAX, 1, Clock::now() + kAgentTimeout).printed;
}

ProcessView view_of(sandbox::Sandbox& sandbox, BackgroundProcess& process) {
  const sandbox::ExecResult result = sandbox.result_of(process);
  ProcessView view;
  view.process_id = process.number();
  view.command = schema::valid_utf8(process.title().substr(0, kTitleBytes));
  view.end = sandbox::end_name(result.end);
  view.state = result.end == sandbox::End::running ? "running"
               : result.process_id != 0            ? "left_running"
                                                   : "ended";
  view.tty = process.has_terminal();
  if (result.end != sandbox::End::running && result.signal == 0) view.exit_code = result.exit_code;
  if (result.signal != 0) view.signal = signal_name(result.signal);
  view.duration_ms = result.duration.count();
  return view;
}

/// After the first output: until it pauses.
void settle(const Call& call) {
  const auto end = Clock::now() + kLongestSettle;
  for (uint64_t seen = printed_so_far(*call.process); Clock::now() < end;
       seen = printed_so_far(*call.process))
    if (!call.process->process().wait_for_output(seen, call.context.stop(), Clock::now() + kQuiet)) return;
}

/// Waits until there is more output than was read, and then until it pauses.
void wait_for_output(const Call& call, uint64_t more_than, Clock::time_point deadline) {
  while (Clock::now() < deadline && !call.context.stop().stop_requested()) {
    const auto until = std::min<Clock::time_point>(deadline, Clock::now() + kProgressEvery);
    if (call.process->process().wait_for_output(more_than, call.context.stop(), until)) return settle(call);
    if (!call.process->process().running()) return;
    call.context.progress("waiting for output");
  }
}

/// What interpreters answer to sandbox_eval stands in their output between two marks, with 32 digits in
/// front.
std::string without_answers(std::string_view text) {
  constexpr char kMark = '\x1e';
  constexpr size_t kToken = 32;
  std::string rest;
  while (!text.empty()) {
    const size_t start = std::min(text.find(kMark), text.size());
    rest += text.substr(0, start);
    text.remove_prefix(start);
    const size_t end = text.find(kMark, 1);
    const bool token = text.find_first_not_of("0123456789abcdef", 1) > kToken;
    const size_t answer = end != std::string_view::npos && end > kToken && token ? end + 1 : 0;
    if (answer == 0) rest += text.substr(0, 1);
    text.remove_prefix(std::min(std::max<size_t>(answer, 1), text.size()));
  }
  return rest;
}

/// The part of the output that the result has room for: bytes here, as places in the output are.
void add_output(const Call& call, SandboxProcessResult& result) {
  std::optional<uint64_t> from;
  if (const auto cursor = call.args.cursor; cursor && *cursor < 0) {
    const uint64_t printed = printed_so_far(*call.process);
    from = printed - std::min(printed, uint64_t{0} - static_cast<uint64_t>(*cursor));
  } else if (cursor) {
    from = static_cast<uint64_t>(*cursor);
  }
  const uint64_t wanted = from.value_or(call.process->next_unread());
  const auto piece = call.process->read(from, call.output_limit, Clock::now() + kAgentTimeout);
  const uint64_t next = piece.first + piece.bytes.size();
  result.output = schema::valid_utf8(
      call.process->has_answers && !call.args.raw ? without_answers(piece.bytes) : piece.bytes);
  result.cursor = static_cast<int64_t>(next);
  if (piece.printed > next) result.bytes_left = static_cast<int64_t>(piece.printed - next);
  if (piece.first > wanted) result.bytes_skipped = static_cast<int64_t>(piece.first - wanted);
}

void add_screen(const Call& call, SandboxProcessResult& result) {
  const auto view = call.process->view(Clock::now() + kAgentTimeout);
  sandbox::BoundedOutput bounded(call.output_limit);
  bounded.append(text_of(view));
  result.output = bounded.text("raw: true reads all of it");
  result.cursor = static_cast<int64_t>(call.process->next_unread());
  result.cursor_row = view.screen.cursor_row;
  result.cursor_column = view.screen.cursor_column;
}

void show(const Call& call, SandboxProcessResult& result) {
  call.screen() ? add_screen(call, result) : add_output(call, result);
}

void read(const Call& call, SandboxProcessResult& result) {
  const int64_t cursor = call.args.cursor.value_or(static_cast<int64_t>(call.process->next_unread()));
  if (call.args.wait_s && cursor >= 0) wait_for_output(call, static_cast<uint64_t>(cursor), call.deadline(0));
  show(call, result);
}

void write(const Call& call, SandboxProcessResult& result) {
  auto& process = call.process->process();
  if (!process.has_input())
    throw Error(Errc::conflict, fmt::format("process {} has no standard input", call.process->number()))
        .hint("start it with `background` or `tty` to write to it");
  if (process.state().exited)
    throw Error(Errc::conflict, fmt::format("process {} has ended", call.process->number()));
  if (process.input_ended())
    throw Error(Errc::conflict,
                fmt::format("process {} was given the end of its standard input", call.process->number()))
        .hint("a process that is started without `stdin` takes input until `eof`");
  const uint64_t before = printed_so_far(*call.process);
  std::string input = call.args.input;
  if (call.screen()) input = call.process->keys(input, Clock::now() + kAgentTimeout);
  if (call.args.eof && call.process->has_terminal()) input += '\x04';  // as Control-D does
  const auto deadline = call.deadline(call.process->has_terminal() ? 1 : 0);
  const size_t written =
      process.write(input, call.context.stop(), std::max<Clock::time_point>(deadline, Clock::now() + 10s));
  if (call.args.eof && !call.process->has_terminal()) process.end_input();
  if (written < input.size())
    result.notes.push_back(fmt::format("It took only the first {} of {} bytes.", written, input.size()));
  if (deadline <= Clock::now()) return;
  wait_for_output(call, before, deadline);
  show(call, result);
}

int signal_number(std::string name) {
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::toupper(c); });
  if (name.starts_with("SIG")) name.erase(0, 3);
  for (const int number : {SIGTERM, SIGKILL, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGSTOP, SIGCONT,
                           SIGTSTP, SIGWINCH, SIGALRM, SIGABRT})
    if (name == ::sigabbrev_np(number) || name == std::to_string(number)) return number;
  throw Error(Errc::invalid_argument,
              fmt::format("'{}' is not a signal", schema::valid_utf8(name.substr(0, 40))))
      .hint("`signal` is TERM, KILL, INT, HUP, QUIT, USR1, USR2, STOP or CONT");
}

bool wait_for_end(const Call& call, Clock::time_point deadline) {
  auto& process = call.process->process();
  while (!call.context.stop().stop_requested()) {
    const auto until = std::min<Clock::time_point>(deadline, Clock::now() + kProgressEvery);
    if (process.wait(call.context.stop(), until, [](const auto& state) { return state.tree_gone; }))
      return true;
    if (Clock::now() >= deadline) break;
    call.context.progress(fmt::format("process {} still runs", call.process->number()));
  }
  return false;
}

void signal(const Call& call, SandboxProcessResult& result) {
  const int number = signal_number(call.args.signal);
  auto& process = call.process->process();
  if (process.state().tree_gone) {
    result.notes.push_back("It had ended already.");
    return;
  }
  if (number != SIGTERM && number != SIGKILL) {
    process.signal(number);
    if (call.args.wait_s) wait_for_end(call, call.deadline(0));
    return;
  }
  call.process->was_signalled = true;
  process.end_tree(number == SIGKILL ? 0ms : sandbox::kGrace);
  if (!wait_for_end(call, Clock::now() + sandbox::kGrace + 1500ms))
    result.notes.push_back("Some of it could not be ended in time; sandbox_destroy ends it for certain.");
}

void wait(const Call& call, SandboxProcessResult& result) {
  wait_for_end(call, call.deadline(30));
  show(call, result);
}

std::shared_ptr<BackgroundProcess> find_process(const SandboxProcessArgs& args, sandbox::Sandbox& sandbox) {
  if (args.action == "list") return nullptr;
  if (!args.process_id)
    throw Error(Errc::invalid_argument, fmt::format("'process_id' is missing for action {}", args.action))
        .hint("action `list` shows them");
  return sandbox.processes().find(static_cast<uint32_t>(std::min<int64_t>(*args.process_id, UINT32_MAX)));
}

SandboxProcessResult run(const SandboxProcessArgs& args, Services& services, mcp::CallContext& context) {
  const Target target = find_target(services, args.sandbox_id, context);
  sandbox::Sandbox& sandbox = *target.sandbox;
  SandboxProcessResult result{.sandbox_id = sandbox.id()};
  if (!target.note.empty()) result.notes.push_back(target.note);
  return sandbox.during_call([&] {
    const auto limit = args.output_limit.value_or(services.manager.config().sandbox.output_limit);
    const Call call{args, sandbox, find_process(args, sandbox), context, static_cast<size_t>(limit)};
    (void)sandbox.ping(Clock::now() + kAgentTimeout);  // what the agent said before its answer is known then
    if (args.action == "list") {
      result.listed = true;
      result.processes = process_views(sandbox);
      return result;
    }
    if (args.action == "read") read(call, result);
    if (args.action == "write") write(call, result);
    if (args.action == "signal") signal(call, result);
    if (args.action == "wait") wait(call, result);
    result.processes.push_back(view_of(sandbox, *call.process));
    if (result.output) result.log = sandbox.result_of(*call.process).log;
    return result;
  });
}

std::string text_of(const SandboxProcessResult& result) {
  std::string text;
  if (result.listed) {
    text = result.processes.empty()
               ? fmt::format("no background processes · {}\n", result.sandbox_id)
               : fmt::format("{} · {}\n",
                             result.processes.size() == 1
                                 ? "1 background process"
                                 : fmt::format("{} background processes", result.processes.size()),
                             result.sandbox_id);
    for (const auto& process : result.processes)
      text += fmt::format("{}  {}{}  {}\n", process.process_id, state_in_words(process),
                          process.tty ? " (terminal)" : "", process.command);
  } else {
    const ProcessView& process = result.processes.front();
    text =
        fmt::format("process {} {} · {}\n", process.process_id, state_in_words(process), result.sandbox_id);
  }
  if (result.bytes_skipped)
    text += fmt::format("[... {} bytes are not stored any more ...]\n", *result.bytes_skipped);
  if (result.output) text += *result.output;
  if (result.output && result.output->empty()) text += "(nothing new)\n";
  if (result.cursor_row)
    add_line(text, fmt::format("[cursor at row {}, column {}]", *result.cursor_row, *result.cursor_column));
  if (result.bytes_left) add_line(text, fmt::format("[{} more bytes: read again]", *result.bytes_left));
  for (const auto& note : result.notes) add_line(text, note);
  while (text.ends_with('\n')) text.pop_back();
  return text;
}

}  // namespace

std::vector<ProcessView> process_views(sandbox::Sandbox& sandbox) {
  std::vector<ProcessView> views;
  for (const auto& process : sandbox.processes().list()) views.push_back(view_of(sandbox, *process));
  return views;
}

std::string state_in_words(const ProcessView& process) {
  const std::string time = in_words(std::chrono::milliseconds(process.duration_ms));
  if (process.state == "running") return "running for " + time;
  CommandReport report;
  report.end = process.end;
  report.exit_code = process.exit_code;
  report.signal = process.signal;
  return fmt::format("{} after {}{}", how_it_ended(report), time,
                     process.state == "left_running" ? ", what it started lives on" : "");
}

void add_sandbox_process(mcp::ToolRegistry& registry, Services& services) {
  registry.add<SandboxProcessArgs, SandboxProcessResult>(
      {.name = "sandbox_process",
       .title = "Background processes",
       .description = "For background commands. list: all. read: what it printed since "
                      "the last read; of a terminal the screen. write: text or keys to its input; with "
                      "wait_s returns the answer. signal: ends it. wait: until it has ended.",
       .toolset = "core",
       .lean = true},
      [&services](const SandboxProcessArgs& args, mcp::CallContext& context) {
        return run(args, services, context);
      },
      [](const SandboxProcessResult& result) { return mcp::Reply{text_of(result)}; });
}

}  // namespace hutch::tools
