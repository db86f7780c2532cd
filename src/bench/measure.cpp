#include "bench/measure.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>

#include "base/sys.h"
#include "bench/machine.h"
#include "bench/mcp_client.h"

namespace hutch::bench {

using namespace std::chrono_literals;

namespace {

constexpr size_t kBurstMin = 3;

std::vector<std::string> with_fresh_id(std::vector<std::string> argv) {
  static std::atomic<unsigned> serial{0};
  for (auto& word : argv)
    if (const size_t at = word.find("{id}"); at != std::string::npos)
      word.replace(at, 4, fmt::format("hutch-bench-{}-{}", ::getpid(), serial++));
  return argv;
}

/// Of one of several ways.
struct Times {
  Samples spaced, burst;
  double busy_ms = 0;
};

Json figures_of(const Times& times) {
  Json out = {{"spaced", times.spaced.summary()}, {"burst", times.burst.summary()}};
  out["burst"]["cpu_ms"] = times.busy_ms / static_cast<double>(times.burst.size());
  return out;
}

Json added_to(const Times& floor, const char* what, const Times& times) {
  return {{"to", what},
          {"spaced", times.spaced.minus(floor.spaced).summary()},
          {"burst", times.burst.minus(floor.burst).summary()}};
}

}  // namespace

Plan few(Plan plan) {
  plan.spaced_n = std::min<size_t>(plan.spaced_n / 3, 7);
  plan.burst_s = 0;
  return plan;
}

Json measure_spaced(const Operation& operation, const Plan& plan) {
  Samples samples;
  for (size_t i = 0; i < plan.spaced_n; ++i) {
    operation.prepare(1);
    sleep_ms(plan.pause_ms);
    samples.add(operation.run());
    operation.finish();
  }
  return samples.summary();
}

Json measure_burst(const Operation& operation, const Plan& plan) {
  Samples samples;
  double busy_ms = 0;
  const auto end =
      Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(plan.burst_s));
  const auto more = [&] {
    return samples.size() < plan.burst_max && (samples.size() < kBurstMin || Clock::now() < end);
  };
  while (more()) {
    check_interrupted();
    const size_t batch = operation.batch == 0 ? plan.burst_max : operation.batch;
    operation.prepare(batch);
    const double before = machine_busy_ms();
    for (size_t i = 0; i < batch && (operation.batch != 0 || more()); ++i) samples.add(operation.run());
    busy_ms += machine_busy_ms() - before;
    operation.finish();
  }
  Json out = samples.summary();
  out["cpu_ms"] = busy_ms / static_cast<double>(samples.size());
  return out;
}

Json measure(const Operation& operation, const Plan& plan) {
  operation.prepare(1);
  (void)operation.run();
  operation.finish();
  Json spaced = measure_spaced(operation, plan);
  return {{"spaced", std::move(spaced)}, {"burst", measure_burst(operation, plan)}};
}

Json measure_in_turn(const std::vector<Way>& ways, const Plan& plan, std::optional<size_t> floor) {
  std::vector<Times> times(ways.size());
  const auto round = [&](const auto& take) {
    for (size_t i = 0; i < ways.size(); ++i) {
      check_interrupted();
      ways[i].operation.prepare(1);
      take(times[i], ways[i].operation);
      ways[i].operation.finish();
    }
  };
  round([](Times&, const Operation& operation) { (void)operation.run(); });
  for (size_t n = 0; n < plan.spaced_n; ++n)
    round([&](Times& to, const Operation& operation) {
      sleep_ms(plan.pause_ms);
      to.spaced.add(operation.run());
    });
  const auto start = Clock::now();
  for (size_t n = 0; n < plan.burst_max && (n < kBurstMin || ms_since(start) < plan.burst_s * 1000); ++n)
    round([](Times& to, const Operation& operation) {
      const double before = machine_busy_ms();
      to.burst.add(operation.run());
      to.busy_ms += machine_busy_ms() - before;
    });
  const auto figures = [&](size_t i) {
    Json out = figures_of(times[i]);
    if (floor && i != *floor) out["added"] = added_to(times[*floor], ways[*floor].what, times[i]);
    return out;
  };
  Json out = figures(0);
  out["beside"] = Json::array();
  for (size_t i = 1; i < ways.size(); ++i) {
    out["beside"].push_back({{"what", ways[i].what}});
    out["beside"].back().update(figures(i));
  }
  return out;
}

double process_ms(const std::vector<std::string>& argv, const std::vector<std::string>& env) {
  // One for all processes of a thread: what is there afterwards is the last one's.
  thread_local const UniqueFd said(::memfd_create("stderr", MFD_CLOEXEC));
  const SpawnOptions options{
      .argv = with_fresh_id(argv), .env = env, .stdio = {-1, -1, said.get()}, .fds = {}};
  const auto start = Clock::now();
  Process process = Process::spawn(options);
  const ExitStatus status = process.wait(start + 60s);
  const double ms = ms_since(start);
  if (!status.ok())
    throw Error(Errc::internal, fmt::format("{} ended with {} {}: {}", fmt::join(options.argv, " "),
                                            status.signal != 0 ? "signal" : "exit code",
                                            status.signal != 0 ? status.signal : status.code, tail_of(said)));
  return ms;
}

Operation run_process(std::vector<std::string> argv, std::vector<std::string> env) {
  return {.run = [argv = std::move(argv), env = std::move(env)] { return process_ms(argv, env); }};
}

Json sustain(size_t threads, double seconds, const std::function<void(size_t)>& loop) {
  Samples all;
  std::mutex mutex;  // of `all` and `failure`
  std::exception_ptr failure;
  const double busy_before = machine_busy_ms();
  const auto start = Clock::now();
  {
    std::vector<std::jthread> running;
    for (size_t thread = 0; thread < threads; ++thread)
      running.emplace_back([&, thread] {
        Samples mine;
        try {
          while (ms_since(start) < seconds * 1000) {
            check_interrupted();
            const auto begun = Clock::now();
            loop(thread);
            mine.add(ms_since(begun));
          }
        } catch (...) {
          const std::lock_guard lock(mutex);
          failure = std::current_exception();
        }
        const std::lock_guard lock(mutex);
        all.add(mine);
      });
  }
  const double took_s = ms_since(start) / 1000, busy_ms = machine_busy_ms() - busy_before;
  if (failure) std::rethrow_exception(failure);
  const auto n = static_cast<double>(std::max<size_t>(all.size(), 1));
  Json out = {{"clients", threads}, {"seconds", took_s}, {"per_s", static_cast<double>(all.size()) / took_s}};
  out.update(all.summary());
  out["cpu_ms"] = busy_ms / n;
  return out;
}

std::string program_as_inside(const std::string& name) {
  std::string path = "/usr/bin/" + name;
  if (!sys::exists(path)) path = find_program(name);
  if (path.empty()) throw Error(Errc::unavailable, name + " is not in PATH");
  return path;
}

std::vector<std::string> own_environment() {
  std::vector<std::string> out;
  for (char** variable = environ; *variable != nullptr; ++variable) out.emplace_back(*variable);
  return out;
}

}  // namespace hutch::bench
