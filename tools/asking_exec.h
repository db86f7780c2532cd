#pragma once

#include <condition_variable>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>

#include "mcp/question_budget.h"
#include "tools/common.h"

namespace hutch::tools {

/// A command that runs on a thread of its own, while its user may be asked about a host that its network
/// refuses. It outlives the call that started it where that has to end with the question: the call that
/// brings the answer goes on with it.
class AskingExec {
 public:
  AskingExec(Target target, sandbox::ExecSpec spec, std::string command, mcp::QuestionBudget& budget);
  /// Ends the command, unless it has ended.
  ~AskingExec();
  AskingExec(const AskingExec&) = delete;
  AskingExec& operator=(const AskingExec&) = delete;

  const Target& target() const { return target_; }
  /// Serves a call until the command is over; asks what the call can ask. Throws mcp::InputRequired where
  /// that takes another call, with `state` in it.
  sandbox::ExecResult serve(mcp::CallContext& context, Services& services, const std::string& state);
  /// What the user said to the question that is open.
  void decide(const mcp::Decision& decision, Services& services);

 private:
  using Answer = std::function<void(bool allowed)>;
  struct Open {
    net::Refusal refusal;
    std::vector<Answer> waiting;  // connections
  };
  struct Shared;  // with the sandbox, which may ask until it is told not to
  mcp::Question question(const net::Refusal& refusal) const;

  const Target target_;
  const std::string command_;
  const std::shared_ptr<Shared> shared_;
  std::stop_source stop_;
  std::thread thread_;
};

/// Commands whose question was passed on to the user by the end of a call.
class AskingExecs {
 public:
  void add(std::shared_ptr<AskingExec> exec, const std::string& state);
  /// Throws not_found.
  std::shared_ptr<AskingExec> take(const std::string& state);
  mcp::QuestionBudget& budget() { return budget_; }

 private:
  std::mutex mutex_;
  std::map<std::string, std::pair<std::shared_ptr<AskingExec>, Clock::time_point>> all_;
  mcp::QuestionBudget budget_;
};

}  // namespace hutch::tools
