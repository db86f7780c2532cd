#include "bench/bench.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <filesystem>
#include <functional>

#include "base/error.h"
#include "base/sys.h"
#include "bench/floors.h"
#include "bench/machine.h"
#include "bench/report.h"
#include "bench/scenarios.h"

namespace hutch::bench {

namespace {

constexpr int kFailed = 1, kSignalled = 128;

Plan plan_for(Length length) {
  if (length == Length::quick)
    return {.spaced_n = 10,
            .pause_ms = 100,
            .burst_s = 0.3,
            .burst_max = 2000,
            .sustained_s = 0.5,
            .hit_ratio_s = 2,
            .idle_s = 1,
            .memory_counts = {10}};
  if (length == Length::full)
    return {.spaced_n = 300,
            .pause_ms = 100,
            .burst_s = 10,
            .burst_max = 100'000,
            .sustained_s = 60,
            .hit_ratio_s = 60,
            .idle_s = 5,
            .memory_counts = {10, 100, 500}};
  return {};
}

/// One thing to measure: a floor, a scenario or a peer.
struct Job {
  std::string name;     // as --only knows it
  std::string title;    // in the result
  const char* section;  // of the result
  std::function<Json()> run;
};

std::vector<Job> all_jobs(const Context& context, const std::vector<Peer>& peers) {
  std::vector<Job> jobs;
  // First, since they fork: no thread has been started yet.
  for (const auto& floor : floors())
    jobs.push_back({floor.name, floor.name, "floors", [&floor, &context] {
                      Json out = {{"what", floor.what}};
                      out.update(floor.run(context.plan));
                      return out;
                    }});
  for (const auto* list : {&call_scenarios(), &life_scenarios(), &beginning_scenarios(), &port_scenarios(),
                           &egress_scenarios(), &memory_scenarios(), &neighbour_scenarios()})
    for (const auto& scenario : *list)
      jobs.push_back({scenario.name, scenario.name, "scenarios", [&scenario, &context] {
                        Json out = {{"what", scenario.what}};
                        out.update(scenario.run(context));
                        return out;
                      }});
  for (const auto& peer : peers)
    if (!is_relay(peer))
      jobs.push_back({"peer_" + peer.name, peer.name, "peers",
                      [&peer, &context] { return run_peer(peer, context.plan); }});
  return jobs;
}

std::vector<Job> chosen(std::vector<Job> jobs, const std::vector<std::string>& only) {
  if (only.empty()) return jobs;
  for (const auto& word : only) {
    if (std::ranges::any_of(jobs, [&](const Job& job) { return job.name.starts_with(word); })) continue;
    std::vector<std::string> names;
    for (const auto& job : jobs) names.push_back(job.name);
    throw Error(Errc::invalid_argument, fmt::format("there is no scenario '{}'", word))
        .hint(fmt::format("--only takes the beginnings of: {}", fmt::join(names, ", ")));
  }
  std::erase_if(jobs, [&](const Job& job) {
    return std::ranges::none_of(only, [&](const std::string& word) { return job.name.starts_with(word); });
  });
  return jobs;
}

/// A folder that is removed with all that is in it.
class TempFolder {
 public:
  TempFolder() {
    const char* parent = std::getenv("TMPDIR");
    path_ = fmt::format("{}/hutch-bench-XXXXXX", parent != nullptr && *parent != '\0' ? parent : "/tmp");
    if (::mkdtemp(path_.data()) == nullptr) throw sys_error(errno, "mkdtemp", path_);
  }
  ~TempFolder() {
    // Servers that have just ended may still be removing their own folders in it.
    for (int i = 0; i < 50 && !sys::remove_tree(path_); ++i) ::usleep(100'000);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

std::string now_utc() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

Json run_job(const Job& job) {
  Json entry = {{"name", job.title}};
  try {
    entry.update(job.run());
  } catch (const Error& e) {
    entry["failed"] = error_text(e);
  }
  return entry;
}

const char* length_name(Length length) {
  return length == Length::quick ? "quick" : length == Length::full ? "long" : "default";
}

void write_json(const BenchOptions& options, const Json& result) {
  if (options.json_file)
    sys::replace_file(*options.json_file, result.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace

int run(const BenchOptions& options) {
  ::signal(SIGPIPE, SIG_IGN);
  hold_signals();
  const std::vector<Peer> peers = options.peers_file ? load_peers(*options.peers_file) : find_peers();
  const TempFolder home;
  std::vector<Peer> relays = peers;
  std::erase_if(relays, [](const Peer& peer) { return !is_relay(peer); });
  const Context context = make_context(std::filesystem::read_symlink("/proc/self/exe"), home.path(),
                                       plan_for(options.length), std::move(relays));
  const std::vector<Job> jobs = chosen(all_jobs(context, peers), options.only);

  std::vector<std::string> warnings;
  Json result = {{"date", now_utc()},
                 {"length", length_name(options.length)},
                 {"machine", describe_machine()},
                 {"build", describe_build(options.version, warnings)},
                 {"pool", context.can_empty_pool}};
  try {
    result["background_load"] = background_load(1);
    if (result["background_load"] > 0.05)
      warnings.push_back(
          fmt::format("{:.0f} % of the processors are busy with other things: times are too long",
                      100 * result["background_load"].get<double>()));
    result["warnings"] = warnings;
    for (const auto& warning : warnings) fmt::print(stderr, "warning: {}\n", warning);
    for (const char* section : {"floors", "scenarios", "peers"}) result[section] = Json::array();
    bool failed = false;
    for (const auto& job : jobs) {
      Json entry = run_job(job);
      failed = failed || entry.contains("failed");
      fmt::print(stderr, "{}\n", progress_line(entry));
      result[job.section].push_back(std::move(entry));
    }
    write_json(options, result);
    fmt::print("{}", to_text(result));
    return failed ? kFailed : 0;
  } catch (const Interrupted& interrupted) {
    fmt::print(stderr, "hutch bench: stopped; nothing was written\n");
    return kSignalled + interrupted.signal;
  }
}

}  // namespace hutch::bench
