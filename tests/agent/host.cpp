// A server without the rest of it, for test_takeover.py: one Sandbox on the channel of an agent that somebody
// else has started. Requests are lines of JSON on standard input, each run on a thread of its own; the
// answers come on standard output, and so does what a record would hold, whenever that changes.
//
//   agent-host FOLDER AGENT_PID                starts with a new channel
//   agent-host FOLDER AGENT_PID KEPT DEADLINE  takes over; KEPT is the last such record, DEADLINE in
//   milliseconds
#include <fmt/format.h>
#include <signal.h>

#include <iostream>
#include <thread>

#include "sandbox/io_thread.h"
#include "sandbox/sandbox.h"
#include "schema/json.h"

using namespace std::chrono_literals;
using namespace hutch;

namespace {

constexpr auto kLong = 60s;

void say(const json& line) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  std::cout << line.dump(-1, ' ', true, json::error_handler_t::replace) << std::endl;
}

json as_json(const sandbox::KeptProcess& kept) {
  json out = {{"stream", kept.stream},
              {"number", kept.number},
              {"title", kept.title},
              {"hidden", kept.hidden},
              {"has_answers", kept.has_answers},
              {"started_at", kept.started_at.time_since_epoch().count()},
              {"next_unread", kept.next_unread}};
  if (kept.terminal) out["terminal"] = {kept.terminal->rows, kept.terminal->columns};
  if (kept.session) out["session"] = {kept.session->language, kept.session->name, kept.session->split};
  return out;
}

sandbox::KeptProcess from_json(const json& in) {
  sandbox::KeptProcess kept;
  kept.stream = in["stream"];
  kept.number = in["number"];
  kept.title = in["title"];
  kept.hidden = in["hidden"];
  kept.has_answers = in["has_answers"];
  kept.started_at =
      sandbox::WallClock::time_point(sandbox::WallClock::duration(in["started_at"].get<int64_t>()));
  kept.next_unread = in["next_unread"];
  if (in.contains("terminal")) kept.terminal = {in["terminal"][0], in["terminal"][1]};
  if (in.contains("session")) kept.session = {in["session"][0], in["session"][1], in["session"][2]};
  return kept;
}

json as_json(const sandbox::ExecResult& result) {
  return {{"end", sandbox::end_name(result.end)},
          {"exit_code", result.exit_code},
          {"signal", result.signal},
          {"out", result.out},
          {"process_id", result.process_id},
          {"log", result.log},
          {"ms", result.duration.count()}};
}

class Host {
 public:
  Host(const std::string& folder, pid_t agent) : folder_(folder) {
    body_.id = "sbx-test";
    body_.container.pid = agent;
    body_.container.pidfd = pidfd_open(agent);
    body_.log_max_bytes = 64 << 20;
    body_.logs_max_bytes = 256 << 20;
    description_.workdir = "/";
    description_.env = {{"PATH", "/usr/bin:/bin"}};
    description_.created_at = sandbox::WallClock::now();
  }

  void start() {
    make(sandbox::Channel::create(io_.context(), folder_));
    sandbox_->claim(description_, Clock::now());
    channel_->connect(kHello, Clock::now() + kLong);
  }
  void take_over(const json& record, std::chrono::milliseconds within) {
    const auto deadline = Clock::now() + within;
    make(sandbox::Channel::take_over(io_.context(), folder_));
    sandbox::Kept kept{.description = description_, .last_used = sandbox::WallClock::now(), .processes = {}};
    for (const auto& process : record) kept.processes.push_back(from_json(process));
    sandbox_->restore(std::move(kept), kHello.orphan_ttl_ms, deadline);
  }
  json answer(const json& request);

