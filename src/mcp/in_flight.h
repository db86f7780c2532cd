#pragma once

#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>

#include "mcp/versions.h"
#include "rpc/line_writer.h"

namespace hutch::mcp {

/// One request that is being worked on. Decides, under one lock, what may still be sent for it.
class Call {
 public:
  struct Origin {
    json id;
    json progress_token;  // null: no progress wanted
    Revision revision;
    std::string client_name;
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

  /// Sent at once or not at all: not after the answer or a cancellation, not too often.
  void progress(std::string_view message);
  /// True once, unless the call was cancelled: the caller then sends the answer.
  bool claim_answer();

 private:
  const Origin origin_;
  rpc::LineWriter& writer_;
  const std::chrono::milliseconds progress_interval_;
  std::stop_source stop_;
  mutable std::mutex mutex_;
  bool closed_ = false;
  bool cancelled_ = false;
  int64_t progress_count_ = 0;
  std::chrono::steady_clock::time_point next_progress_{};
};

/// The calls that have no answer yet, by their id. Thread-safe.
class InFlight {
 public:
  bool contains(const json& id) const;
  size_t size() const;
  void add(std::shared_ptr<Call> call);
  /// Before the answer is sent: a client that has it may use the id again.
  void free_id(const json& id);
  /// After free_id() and after the answer was sent.
  void finish();
  /// Empty when there is none.
  std::shared_ptr<Call> find(const json& id) const;
  void stop_all();
  bool wait_until_empty(std::chrono::milliseconds timeout) const;

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable empty_;
  std::map<json, std::shared_ptr<Call>> calls_;
  size_t unfinished_ = 0;
};

}  // namespace hutch::mcp
