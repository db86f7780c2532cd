#pragma once

#include <functional>
#include <stop_token>
#include <string>
#include <string_view>

namespace hutch::mcp {

/// Who calls.
struct Caller {
  std::string client_name;   // "claude-code"; empty when the client does not say
  std::string revision;      // "2026-07-28"
  bool may_be_task = false;  // asks for the result of a long call later, and so has no time limit of its own
};

/// What a tool gets besides its arguments. Valid until the tool returns. Made by the server; tests make their
/// own.
class CallContext {
 public:
  using ProgressSink = std::function<void(std::string_view message)>;

  explicit CallContext(std::stop_token stop = {}, Caller caller = {}, ProgressSink progress = {})
      : stop_(std::move(stop)), caller_(std::move(caller)), progress_(std::move(progress)) {}

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

 private:
  std::stop_token stop_;
  Caller caller_;
  ProgressSink progress_;
};

}  // namespace hutch::mcp
