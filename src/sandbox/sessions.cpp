#include "sandbox/sessions.h"

#include <fmt/format.h>
#include <signal.h>

#include <algorithm>

#include "base/sys.h"
#include "sandbox/drivers/drivers.h"
#include "sandbox/sandbox.h"
#include "schema/json.h"
#include "schema/text.h"

namespace hutch::sandbox {

using namespace std::chrono_literals;

namespace {

constexpr auto kInterruptAgain = 250ms;  // one that comes between two steps of the driver is lost
constexpr auto kKilledWithin = 3s;
constexpr size_t kTokenBytes = 16;
constexpr size_t kMaxBetween = 4000;  // bytes printed between two calls that the second one shows
constexpr auto kReadTimeout = 10s;

std::vector<std::string> interpreter_argv(Language language) {
  switch (language) {
    case Language::python:
      return python_argv();
    case Language::javascript:
      return node_argv();
    case Language::bash:
      return bash_argv();
  }
  return {};
}

Error ended_before(const std::string& session, const ExecResult& end) {
  return Error(Errc::conflict,
               fmt::format("session '{}' has ended since its last call ({}): what it knew is gone", session,
                           end.signal != 0 ? fmt::format("signal {}", end.signal)
                                           : fmt::format("exit code {}", end.exit_code)))
      .hint("the next call with this `session` starts a new one");
}

/// A session's process is ended without further words when it has gone astray.
void end_process(Process& process) {
  process.end_tree(0ms);
  process.wait({}, Clock::now() + kKilledWithin, [](const Process::State& state) { return state.tree_gone; });
}

/// What was printed from `first` up to `end`, or the beginning of it and where the rest is.
std::string printed_between(Process& process, uint64_t first, uint64_t end, const std::string& log) {
  std::string bytes =
      process.read(first, std::min<uint64_t>(kMaxBetween, end - first), Clock::now() + kReadTimeout).bytes;
  std::string note;
  if (end - first > kMaxBetween) {
    bytes.resize(whole_characters(bytes));
    note = fmt::format("[... {} of {} bytes cut here; all of it: {} ...]\n", end - first - bytes.size(),
                       end - first, log);
  }
  std::string text = schema::valid_utf8(bytes);
  if (!text.ends_with('\n')) text += '\n';
  return fmt::format("[printed since the last call]\n{}{}\n", text, note);
}

}  // namespace

std::string_view language_name(Language language) noexcept {
  switch (language) {
    case Language::python:
      return "python";
    case Language::javascript:
      return "javascript";
    case Language::bash:
      return "bash";
  }
  return "";
}

Language language_of_name(std::string_view name) {
  for (const Language language : {Language::python, Language::javascript, Language::bash})
    if (language_name(language) == name) return language;
  throw Error(Errc::invalid_argument, fmt::format("there is no language '{}'", name));
}

std::string request_bytes(const EvalSpec& spec, const EvalRequest& request) {
  if (spec.language == Language::bash) {
    if (spec.code.find('\0') != std::string::npos)
      throw Error(Errc::invalid_argument, "bash code cannot hold a NUL byte");
    return bash_request(spec.code, request.token, request.split, request.env, request.workdir);
  }
  ordered_json header = {{"token", request.token},
                         {"name", spec.name},
                         {"bytes", spec.code.size()},
                         {"once", request.once},
                         {"split", request.split}};
  if (!request.env.empty()) header["env"] = request.env;
  if (!request.workdir.empty()) header["workdir"] = request.workdir;
  return header.dump(-1, ' ', true, json::error_handler_t::replace) + "\n" + spec.code;
}

bool can_get_later(const std::map<std::string, std::string>& has,
                   const std::map<std::string, std::string>& wanted) {
  // Which program is started, where it looks for modules, its options, its locale and its libraries.
  constexpr std::string_view kReadAtStart[] = {"PATH", "HOME",   "PYTHON",  "NODE",     "V8_",
                                               "UV_",  "LD_",    "LANG",    "LC_",      "TZ",
                                               "ICU",  "GLIBC_", "MALLOC_", "OPENSSL_", "SSL_"};
  return std::ranges::all_of(wanted, [&](const auto& variable) {
    const auto it = has.find(variable.first);
    if (it != has.end() && it->second == variable.second) return true;
    return std::ranges::none_of(kReadAtStart,
                                [&](std::string_view begin) { return variable.first.starts_with(begin); });
  });
}

Interpreter::Interpreter(std::shared_ptr<BackgroundProcess> process, Language language, bool split)
    : process_(std::move(process)), language_(language), split_(split) {}

std::shared_ptr<Interpreter> Interpreter::adopt(std::shared_ptr<BackgroundProcess> process, Language language,
                                                bool split) {
  auto interpreter = std::make_shared<Interpreter>(std::move(process), language, split);
  interpreter->answered_ = true;
  interpreter->first_ = false;
  interpreter->unread_ = UINT64_MAX;  // where its last answer ends is not known
  return interpreter;
}

void Interpreter::prepare(std::map<std::string, std::string> env, std::string workdir) {
  env_ = std::move(env);
  workdir_ = std::move(workdir);
}

/// True when the answer has come; false at the deadline, a stop or the end of the process.
bool Interpreter::wait_for_answer(const EvalSpec& spec, const EvalOutput& output,
                                  Clock::time_point deadline) {
  Process& process = process_->process();
  const auto ready = [&](const Process::State& state) { return output.complete() || state.exited; };
  while (!spec.stop.stop_requested() && Clock::now() < deadline) {
    const auto until = spec.on_progress ? std::min<Clock::time_point>(deadline, Clock::now() + 1s) : deadline;
    if (process.wait(spec.stop, until, ready)) break;
    if (spec.on_progress && !spec.stop.stop_requested())
      spec.on_progress(process.locked([&] { return output.last_line(); }));
  }
  return process.locked([&] { return output.complete(); });
}

bool Interpreter::interrupt(const EvalOutput& output) {
  Process& process = process_->process();
  for (const auto end = Clock::now() + kGrace; Clock::now() < end && !process.state().exited;) {
    process.signal(SIGINT);
    process.wait({}, std::min<Clock::time_point>(end, Clock::now() + kInterruptAgain),
                 [&](const Process::State& state) { return output.complete() || state.exited; });
    if (process.locked([&] { return output.complete(); })) return true;
  }
  return false;
}

void Interpreter::end() {
  end_process(process_->process());
}

void Interpreter::ask(const EvalSpec& spec, const std::string& token, Clock::time_point deadline) {
  EvalRequest request{
      .token = token, .split = split_, .env = std::move(env_), .workdir = std::move(workdir_)};
  env_.clear();
  workdir_.clear();
  std::string bytes = request_bytes(spec, request);
  if (std::exchange(first_, false) && language_ == Language::bash) bytes.insert(0, bash_driver());
  process_->process().write(bytes, spec.stop, deadline);
}

EvalResult Interpreter::run(Sandbox& sandbox, const EvalSpec& spec) {
  const auto start = Clock::now(), deadline = start + spec.timeout;
  std::unique_lock only_one(one_call_, std::defer_lock);
  while (!only_one.try_lock_for(100ms))
    if (Clock::now() >= deadline || spec.stop.stop_requested())
      throw Error(Errc::conflict,
                  fmt::format("session '{}' still runs the code of another call", spec.session))
          .hint("wait for it, or take another `session`");
  Process& process = process_->process();
  // The call that was waited for may have ended it.
  if (ended()) throw ended_before(spec.session, sandbox.result_of(*process_));
  const std::string token = sys::random_hex(kTokenBytes);
  EvalOutput output(token, split_, spec.output_limit);
  EvalResult result;
  bool answered = false;
  try {
    process.begin_relay([&](int which, std::string_view bytes) { output.add(which, bytes); });
    ask(spec, token, deadline);
    answered = wait_for_answer(spec, output, deadline);
    if (!answered && !process.state().exited) {
      result.end = spec.stop.stop_requested() ? End::cancelled : End::timed_out;
      answered = result.interrupted = interrupt(output);
      if (!answered) end_process(process);
    }
    if (answered && output.answer() && output.answer()->ended)
      answered = !process.wait({}, Clock::now() + kGrace, [](const auto& state) { return state.exited; });
  } catch (...) {
    process.end_relay();  // `output` is of this call
    throw;
  }
  process.end_relay();
  answered_ = answered_ || answered;
  if (!answered) {
    const End why = result.end;
    static_cast<ExecResult&>(result) = sandbox.result_of(*process_);
    if (why != End::exited) result.end = why;
    result.session_ended = true;
    result.interrupted = false;
  } else if (output.answer()) {
    result.exit_code = output.answer()->exit_code;
    result.value = output.answer()->value;
    result.images = output.answer()->images;
  }
  note_output(sandbox, output, result);
  result.duration = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start);
  return result;
}

