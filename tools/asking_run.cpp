#include "tools/asking_run.h"

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

/// Valid as long as the call.
std::function<void(const std::string&)> progress_to(const mcp::CallContext& context) {
  if (!context.has_progress()) return {};
  return [&context](const std::string& line) { context.progress(line.empty() ? "running" : line); };
}

bool can_ask(const mcp::CallContext& context, const Services& services, const Run& run) {
  return services.asking != nullptr && context.question_style() != mcp::QuestionStyle::none &&
         run.is_waited_for && run.sandbox->egress();
}

}  // namespace

struct AskingRun::Shared {
  std::mutex mutex;
  std::condition_variable_any changed;
  bool may_ask = true, done = false;
  std::optional<Open> open;
  std::map<std::string, bool> decided;  // about host:port, for as long as this runs
  std::any result;
  std::exception_ptr error;
  std::function<void(const std::string&)> on_progress;

  /// On the I/O thread. False: nobody is asked.
  bool ask(const net::Refusal& refusal, const Answer& answer, const std::string& id,
           mcp::QuestionBudget& budget) {
    const std::lock_guard lock(mutex);
    if (done) return false;
    if (const auto known = decided.find(refusal.rule); known != decided.end()) {
      answer(known->second);
      return true;
    }
    if (open && open->refusal.rule == refusal.rule) {
      open->waiting.push_back(answer);
      return true;
    }
    if (open || !may_ask || !budget.take(id)) return false;
    may_ask = false;
    open = Open{refusal, {}};
    open->waiting.push_back(answer);
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
      decided[open->refusal.rule] = yes;
      open.reset();
    }
    for (const auto& one : waiting) one(yes);
  }

  void progress(const std::string& line) {
    const std::lock_guard lock(mutex);
    if (on_progress) on_progress(line);
  }

  void work(const Run& run, std::stop_token stop) {
    std::any came;
    std::exception_ptr thrown;
    try {
      came = run.work({std::move(stop), [this](const std::string& line) { progress(line); }});
    } catch (...) {
      thrown = std::current_exception();
    }
    {
      const std::lock_guard lock(mutex);
      result = std::move(came);
      error = thrown;
      done = true;
      changed.notify_all();
    }
    answer(false);  // its connections are over, or nobody waits for them any more
  }
};

AskingRun::AskingRun(Run run, mcp::QuestionBudget& budget)
    : run_(std::move(run)),
      shared_(std::make_shared<Shared>()),
      asker_(std::make_shared<const sandbox::Sandbox::Asker>(
          [weak = std::weak_ptr(shared_), id = run_.sandbox->id(), &budget](const net::Refusal& refusal,
                                                                            const Answer& answer) {
            const auto shared = weak.lock();
            return shared && shared->ask(refusal, answer, id, budget);
          })) {
  run_.sandbox->add_asker(asker_);
  thread_ = std::thread([this] { shared_->work(run_, stop_.get_token()); });
}

AskingRun::~AskingRun() {
  stop_.request_stop();
  shared_->answer(false);
  thread_.join();
}

mcp::Question AskingRun::question(const net::Refusal& refusal) const {
  const std::string host = fmt::format("{}:{}", refusal.host, refusal.port);
  return {.message = fmt::format("Code in sandbox {} wants to reach {}, which no rule allows. It runs {}. "
                                 "Allow the connection?",
                                 run_.sandbox->id(), host, mcp::in_quotes(run_.text, 200)),
          .options = {{kOnce, fmt::format("Allow {} for this {}", host, run_.kind)},
                      {kAlways, fmt::format("Allow {} for this sandbox", host)},
                      {kNo, "Do not allow it"}}};
}

void AskingRun::decide(const mcp::Decision& decision, Services& services) {
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
      services.manager.update(run_.sandbox->id(), {.allow = std::vector{rule}});
    } catch (const Error& e) {
      log::warning("{} is allowed for this {} alone: {}", rule, run_.kind, e.what());
    }
  }
  shared_->answer(yes);
}

std::any AskingRun::serve(mcp::CallContext& context, Services& services, const std::string& state) {
  const std::stop_callback on_stop(context.stop(), [this] { stop_.request_stop(); });
  std::unique_lock lock(shared_->mutex);
  shared_->on_progress = progress_to(context);
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
      throw mcp::InputRequired{.question = asked, .subject = run_.sandbox->id(), .state = state};
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
  const std::exception_ptr error = shared_->error;
  std::any result = std::move(shared_->result);
  lock.unlock();
  if (error) std::rethrow_exception(error);
  return result;
}

void AskingRuns::add(std::shared_ptr<AskingRun> run, const std::string& state) {
  std::vector<std::shared_ptr<AskingRun>> gone;  // ends after the lock
  const std::lock_guard lock(mutex_);
  std::erase_if(all_, [&](auto& one) {
    const bool late = one.second.second < Clock::now();
    if (late) gone.push_back(one.second.first);
    return late;
  });
  all_[state] = {std::move(run), Clock::now() + kKeep};
}

std::shared_ptr<AskingRun> AskingRuns::take(const std::string& state) {
  const std::lock_guard lock(mutex_);
  const auto found = all_.find(state);
  if (found == all_.end())
    throw Error(Errc::not_found, "what this answer belongs to is gone: the answer took too long")
        .hint("call again without `requestState`: it is run again then");
  auto run = found->second.first;
  all_.erase(found);
  return run;
}

std::any run_for(mcp::CallContext& context, Services& services, Run run) {
  if (!can_ask(context, services, run)) return run.work({context.stop(), progress_to(context)});
  const std::string state = sys::random_hex(16);
  const auto asking = std::make_shared<AskingRun>(std::move(run), services.asking->budget());
  try {
    return asking->serve(context, services, state);
  } catch (const mcp::InputRequired&) {
    services.asking->add(asking, state);
    throw;
  }
}

std::any go_on_for(mcp::CallContext& context, Services& services) {
  const mcp::Resumed& resumed = *context.resumed();
  const auto run = services.asking->take(resumed.state);
  run->decide(resumed.decision, services);
  return run->serve(context, services, resumed.state);
}

}  // namespace hutch::tools
