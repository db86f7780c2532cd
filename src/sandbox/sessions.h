#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "sandbox/eval_output.h"
#include "sandbox/exec.h"
#include "sandbox/process_table.h"

namespace hutch::sandbox {

class Sandbox;

/// Those whose interpreters can keep state between calls.
enum class Language { python, javascript, bash };
std::string_view language_name(Language language) noexcept;
/// Throws invalid_argument for another name.
Language language_of_name(std::string_view name);

struct EvalSpec {
  Language language{};
  std::string session;     // empty: a process of its own, which ends with the call
  bool restart = false;    // the session's interpreter is ended first
  std::string code, name;  // the name is what error messages call it; with "/" in front a file
  std::chrono::milliseconds timeout{120'000};
  std::optional<std::chrono::milliseconds> yield;  // only without a session
  bool merge_output = false;
  size_t output_limit = 10'000;
  std::stop_token stop;
  std::function<void(const std::string&)> on_progress;
};

struct EvalResult : ExecResult {
  std::optional<std::string> value;
  std::vector<std::string> images;  // PNG files in the sandbox
  bool session_new = false;         // made by this call
  bool session_ended = false;       // its process has ended: what it knew is gone
  bool interrupted = false;         // the code was ended at its deadline or a stop, and the session lives on
};

/// The bytes that ask an interpreter to run code (drivers/python.py says how).
struct EvalRequest {
  std::string token;
  bool split = false;                      // its two streams come apart
  bool once = false;                       // it ends then
  std::map<std::string, std::string> env;  // set before, as is
  std::string workdir;                     // the folder to go to before; empty = none
};
std::string request_bytes(const EvalSpec& spec, const EvalRequest& request);

/// Whether an interpreter that was started with the environment `has` can get `wanted` later: not when they
/// differ in something that is read at the start only.
bool can_get_later(const std::map<std::string, std::string>& has,
                   const std::map<std::string, std::string>& wanted);

/// An interpreter in a sandbox whose state lives between calls. One call at a time.
class Interpreter {
 public:
  Interpreter(std::shared_ptr<BackgroundProcess> process, Language language, bool split);
  /// One that another server started, and that has answered it.
  static std::shared_ptr<Interpreter> adopt(std::shared_ptr<BackgroundProcess> process, Language language,
                                            bool split);

  Language language() const { return language_; }
  bool split() const { return split_; }
  BackgroundProcess& process() { return *process_; }
  bool ended() { return process_->process().state().exited; }
  /// A call has come to its end, so the next one can be another server's.
  bool has_answered() const { return answered_; }

  /// `env` and `workdir` are given to an interpreter that was started ahead, at its first call.
  void prepare(std::map<std::string, std::string> env, std::string workdir);
  /// Deadline and stop interrupt the code, which keeps the state; what does not give in is ended.
  EvalResult run(Sandbox& sandbox, const EvalSpec& spec);
  void end();

 private:
  void ask(const EvalSpec& spec, const std::string& token, Clock::time_point deadline);
  void note_output(Sandbox& sandbox, EvalOutput& output, EvalResult& result);
  bool wait_for_answer(const EvalSpec& spec, const EvalOutput& output, Clock::time_point deadline);
  bool interrupt(const EvalOutput& output);

  const std::shared_ptr<BackgroundProcess> process_;
  const Language language_;
  const bool split_;
  std::timed_mutex one_call_;
  std::atomic<bool> answered_{false};
  uint64_t unread_ = 0;  // where the output since the last call begins
  bool first_ = true;    // and then, when it was started ahead:
  std::map<std::string, std::string> env_;
  std::string workdir_;
};

/// The interpreters of one sandbox, by language and name. Thread-safe.
class Sessions {
 public:
  static constexpr size_t kMaxSessions = 32;

  EvalResult eval(Sandbox& sandbox, const EvalSpec& spec);
  /// Starts one that the first session of its language will take.
  void start_ahead(Sandbox& sandbox, Language language, bool split,
                   const std::map<std::string, std::string>& env);
  /// The only language with a session of this name; empty when there is none or more than one.
  std::optional<Language> language_of(const std::string& session) const;

  /// Notes in it which session it is of. What is no session yet is hidden from other servers.
  void describe(KeptProcess& kept) const;
  void restore(const KeptSession& session, std::shared_ptr<BackgroundProcess> process);

 private:
  using Key = std::pair<Language, std::string>;
  EvalResult eval_once(Sandbox& sandbox, const EvalSpec& spec);
  std::shared_ptr<Interpreter> find(const Key& key) const;
  std::shared_ptr<Interpreter> find_or_start(Sandbox& sandbox, const Key& key, const EvalSpec& spec,
                                             bool& is_new);
  std::shared_ptr<Interpreter> start(Sandbox& sandbox, Language language, bool split,
                                     const std::map<std::string, std::string>& env);
  std::shared_ptr<Interpreter> take_ahead(Sandbox& sandbox, Language language, bool split);
  void drop(const Key& key, const std::shared_ptr<Interpreter>& interpreter);

  std::mutex start_mutex_;  // two first calls of a session make one interpreter
  mutable std::mutex mutex_;
  std::map<Key, std::shared_ptr<Interpreter>> interpreters_;
  std::vector<std::shared_ptr<Interpreter>> ahead_;
  std::map<std::string, std::string> ahead_env_;  // that they were started with
};

}  // namespace hutch::sandbox