/// With what came between this call and the one before, of threads and children of the code.
void Interpreter::note_output(Sandbox& sandbox, EvalOutput& output, EvalResult& result) {
  Process& process = process_->process();
  result.log = sandbox.result_of(*process_).log;
  if (!output.complete()) output.give_up();
  const uint64_t begin = process.relay_begin(), unread = unread_;
  const bool between_cut = begin > unread && begin - unread > kMaxBetween;
  if (begin > unread) result.out = printed_between(process, unread, begin, result.log);
  unread_ = output.complete() ? begin + output.end() : process.relay_end();
  result.out += output.out().text(result.log);
  result.err = output.err().text(result.log);
  result.truncated = between_cut || output.out().truncated() || output.err().truncated();
}

EvalResult Sessions::eval(Sandbox& sandbox, const EvalSpec& spec) {
  if (spec.session.empty()) return eval_once(sandbox, spec);
  const Key key(spec.language, spec.session);
  bool is_new = false;
  const auto interpreter = find_or_start(sandbox, key, spec, is_new);
  try {
    EvalResult result = interpreter->run(sandbox, spec);
    if (is_new) sandbox.note_processes();
    result.session_new = is_new;
    if (result.session_ended) drop(key, interpreter);
    return result;
  } catch (...) {
    if (interpreter->ended()) drop(key, interpreter);
    throw;
  }
}

