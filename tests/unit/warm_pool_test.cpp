#include "sandbox/warm_pool.h"

#include <atomic>
#include <latch>
#include <set>

#include "support.h"

using namespace std::chrono_literals;
using hutch::Clock;
using hutch::Errc;
using hutch::Error;
using hutch::sandbox::Demand;
using hutch::sandbox::PoolHooks;
using hutch::sandbox::PoolSettings;
using hutch::sandbox::WarmPool;

namespace {

/// A pool whose sandboxes are numbers. Everything that happens to one is noted.
class Fixture {
 public:
  explicit Fixture(PoolSettings settings = {}) : pool(settings, hooks()) {}

  template <class Condition>
  bool wait(Condition condition) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, 20s, condition);
  }
  /// Waits until the pool says so; it tells nobody, so this looks again and again.
  template <class Condition>
  bool wait_for_status(Condition condition) {
    for (const auto end = Clock::now() + 20s; Clock::now() < end; std::this_thread::sleep_for(1ms))
      if (const auto status = pool.status(); !status.empty() && condition(status.front())) return true;
    return false;
  }
  void note(std::set<std::string>& where, const std::string& id) {
    const std::lock_guard lock(mutex);
    CHECK(where.insert(id).second);  // twice would be an error wherever it is
    changed.notify_all();
  }

  std::mutex mutex;
  std::condition_variable changed;
  std::set<std::string> built, claimed, discarded, checked;
  std::atomic<bool> build_fails{false}, answers{true};
  std::atomic<int> room{1000};
  WarmPool pool;  // last: its thread uses the above

 private:
  PoolHooks hooks() {
    return {.build =
                [this](const std::string& kind) {
                  if (build_fails) throw Error(Errc::unavailable, "no runtime");
                  std::string id = kind + "-" + std::to_string(++serial_);
                  note(built, id);
                  return id;
                },
            .check =
                [this](const std::string& id) {
                  const std::lock_guard lock(mutex);
                  checked.insert(id);
                  changed.notify_all();
                  return PoolHooks::Health{answers, 4096};
                },
            .discard = [this](const std::string& id) { note(discarded, id); },
            .wait_for_pause = [](const std::stop_token&) {},
            .room =
                [this](uint64_t) {
                  return PoolHooks::Room{room, "a test's limit"};
                }};
  }
  std::atomic<int> serial_{0};
};

}  // namespace

