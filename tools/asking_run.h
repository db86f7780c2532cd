#pragma once

#include <any>
#include <condition_variable>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "mcp/question_budget.h"
#include "tools/common.h"

namespace hutch::tools {

/// How code in a sandbox and the call that it runs for know of each other: the call may end before it.
struct RunControls {
  std::stop_token stop;                                 // ends the code
  std::function<void(const std::string&)> on_progress;  // the last line printed; empty: nobody listens
};

/// What a call runs in a sandbox.
struct Run {
  std::shared_ptr<sandbox::Sandbox> sandbox;
  std::string kind, text;     // for the user who is asked: "command", and its line
  bool is_waited_for = true;  // or nobody is asked for it
  /// Called once. May outlive the call; what comes of it is known to the tool alone.
  std::function<std::any(const RunControls&)> work;
};

/// Does the work of a call, or goes on with it in the call that brings its user's answer. Where host and
/// sandbox have it, the user is asked meanwhile about hosts that the network refuses. Throws
/// mcp::InputRequired where the answer takes another call, and what the work throws.
std::any run_for(mcp::CallContext& context, Services& services, Run run);
std::any go_on_for(mcp::CallContext& context, Services& services);

/// A run on a thread of its own, while its user may be asked. It outlives the call that started it where that
/// has to end with the question.
class AskingRun {
 public:
  AskingRun(Run run, mcp::QuestionBudget& budget);
  /// Ends the code, unless it has ended.
  ~AskingRun();
  AskingRun(const AskingRun&) = delete;
  AskingRun& operator=(const AskingRun&) = delete;

  /// Serves a call until the work is over; asks what the call can ask. Throws mcp::InputRequired where that
  /// takes another call, with `state` in it.
  std::any serve(mcp::CallContext& context, Services& services, const std::string& state);
  /// What the user said to the question that is open.
  void decide(const mcp::Decision& decision, Services& services);

 private:
  using Answer = std::function<void(bool allowed)>;
  struct Open {
    net::Refusal refusal;
    std::vector<Answer> waiting;  // connections
  };
  struct Shared;  // with the sandbox, which may ask until this ends, and with the thread
  mcp::Question question(const net::Refusal& refusal) const;

  const Run run_;
  const std::shared_ptr<Shared> shared_;
  const std::shared_ptr<const sandbox::Sandbox::Asker> asker_;
  std::stop_source stop_;
  std::thread thread_;
};

/// Runs whose question was passed on to the user by the end of a call.
class AskingRuns {
 public:
  void add(std::shared_ptr<AskingRun> run, const std::string& state);
  /// Throws not_found.
  std::shared_ptr<AskingRun> take(const std::string& state);
  mcp::QuestionBudget& budget() { return budget_; }

 private:
  std::mutex mutex_;
  std::map<std::string, std::pair<std::shared_ptr<AskingRun>, Clock::time_point>> all_;
  mcp::QuestionBudget budget_;
};

}  // namespace hutch::tools
