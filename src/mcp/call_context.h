#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>

#include "mcp/question.h"

namespace hutch::mcp {

/// Who calls.
struct Caller {
  std::string client_name;   // "claude-code"; empty when the client does not say
  std::string revision;      // "2026-07-28"
  bool may_be_task = false;  // asks for the result of a long call later, and so has no time limit of its own
};

/// How the one question of a call is put.
struct Asking {
  QuestionStyle style = QuestionStyle::none;
  std::function<Decision(const Question& question, std::chrono::milliseconds timeout,
                         const std::stop_token& until)>
      ask{};
  std::optional<Resumed> resumed{};
};

/// What a tool gets besides its arguments. Valid until the tool returns. Made by the server; tests make their
/// own.
class CallContext {
 public:
  using ProgressSink = std::function<void(std::string_view message)>;

  explicit CallContext(std::stop_token stop = {}, Caller caller = {}, ProgressSink progress = {},
                       Asking asking = {})
      : stop_(std::move(stop)),
        caller_(std::move(caller)),
        progress_(std::move(progress)),
        asking_(std::move(asking)) {}

  /// Requested when the caller cancels or the server ends. A tool must then return soon: what it returns
  /// after a cancellation is not sent, but for the client that asks for the result of a cancelled task.
  /// Callbacks on the token run on the protocol's reader thread: keep them short.
  std::stop_token stop() const { return stop_; }

  /// True when the caller wants to hear of progress.
  bool has_progress() const { return static_cast<bool>(progress_); }
  /// Tells the caller what is going on. Thread-safe, never blocks, may be called often: at most one message a
  /// second gets through, and a host that does not read loses them.
  void progress(std::string_view message) const {
    if (progress_) progress_(message);
  }

  const Caller& caller() const { return caller_; }

  /// A call may ask its user one question. Once it has, the style is `none`.
  QuestionStyle question_style() const {
    return asked_ || asking_.resumed ? QuestionStyle::none : asking_.style;
  }
  /// For the style `waiting`: returns with the answer, or without one when the time is over, the call is
  /// stopped, or the answer is needed no more (`until`); otherwise at once and without. From any thread, as
  /// long as the tool has not returned.
  Decision ask(const Question& question, std::chrono::milliseconds timeout,
               const std::stop_token& until = {}) const {
    const bool may_ask = question_style() == QuestionStyle::waiting && !asked_.exchange(true);
    return may_ask ? asking_.ask(question, timeout, until) : Decision{};
  }
  /// Set when the client calls again with the answer to what the tool has thrown as InputRequired. The tool
  /// then goes on with that work, on that subject, and does not begin anew.
  const std::optional<Resumed>& resumed() const { return asking_.resumed; }

 private:
  std::stop_token stop_;
  Caller caller_;
  ProgressSink progress_;
  Asking asking_;
  mutable std::atomic<bool> asked_ = false;
};

}  // namespace hutch::mcp