TEST_SUITE("warm pool") {
  TEST_CASE("an announced kind is built up to min, and what is claimed is replaced") {
    Fixture f({.min = 2, .max = 4});
    f.pool.announce("a");
    CHECK_FALSE(f.pool.claim("b"));  // before the start: counted, not built
    f.pool.start();
    REQUIRE(f.wait_for_status([](const auto& s) { return s.ready == 2; }));
    const auto first = f.pool.claim("a");
    REQUIRE(first);
    REQUIRE(f.wait_for_status([](const auto& s) { return s.ready == 2 && s.builds == 3; }));
    CHECK(f.pool.claim("a") != first);
  }

  TEST_CASE("an empty pool hands out nothing and does not wait") {
    Fixture f({.min = 0, .max = 0});
    f.pool.announce("a");
    f.pool.start();
    CHECK_FALSE(f.pool.claim("a"));
    CHECK(f.pool.status().front().misses == 1);
    CHECK(f.built.empty());
  }

  TEST_CASE("64 threads that claim while everything is checked never get the same sandbox twice") {
    Fixture f({.min = 8, .max = 64, .first_check = 0ms, .check_every = 0ms});
    f.pool.announce("a");
    f.pool.start();
    std::latch together(64);
    std::atomic<int> claims{0};
    {
      std::vector<std::jthread> threads;
      for (int i = 0; i < 64; ++i)
        threads.emplace_back([&] {
          together.arrive_and_wait();
          for (const auto end = Clock::now() + 20s; claims < 1000 && Clock::now() < end;)
            if (const auto id = f.pool.claim("a")) f.note(f.claimed, *id), ++claims;
        });
    }
    CHECK(claims >= 1000);
    f.pool.flush();
    const std::lock_guard lock(f.mutex);
    CHECK(f.claimed.size() == static_cast<size_t>(claims));
    for (const auto& id : f.claimed) {
      CHECK(f.built.count(id) == 1);
      CHECK(f.discarded.count(id) == 0);
    }
    CHECK_FALSE(f.checked.empty());
  }

  TEST_CASE("a sandbox that does not answer is replaced, and never once it is claimed") {
    Fixture f({.min = 1, .max = 1, .first_check = 0ms, .check_every = 1h});
    f.answers = false;
    f.pool.announce("a");
    f.pool.start();
    REQUIRE(f.wait([&] { return f.discarded.size() >= 3; }));
    f.answers = true;
    REQUIRE(f.wait_for_status([](const auto& s) { return s.ready == 1 && s.memory_bytes == 4096; }));
    const auto id = f.pool.claim("a");
    REQUIRE(id);
    f.pool.flush();
    CHECK(f.discarded.count(*id) == 0);
  }

  TEST_CASE("failing builds back off, are told, and end with the cause") {
    Fixture f({.min = 1, .max = 1, .first_retry = 20ms});
    f.build_fails = true;
    f.pool.announce("a");
    f.pool.start();
    REQUIRE(f.wait_for_status([](const auto& s) { return s.failures >= 2; }));
    CHECK_CONTAINS(f.pool.status().front().last_error, "no runtime");
    CHECK_FALSE(f.pool.claim("a"));
    f.build_fails = false;
    REQUIRE(f.wait_for_status([](const auto& s) { return s.ready == 1; }));
    CHECK(f.pool.status().front().last_error.empty());
    CHECK(f.pool.status().front().failures < 20);  // 20, 40, 80 ms ... and not a busy loop
  }

  TEST_CASE("without room nothing is built, and the target says what is in the way") {
    Fixture f({.min = 3, .max = 3});
    f.room = 0;
    f.pool.announce("a");
    f.pool.start();
    REQUIRE(f.wait_for_status([](const auto& s) { return s.reason == "a test's limit"; }));
    CHECK(f.built.empty());
    f.room = 10;
    REQUIRE(f.wait_for_status([](const auto& s) { return s.ready == 3; }));
  }

  TEST_CASE("a flush replaces all, a ceiling drains, and what ended by itself is forgotten") {
    Fixture f({.min = 3, .max = 3});
    f.pool.announce("a");
    f.pool.start();
    REQUIRE(f.wait_for_status([](const auto& s) { return s.ready == 3; }));
    CHECK(f.pool.flush() == 3);
    REQUIRE(f.wait_for_status([](const auto& s) { return s.ready == 3 && s.builds >= 6; }));
    CHECK(f.wait([&] { return f.discarded.size() == 3; }));
    f.pool.set_ceiling(1, "memory pressure: warning");
    REQUIRE(f.wait_for_status([](const auto& s) { return s.ready == 1; }));
    CHECK(f.pool.status().front().reason == "memory pressure: warning");
    f.pool.set_ceiling(3, "");
    REQUIRE(f.wait_for_status([](const auto& s) { return s.ready == 3; }));
    const auto evicted = f.pool.evict();
    REQUIRE(evicted);
    REQUIRE(f.wait_for_status([](const auto& s) { return s.ready == 3; }));
    f.pool.forget(*f.built.rbegin());
    REQUIRE(f.wait_for_status([](const auto& s) { return s.ready == 3; }));
    f.pool.stop();
    CHECK_FALSE(f.pool.claim("a"));
  }
}

TEST_SUITE("demand") {
  const auto t0 = Clock::time_point{} + 1000h;

  TEST_CASE("without claims the target is min, whatever the maximum") {
    Demand demand(60s);
    CHECK(demand.target(2, 9, t0).count == 2);
    CHECK_CONTAINS(demand.target(2, 9, t0).reason, "no claim in 60 s");
  }

  TEST_CASE("the target is one more than the most claims within a refill, and falls after the cooldown") {
    Demand demand(60s);
    demand.note_build(10ms);
    for (int i = 0; i < 5; ++i) demand.note_claim(t0 + i * 1ms);
    demand.note_claim(t0 + 10s);
    CHECK(demand.target(1, 100, t0 + 10s).count == 6);
    CHECK(demand.target(1, 4, t0 + 10s).count == 4);
    CHECK_CONTAINS(demand.target(1, 4, t0 + 10s).reason, "pool.max");
    CHECK(demand.target(1, 100, t0 + 61s).count == 2);
    CHECK(demand.target(1, 100, t0 + 71s).count == 1);
    CHECK_FALSE(demand.changes_at());
  }

  TEST_CASE("slow builds make the same arrivals need more") {
    Demand quick(60s), slow(60s);
    quick.note_build(10ms);
    slow.note_build(500ms);
    for (int i = 0; i < 20; ++i) quick.note_claim(t0 + i * 50ms), slow.note_claim(t0 + i * 50ms);
    CHECK(quick.target(1, 100, t0 + 1s).count == 4);
    CHECK(slow.target(1, 100, t0 + 1s).count == 21);
  }
}
