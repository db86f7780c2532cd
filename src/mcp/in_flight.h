#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>

#include "mcp/versions.h"
#include "rpc/line_writer.h"

namespace hutch::mcp {

/// A progress message as far as it is sent on, cut between characters.
std::string_view shortened(std::string_view text);

/// One request that is being worked on. Decides, under one lock, what may still be sent for it: it is open
/// until it is answered, or becomes a task, or is cancelled.
class Call {
 public:
  struct Origin {
    json id;
    json progress_token;  // null: no progress wanted
    Revision revision;
    std::string client_name;
    bool may_be_task = false;
    QuestionStyle questions = QuestionStyle::none;
    std::optional<Resumed> resumed{};
  };

  Call(Origin origin, rpc::LineWriter& writer, std::chrono::milliseconds progress_interval)
      : origin_(std::move(origin)), writer_(writer), progress_interval_(progress_interval) {}

  const Origin& origin() const { return origin_; }
  std::stop_token stop_token() const { return stop_.get_token(); }

  /// The client wants no answer any more: stops the work, nothing is sent from now on.
  void cancel();
  /// The server ends: stops the work, its answer is still sent.
  void stop() { stop_.request_stop(); }
  bool is_cancelled() const;

  /// A task answers the request from now on. `make` runs only if the call is still open, and returns the
  /// task's id; everybody who asks for the state of this call waits for it.
  bool become_task(const std::function<std::string()>& make);

  /// Sent at once or not at all: not after the answer or a cancellation, not too often. Returns the id of the
  /// task that is to be told the message.
  std::string progress(std::string_view message);

  enum class Ending { answer, task, nothing };
  /// The work is over: who gets what came out of it. `answer` at most once.
  Ending end();
  bool is_open() const;
  /// Constant once the call is a task; empty otherwise.
  const std::string& task_id() const { return task_id_; }

 private:
  enum class State { open, task, closed };

  const Origin origin_;
  rpc::LineWriter& writer_;
  const std::chrono::milliseconds progress_interval_;
  std::stop_source stop_;
  mutable std::mutex mutex_;
  State state_ = State::open;
  bool cancelled_ = false;
  std::string task_id_;
  int64_t progress_count_ = 0;
  std::chrono::steady_clock::time_point next_progress_{};
};

/// The calls that are worked on: by their id until they are answered, by their task's id from then on.
/// Thread-safe.
class InFlight {
 public:
  bool contains(const json& id) const;
  size_t size() const;
  void add(std::shared_ptr<Call> call);
  /// Before the answer is sent: a client that has it may use the id again.
  void free_id(const json& id);
  /// The call's id is free, its work goes on under the id of a task.
  void continue_as_task(const json& id, const std::string& task_id);
  void free_task(const std::string& task_id);
  /// After free_id() and after the answer was sent, or after free_task().
  void finish();
  /// Empty when there is none.
  std::shared_ptr<Call> find(const json& id) const;
  std::shared_ptr<Call> find_task(const std::string& task_id) const;
  void stop_all();
  bool wait_until_empty(std::chrono::milliseconds timeout) const;

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable empty_;
  std::map<json, std::shared_ptr<Call>> calls_;
  std::map<std::string, std::shared_ptr<Call>> tasks_;
  size_t unfinished_ = 0;
};

}  // namespace hutch::mcp