EvalResult Sessions::eval_once(Sandbox& sandbox, const EvalSpec& spec) {
  const EvalRequest request{.token = sys::random_hex(kTokenBytes), .split = !spec.merge_output, .once = true};
  EvalOutput output(request.token, request.split, spec.output_limit, true);
  ExecSpec exec;
  exec.argv = interpreter_argv(spec.language);
  exec.title = fmt::format("{} code", language_name(spec.language));
  exec.has_answers = true;
  exec.input = request_bytes(spec, request);
  exec.timeout = spec.timeout;
  exec.yield = spec.yield;
  exec.merge_output = spec.merge_output;
  exec.stop = spec.stop;
  exec.on_progress = spec.on_progress;
  exec.on_output = [&](int which, std::string_view bytes) { output.add(which, bytes); };
  exec.last_line = [&] { return output.last_line(); };
  EvalResult result;
  static_cast<ExecResult&>(result) = sandbox.exec(exec);
  if (!output.complete()) output.give_up();
  if (output.answer()) {
    result.value = output.answer()->value;
    result.images = output.answer()->images;
  }
  result.out = output.out().text(result.log);
  result.err = output.err().text(result.log);
  result.truncated = output.out().truncated() || output.err().truncated();
  return result;
}

std::shared_ptr<Interpreter> Sessions::find(const Key& key) const {
  const std::lock_guard lock(mutex_);
  const auto it = interpreters_.find(key);
  return it == interpreters_.end() ? nullptr : it->second;
}

