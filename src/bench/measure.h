#pragma once

#include <functional>
#include <optional>

#include "base/process.h"
#include "bench/samples.h"

namespace hutch::bench {

/// How much is measured.
struct Plan {
  size_t spaced_n = 60;   // single operations with a pause before each
  double pause_ms = 100;  // long enough that processors sleep and a pool refills
  double burst_s = 1.5;   // then one after the other without a pause, for this long
  size_t burst_max = 20'000;
  double sustained_s = 4;  // of each number of clients
  double hit_ratio_s = 10;
  double idle_s = 5;  // in which idle sandboxes are watched
  std::vector<size_t> memory_counts{10, 100};
};

/// For what takes a good part of a second.
Plan few(Plan plan);

/// One thing whose time is taken. Only what run() says counts; prepare() and finish() stand around a batch of
/// runs and outside of all figures.
struct Operation {
  std::function<void(size_t n)> prepare = [](size_t) {};
  std::function<double()> run;  // ms
  std::function<void()> finish = [] {};
  size_t batch = 0;  // runs of a burst between prepare and finish; 0: all of them
};

/// Single operations, each after a pause: their summary.
Json measure_spaced(const Operation& operation, const Plan& plan);
/// One after the other: their summary, and "cpu_ms", the processor time that the whole machine spent per
/// operation, with the client, daemons and whatever else ran.
Json measure_burst(const Operation& operation, const Plan& plan);
/// {"spaced", "burst"}, after one run for nothing: caches, lazily made folders.
Json measure(const Operation& operation, const Plan& plan);

/// Several ways to do one thing, in turn, so that what else the machine does meets all of them alike. The
/// first one's figures as measure() gives them, and those of the others as "beside": [{"what", "spaced",
/// "burst"}]. With `floor`, the number of a way, those of each other have "added": {"to", "spaced", "burst"},
/// what it took longer than that one in the same round.
struct Way {
  const char* what;  // for people
  Operation operation;
};
Json measure_in_turn(const std::vector<Way>& ways, const Plan& plan, std::optional<size_t> floor = {});

/// An operation that starts a process and waits for its end. Anything but exit code 0 is an Error, with what
/// the process said on stderr. "{id}" in argv becomes a name that no other process got.
Operation run_process(std::vector<std::string> argv, std::vector<std::string> env);
double process_ms(const std::vector<std::string>& argv, const std::vector<std::string>& env);

/// `loop` on each of `threads` threads, again and again for `seconds`. loop(thread) does one cycle.
/// {"clients", "per_s", "cpu_ms" per cycle, and the summary of single cycles}. The first Error of a thread is
/// thrown.
Json sustain(size_t threads, double seconds, const std::function<void(size_t thread)>& loop);

/// The path of a program as a sandbox finds it: in /usr, whatever stands before that in the user's PATH.
/// Throws Error(unavailable).
std::string program_as_inside(const std::string& name);
/// All of this process' environment, as SpawnOptions wants it.
std::vector<std::string> own_environment();

}  // namespace hutch::bench
