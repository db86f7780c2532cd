#include "sandbox/pressure_monitor.h"

#include <atomic>
#include <set>

#include "support.h"

using namespace hutch::sandbox;
using namespace std::chrono_literals;
using hutch::Clock;
using hutch::Errc;
using hutch::Error;

namespace {

constexpr uint64_t kMiB = 1 << 20;

/// Sandboxes that are a number of bytes and what was done to them.
class Host {
 public:
  explicit Host(std::chrono::seconds min_stay = 0s)
      : monitor({.bands = {{20, 25, 10}, {12, 16, 20}, {6, 9, 40}, {3, 5, 60}, min_stay}, .interval = 1ms},
                hooks()) {}

  template <class Condition>
  bool wait(Condition condition) {
    for (const auto end = Clock::now() + 20s; Clock::now() < end; std::this_thread::sleep_for(1ms)) {
      const std::lock_guard lock(mutex);
      if (condition()) return true;
    }
    return false;
  }
  void add(const std::string& id) {
    const std::lock_guard lock(mutex);
    used[id] = 100 * kMiB;
    squeezed[id] = {};
  }

  std::mutex mutex;
  std::map<std::string, uint64_t> used;
  std::map<std::string, Squeeze> squeezed;
  std::map<std::string, std::string> ended;
  bool drained = false;
  std::atomic<double> free{90};
  std::atomic<int> looks{0}, refusals{0};
  PressureMonitor monitor;  // last: its thread uses the above

 private:
  PressureHooks hooks() {
    return {.figures =
                [this] {
                  ++looks;
                  return PressureFigures{.total_bytes = 1000 * kMiB,
                                         .available_bytes = static_cast<uint64_t>(free * 10) * kMiB};
                },
            .any =
                [this] {
                  const std::lock_guard lock(mutex);
                  return !used.empty();
                },
            .has_soft_limit = [] { return true; },
            .sandboxes =
                [this] {
                  const std::lock_guard lock(mutex);
                  std::vector<PressuredSandbox> out;
                  for (const auto& [id, bytes] : used)
                    out.push_back({.id = id,
                                   .used_bytes = bytes,
                                   .asked_bytes = 1000 * kMiB,
                                   .asked_cpus = 2,
                                   .idle_for = 5s});
                  return out;
                },
            .squeeze =
                [this](const std::string& id, const Squeeze& squeeze) {
                  if (refusals > 0 && squeeze == Squeeze{}) {
                    --refusals;
                    throw Error(Errc::conflict, "not yet");
                  }
                  const std::lock_guard lock(mutex);
                  squeezed[id] = squeeze;
                  return PressureHooks::Applied{squeeze.frozen, "done"};
                },
            .end =
                [this](const std::string& id, const std::string& cause) {
                  const std::lock_guard lock(mutex);
                  ended[id] = cause;
                  used.erase(id);
                },
            .drain_warm =
                [this](bool drain, const std::string&) {
                  const std::lock_guard lock(mutex);
                  drained = drain;
                }};
  }
};

}  // namespace

TEST_SUITE("memory pressure: the monitor") {
  TEST_CASE("it costs nothing while there is no sandbox, and looks as soon as there is one") {
    Host host;
    host.monitor.wake();
    REQUIRE(host.wait([&] { return host.looks == 1; }));
    std::this_thread::sleep_for(20ms);
    CHECK(host.looks == 1);
    host.add("a");
    host.monitor.wake();
    CHECK(host.wait([&] { return host.looks > 5; }));
  }

  TEST_CASE("each level does its part, and everything is given back") {
    Host host;
    host.add("a");
    host.monitor.wake();
    host.free = 19;
    REQUIRE(host.wait([&] { return host.drained; }));
    CHECK(host.squeezed.at("a") == Squeeze{});
    host.free = 11;
    REQUIRE(host.wait([&] { return host.squeezed.at("a").memory_bytes && !host.squeezed.at("a").frozen; }));
    host.add("b");
    REQUIRE(host.wait([&] { return host.squeezed.at("b").memory_bytes.has_value(); }));
    host.free = 5;
    REQUIRE(host.wait([&] { return host.squeezed.at("a").frozen && host.squeezed.at("b").frozen; }));
    CHECK(host.monitor.status().sandboxes.at("a").frozen);
    host.refusals = 3;  // whoever cannot be given back at once is so later
    host.free = 90;
    REQUIRE(
        host.wait([&] { return host.squeezed.at("a") == Squeeze{} && host.squeezed.at("b") == Squeeze{}; }));
    REQUIRE(host.wait([&] { return !host.drained && host.monitor.status().sandboxes.empty(); }));
    CHECK(host.ended.empty());
  }

  TEST_CASE("at emergency one after the other is ended until it is over, with the cause") {
    Host host;
    for (const char* id : {"a", "b", "c"}) host.add(id);
    host.monitor.wake();
    host.free = 1;
    REQUIRE(host.wait([&] { return !host.ended.empty(); }));
    const std::string expected =
        "it was ended because the host ran out of memory: 10 MB of 1000 MB are available (1 %)";
    CHECK(host.ended.begin()->second == expected);
    CHECK(host.wait([&] { return host.ended.size() == 3; }));
  }

  TEST_CASE("from critical on nothing new is made, and the error tells why and when to try again") {
    Host host(30s);
    CHECK_NOTHROW(host.monitor.admit());
    host.free = 5;
    // Nobody looks: it finds out by itself.
    std::this_thread::sleep_for(5ms);
    try {
      host.monitor.admit();
      FAIL("it was admitted");
    } catch (const Error& e) {
      CHECK(e.code() == Errc::unavailable);
      CHECK(std::string(e.what()) ==
            "memory pressure is critical: 50 MB of 1000 MB are available (5 %), so no sandbox is made now");
      CHECK(e.hint().starts_with("try again in 30 s; it is over when 9 % are available"));
      CHECK(host.monitor.status().last_refusal == e.what());
    }
  }
}