 private:
  static constexpr wire::Hello kHello{.orphan_ttl_ms = 60'000, .ends_in_ms = 0};

  void make(std::shared_ptr<sandbox::Channel> channel) {
    channel_ = body_.channel = std::move(channel);
    sandbox_ = std::make_shared<sandbox::Sandbox>(io_.context(), gauge_, std::move(body_));
    sandbox_->watch({.on_end = [] {}, .on_use = [] {}, .on_processes_change = [this] { say_kept(); }});
  }
  void say_kept() const {
    json all = json::array();
    for (const auto& kept : sandbox_->kept_processes()) all.push_back(as_json(kept));
    say({{"kept", all}});
  }
  json list() const;
  json read(sandbox::BackgroundProcess& process, const json& request) const;

  const std::string folder_;
  sandbox::IoThread io_;
  sandbox::CallGauge gauge_;
  sandbox::Body body_;
  sandbox::Description description_;
  std::shared_ptr<sandbox::Channel> channel_;
  std::shared_ptr<sandbox::Sandbox> sandbox_;
};

json Host::list() const {
  json all = json::array();
  for (const auto& process : sandbox_->processes().list())
    all.push_back({{"number", process->number()},
                   {"title", process->title()},
                   {"running", process->process().running()},
                   {"has_input", process->process().has_input()},
                   {"input_ended", process->process().input_ended()},
                   {"has_terminal", process->has_terminal()}});
  return all;
}

json Host::read(sandbox::BackgroundProcess& process, const json& request) const {
  std::optional<uint64_t> from;
  if (request.contains("from")) from = request["from"].get<uint64_t>();
  const auto piece = process.read(from, request.value("bytes", 1 << 20), Clock::now() + kLong);
  return {{"first", piece.first}, {"printed", piece.printed}, {"bytes", piece.bytes}};
}

json Host::answer(const json& request) {
  const std::string what = request["do"];
  if (what == "run" || what == "background") {
    sandbox::ExecSpec spec;
    spec.command = request["command"];
    spec.background = what == "background";
    spec.timeout = std::chrono::milliseconds(request.value("timeout_ms", 0));
    if (request.value("terminal", false)) spec.terminal.emplace();
    return as_json(sandbox_->exec(spec));
  }
  if (what == "flood") {  // that nobody reads
    sandbox::ExecSpec spec;
    spec.argv = {"yes", "flood"};
    for (int i = 0; i < 8; ++i) (void)sandbox_->start(spec, false, [](int, std::string_view) {});
    return "flooded";
  }
  if (what == "eval") {
    sandbox::EvalSpec spec;
    spec.session = request["session"];
    spec.code = request["code"];
    spec.name = "code";
    spec.merge_output = true;
    spec.language = sandbox::language_of_name(request["language"].get<std::string>());
    const auto result = sandbox_->eval(spec);
    json out = as_json(result);
    out["value"] = result.value.value_or("");
    out["new"] = result.session_new;
    return out;
  }
  if (what == "list") return list();
  if (what == "write_file") {
    const std::string content(request["bytes"].get<size_t>(), 'x');
    (void)sandbox_->write_file(request["path"], content, {}, {});
    return "written";
  }
  const auto process = sandbox_->processes().find(request["number"]);
  if (what == "read") return read(*process, request);
  if (what == "screen") return sandbox::text_of(process->view(Clock::now() + kLong));
  if (what == "write")
    return process->process().write(request["input"].get<std::string>(), {}, Clock::now() + kLong);
  if (what == "end_input") return process->process().end_input(), "ended";
  if (what == "end_tree") process->process().end_tree(0ms);
  if (what == "wait" || what == "end_tree") {
    process->process().wait({}, Clock::now() + kLong, [](const auto& state) { return state.tree_gone; });
    return as_json(sandbox_->result_of(*process));
  }
  throw Error(Errc::invalid_argument, "there is no request " + what);
}

}  // namespace

int main(int argc, char** argv) {
  ::signal(SIGPIPE, SIG_IGN);
  try {
    Host host(argv[1], std::stoi(argv[2]));
    if (argc > 4)
      host.take_over(json::parse(argv[3]), std::chrono::milliseconds(std::stoi(argv[4])));
    else
      host.start();
    say({{"ready", true}});
    std::vector<std::jthread> calls;
    for (std::string line; std::getline(std::cin, line);)
      calls.emplace_back([&host, request = json::parse(line)] {
        json out = {{"id", request["id"]}};
        try {
          out["answer"] = host.answer(request);
        } catch (const Error& e) {
          out["error"] = error_text(e);
        }
        say(out);
      });
  } catch (const Error& e) {
    say({{"error", error_text(e)}, {"code", errc_name(e.code())}});
    return 1;
  }
  return 0;
}
