#pragma once

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "mcp/question.h"

namespace hutch::mcp {

/// The questions that calls wait for. Thread-safe.
class OpenQuestions {
 public:
  /// A new question, with an id that no client has used for a request of its own.
  std::string add(const Question& question);
  /// Returns when there is an answer, and forgets the question. Nothing when the host still has it: it was
  /// not answered in time, or `stop` was requested.
  std::optional<Decision> wait(const std::string& id, const std::stop_token& stop,
                               std::chrono::milliseconds timeout);
  /// `result` is an ElicitResult, or null after an error. Ignored when nobody waits for it (any more).
  void answer(const std::string& id, const json& result);
  /// The client is gone: no question is answered any more.
  void close();

 private:
  struct Entry {
    std::vector<std::string> values;
    std::optional<Decision> decision{};
  };

  std::mutex mutex_;
  std::condition_variable_any answered_;
  std::map<std::string, Entry> entries_;
  bool closed_ = false;
};

}  // namespace hutch::mcp
