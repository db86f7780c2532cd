#include "tools/asking_exec.h"

#include <fmt/format.h>

#include "base/log.h"
#include "base/sys.h"

namespace hutch::tools {

using namespace std::chrono_literals;

namespace {

/// Many hosts give a call up after 60 s, and the question with it.
constexpr auto kAnswerWithin = 45s;
/// That long the answer may take where the call has ended.
constexpr auto kKeep = 10min;
constexpr const char *kOnce = "once", *kAlways = "sandbox", *kNo = "no";

}  // namespace

struct AskingExec::Shared {
  std::mutex mutex;
  std::condition_variable_any changed;
  bool may_ask = true, done = false;
  std::optional<Open> open;
  std::set<std::string> allowed;  // host:port, for as long as this command runs
  sandbox::ExecResult result;
  std::exception_ptr error;
  std::function<void(const std::string&)> on_progress;

  /// On the I/O thread. False: nobody is asked.
  bool ask(const net::Refusal& refusal, Answer answer, const std::string& id, mcp::QuestionBudget& budget) {
    const std::lock_guard lock(mutex);
    if (allowed.contains(refusal.rule)) {
      answer(true);
      return true;
    }
    if (open && open->refusal.rule == refusal.rule) {
      open->waiting.push_back(std::move(answer));
      return true;
    }
    if (done || open || !may_ask || !budget.take(id)) return false;
    may_ask = false;
    open = Open{refusal, {}};
    open->waiting.push_back(std::move(answer));
    changed.notify_all();
    return true;
  }

  /// Whoever waits is answered, without the lock.
  void answer(bool yes) {
    std::vector<Answer> waiting;
    {
      const std::lock_guard lock(mutex);
      if (!open) return;
      waiting.swap(open->waiting);
      if (yes) allowed.insert(open->refusal.rule);
      open.reset();
    }
    for (const auto& one : waiting) one(yes);
  }
};

AskingExec::AskingExec(Target target, sandbox::ExecSpec spec, std::string command,
                       mcp::QuestionBudget& budget)
    : target_(std::move(target)), command_(std::move(command)), shared_(std::make_shared<Shared>()) {
  spec.stop = stop_.get_token();
  if (spec.on_progress)
    spec.on_progress = [shared = shared_](const std::string& line) {
      const std::lock_guard lock(shared->mutex);
      if (shared->on_progress) shared->on_progress(line);
    };
  target_.sandbox->set_asker([weak = std::weak_ptr(shared_), id = target_.sandbox->id(), &budget](
                                 const net::Refusal& refusal, Answer answer) {
    const auto shared = weak.lock();
    return shared && shared->ask(refusal, std::move(answer), id, budget);
  });
  thread_ = std::thread([shared = shared_, sandbox = target_.sandbox, spec = std::move(spec)] {
    sandbox::ExecResult result;
    std::exception_ptr error;
    try {
      result = sandbox->exec(spec);
    } catch (...) {
      error = std::current_exception();
    }
    {
      const std::lock_guard lock(shared->mutex);
      shared->result = std::move(result);
      shared->error = error;
      shared->done = true;
      shared->changed.notify_all();
    }
    shared->answer(false);  // its connections are over, or nobody waits for them any more
  });
}

AskingExec::~AskingExec() {
  stop_.request_stop();
  shared_->answer(false);
  thread_.join();
}

mcp::Question AskingExec::question(const net::Refusal& refusal) const {
  const std::string host = fmt::format("{}:{}", refusal.host, refusal.port);
  return {.message = fmt::format("Code in sandbox {} wants to reach {}, which no rule allows. It runs {}. "
                                 "Allow the connection?",
                                 target_.sandbox->id(), host, mcp::in_quotes(command_, 200)),
          .options = {{kOnce, fmt::format("Allow {} for this command", host)},
                      {kAlways, fmt::format("Allow {} for this sandbox", host)},
                      {kNo, "Do not allow it"}}};
}

void AskingExec::decide(const mcp::Decision& decision, Services& services) {
  std::string rule;
  {
    const std::lock_guard lock(shared_->mutex);
    if (!shared_->open) return;
    rule = shared_->open->refusal.rule;
  }
  const bool chosen = decision.kind == mcp::Decision::Kind::chosen;
  bool yes = chosen && (decision.choice == kOnce || decision.choice == kAlways);
  if (chosen && decision.choice == kAlways) {
    try {
      services.manager.update(target_.sandbox->id(), {.allow = std::vector{rule}});
    } catch (const Error& e) {
      log::warning("{} is allowed for one command only: {}", rule, e.what());
    }
  }
  shared_->answer(yes);
}

sandbox::ExecResult AskingExec::serve(mcp::CallContext& context, Services& services,
                                      const std::string& state) {
  const std::stop_callback on_stop(context.stop(), [this] { stop_.request_stop(); });
  std::unique_lock lock(shared_->mutex);
  shared_->on_progress = [&context](const std::string& line) {
    context.progress(line.empty() ? "running" : line);
  };
  // The context ends with the call.
  const std::shared_ptr<void> detach(nullptr, [this](void*) {
    const std::lock_guard again(shared_->mutex);
    shared_->on_progress = nullptr;
  });
  for (;;) {
    shared_->changed.wait(lock, [&] { return shared_->done || shared_->open; });
    if (shared_->done) break;
    const mcp::Question asked = question(shared_->open->refusal);
    lock.unlock();
    if (context.question_style() == mcp::QuestionStyle::round_trip)
      throw mcp::InputRequired{.question = asked, .subject = target_.sandbox->id(), .state = state};
    {
      std::stop_source over;
      const std::jthread watcher([&over, shared = shared_](const std::stop_token& stop) {
        std::unique_lock watching(shared->mutex);
        if (shared->changed.wait(watching, stop, [&] { return shared->done; })) over.request_stop();
      });
      decide(context.ask(asked, kAnswerWithin, over.get_token()), services);
    }  // the watcher needs the lock to end
    lock.lock();
  }
  if (shared_->error) {
    const std::exception_ptr error = shared_->error;
    lock.unlock();
    std::rethrow_exception(error);
  }
  sandbox::ExecResult result = shared_->result;
  lock.unlock();
  return result;
}

void AskingExecs::add(std::shared_ptr<AskingExec> exec, const std::string& state) {
  std::vector<std::shared_ptr<AskingExec>> gone;  // ends after the lock
  const std::lock_guard lock(mutex_);
  std::erase_if(all_, [&](auto& one) {
    const bool late = one.second.second < Clock::now();
    if (late) gone.push_back(one.second.first);
    return late;
  });
  all_[state] = {std::move(exec), Clock::now() + kKeep};
}

std::shared_ptr<AskingExec> AskingExecs::take(const std::string& state) {
  const std::lock_guard lock(mutex_);
  const auto found = all_.find(state);
  if (found == all_.end())
    throw Error(Errc::not_found, "the command that this answer belongs to is gone")
        .hint("run it again with sandbox_exec");
  auto exec = found->second.first;
  all_.erase(found);
  return exec;
}

}  // namespace hutch::tools