std::shared_ptr<Interpreter> Sessions::find_or_start(Sandbox& sandbox, const Key& key, const EvalSpec& spec,
                                                     bool& is_new) {
  if (const auto known = find(key); known && !spec.restart && !known->ended()) return known;
  const std::lock_guard one_at_a_time(start_mutex_);
  auto found = find(key);
  if (!found) {
    const std::lock_guard lock(mutex_);
    if (interpreters_.size() >= kMaxSessions)
      std::erase_if(interpreters_, [](const auto& entry) { return entry.second->ended(); });
    if (interpreters_.size() >= kMaxSessions)
      throw Error(Errc::limit_exceeded, fmt::format("this sandbox has {} sessions", kMaxSessions))
          .hint("end some with sandbox_process (action signal)");
  }
  if (found && spec.restart) {
    drop(key, found);
    found->end();
    found = nullptr;
  }
  if (found && found->ended()) {
    drop(key, found);
    throw ended_before(key.second, sandbox.result_of(found->process()));
  }
  if (found) return found;
  is_new = true;
  found = take_ahead(sandbox, key.first, !spec.merge_output);
  if (!found) found = start(sandbox, key.first, !spec.merge_output, {});
  found->process().set_title(fmt::format("{} session '{}'", language_name(key.first), key.second));
  found->process().hidden = false;
  const std::lock_guard lock(mutex_);
  interpreters_[key] = found;
  return found;
}

std::shared_ptr<Interpreter> Sessions::start(Sandbox& sandbox, Language language, bool split,
                                             const std::map<std::string, std::string>& env) {
  ExecSpec exec;
  exec.argv = interpreter_argv(language);
  exec.env = env;
  exec.timeout = 0ms;
  exec.background = true;
  exec.hidden = true;
  exec.has_answers = true;
  exec.merge_output = !split;
  const uint32_t number = sandbox.exec(exec).process_id;
  return std::make_shared<Interpreter>(sandbox.processes().find(number), language, split);
}

void Sessions::start_ahead(Sandbox& sandbox, Language language, bool split,
                           const std::map<std::string, std::string>& env) {
  auto interpreter = start(sandbox, language, split, env);
  const std::lock_guard lock(mutex_);
  ahead_.push_back(std::move(interpreter));
  ahead_env_ = env;
}

/// nullptr when there is none that lives.
std::shared_ptr<Interpreter> Sessions::take_ahead(Sandbox& sandbox, Language language, bool split) {
  std::shared_ptr<Interpreter> found;
  {
    const std::lock_guard lock(mutex_);
    const auto it = std::find_if(ahead_.begin(), ahead_.end(), [&](const auto& interpreter) {
      return interpreter->language() == language && interpreter->split() == split;
    });
    if (it == ahead_.end()) return nullptr;
    found = std::move(*it);
    ahead_.erase(it);
  }
  if (found->ended()) return nullptr;
  if (!can_get_later(ahead_env_, sandbox.about().env)) {
    found->end();
    return nullptr;
  }
  found->prepare(sandbox.about().env, sandbox.about().workdir);  // it was started before these were known
  return found;
}

void Sessions::drop(const Key& key, const std::shared_ptr<Interpreter>& interpreter) {
  const std::lock_guard lock(mutex_);
  if (const auto it = interpreters_.find(key); it != interpreters_.end() && it->second == interpreter)
    interpreters_.erase(it);
}

std::optional<Language> Sessions::language_of(const std::string& session) const {
  const std::lock_guard lock(mutex_);
  std::optional<Language> only;
  for (const auto& [key, _] : interpreters_) {
    if (key.second != session) continue;
    if (only) return std::nullopt;
    only = key.first;
  }
  return only;
}

void Sessions::describe(KeptProcess& kept) const {
  const std::lock_guard lock(mutex_);
  for (const auto& [key, interpreter] : interpreters_) {
    if (interpreter->process().number() != kept.number) continue;
    if (interpreter->has_answered())
      kept.session = {std::string(language_name(key.first)), key.second, interpreter->split()};
    else
      kept.hidden = true;
  }
}

void Sessions::restore(const KeptSession& session, std::shared_ptr<BackgroundProcess> process) {
  const Language language = language_of_name(session.language);
  auto interpreter = Interpreter::adopt(std::move(process), language, session.split);
  const std::lock_guard lock(mutex_);
  interpreters_[{language, session.name}] = std::move(interpreter);
}

}  // namespace hutch::sandbox
