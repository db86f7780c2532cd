#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <variant>

#include "mcp/question.h"
#include "mcp/versions.h"

namespace hutch::mcp {

/// The `requestState` of a call that ends with a question: the client keeps it and brings it back with the
/// answer. It is good once, for the same tool with the same arguments, for a while, and in this process only.
/// Thread-safe.
class RequestStates {
 public:
  using Clock = std::chrono::steady_clock;

  /// `now` is for tests.
  explicit RequestStates(std::chrono::milliseconds lifetime,
                         std::function<Clock::time_point()> now = Clock::now);

  std::string seal(const std::string& tool, const json& arguments, const InputRequired& required) const;
  /// Uses the state up. `responses`: the client's `inputResponses`.
  std::variant<Resumed, ProtocolError> unseal(const std::string& tool, const json& arguments,
                                              const std::string& state, const json& responses);

 private:
  std::string mac(std::string_view payload) const;
  int64_t now_ms() const;
  bool use_up(const std::string& id, int64_t expires_ms);

  const std::string key_;
  const std::chrono::milliseconds lifetime_;
  const std::function<Clock::time_point()> now_;
  std::mutex mutex_;
  std::map<std::string, int64_t> used_;  // until when they would have been good
};

}  // namespace hutch::mcp
