#include "sandbox/warm_pool.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "base/log.h"

namespace hutch::sandbox {

using namespace std::chrono_literals;

namespace {

constexpr Clock::duration kLongestRetry = 60s;
constexpr Clock::duration kKeptAfterUse = 10min;

}  // namespace

WarmPool::WarmPool(PoolSettings settings, PoolHooks hooks)
    : settings_(settings), hooks_(std::move(hooks)), ceiling_(std::numeric_limits<int>::max()) {}

WarmPool::~WarmPool() {
  stop();
}

void WarmPool::start() {
  const std::lock_guard lock(mutex_);
  if (stopped_ || settings_.max <= 0 || keeper_.joinable()) return;
  keeper_ = std::jthread([this](const std::stop_token& stop) { keep(stop); });
}

void WarmPool::stop() noexcept {
  const std::lock_guard lock(mutex_);
  stopped_ = true;
  keeper_.request_stop();
}

WarmPool::Kind& WarmPool::kind_of(const std::string& name) {
  return kinds_.try_emplace(name, settings_.cooldown).first->second;
}

void WarmPool::announce(const std::string& kind) {
  const std::lock_guard lock(mutex_);
  kind_of(kind).announced = true;
  look_again_ = true;
  changed_.notify_all();
}

std::optional<std::string> WarmPool::claim(const std::string& name, bool rare) {
  const std::lock_guard lock(mutex_);
  Kind& kind = kind_of(name);
  const auto last = kind.demand.last_claim();
  kind.claimed_once = rare && (!last || *last + kKeptAfterUse <= Clock::now());
  kind.demand.note_claim(Clock::now());
  look_again_ = true;
  changed_.notify_all();
  if (stopped_ || kind.ready.empty()) {
    ++kind.misses;
    return std::nullopt;
  }
  // The youngest: what it will use is still in the caches.
  std::string id = std::move(kind.ready.back().id);
  kind.ready.pop_back();
  ++kind.hits;
  return id;
}

void WarmPool::put_back(const std::string& name, std::string id) {
  const std::lock_guard lock(mutex_);
  Kind& kind = kind_of(name);
  --kind.hits;
  if (stopped_)
    to_discard_.push_back(std::move(id));
  else
    kind.ready.push_back({std::move(id), Clock::now() + settings_.check_every});
}

void WarmPool::drop(const std::string& name) {
  const std::lock_guard lock(mutex_);
  const auto it = kinds_.find(name);
  if (it == kinds_.end()) return;
  for (auto& ready : it->second.ready) to_discard_.push_back(std::move(ready.id));
  it->second.ready.clear();
  it->second.announced = false;
  it->second.demand = Demand(settings_.cooldown);
  ++generation_;  // also of one that is being built
  look_again_ = true;
  changed_.notify_all();
}

void WarmPool::forget(const std::string& id) {
  const std::lock_guard lock(mutex_);
  for (auto& [_, kind] : kinds_) std::erase_if(kind.ready, [&](const Ready& r) { return r.id == id; });
  look_again_ = true;
  changed_.notify_all();
}

std::optional<std::string> WarmPool::evict() {
  const std::lock_guard lock(mutex_);
  const auto fullest =
      std::ranges::max_element(kinds_, {}, [](const auto& entry) { return entry.second.ready.size(); });
  if (fullest == kinds_.end() || fullest->second.ready.empty()) return std::nullopt;
  auto& ready = fullest->second.ready;
  std::string id = std::move(ready.front().id);
  ready.erase(ready.begin());
  return id;
}

int WarmPool::flush() {
  const std::lock_guard lock(mutex_);
  int flushed = 0;
  for (auto& [_, kind] : kinds_) {
    for (auto& ready : kind.ready) to_discard_.push_back(std::move(ready.id));
    flushed += static_cast<int>(kind.ready.size());
    kind.ready.clear();
  }
  ++generation_;
  look_again_ = true;
  changed_.notify_all();
  return flushed;
}

void WarmPool::set_ceiling(int most, const std::string& reason) {
  const std::lock_guard lock(mutex_);
  ceiling_ = most;
  ceiling_reason_ = reason;
  look_again_ = true;
  changed_.notify_all();
}

std::vector<PoolStatus> WarmPool::status() const {
  const std::lock_guard lock(mutex_);
  std::vector<PoolStatus> out;
  for (const auto& [name, kind] : kinds_)
    out.push_back(
        {.kind = name,
         .ready = static_cast<int>(kind.ready.size()),
         .building = kind.building,
         .target = kind.target.count,
         .reason = kind.target.reason,
         .hits = kind.hits,
         .misses = kind.misses,
         .builds = kind.builds,
         .failures = kind.failures,
         .build_time = std::chrono::duration_cast<std::chrono::microseconds>(kind.demand.build_time()),
         .memory_bytes = kind.memory_bytes,
         .last_error = kind.last_error});
  return out;
}

void WarmPool::set_target(Kind& kind, Clock::time_point now) const {
  const auto last = kind.demand.last_claim();
  if (!kind.announced && (!last || *last + kKeptAfterUse <= now)) {
    kind.target = {0, "not claimed in ten minutes"};
    return;
  }
  if (kind.claimed_once) {
    kind.target = {0, "claimed once"};
    return;
  }
  kind.target = kind.demand.target(settings_.min, settings_.max, now);
  if (kind.target.count > ceiling_) kind.target = {ceiling_, ceiling_reason_};
}

/// The kind that lacks most and may be built now.
WarmPool::Kind* WarmPool::most_wanting(Clock::time_point now, std::string& name) {
  Kind* found = nullptr;
  int most = 0;
  for (auto& [kind_name, kind] : kinds_) {
    const int missing = kind.target.count - static_cast<int>(kind.ready.size()) - kind.building;
    if (missing <= most || kind.retry_at > now) continue;
    found = &kind;
    most = missing;
    name = kind_name;
  }
  return found;
}

bool WarmPool::discard_one(std::unique_lock<std::mutex>& lock) {
  if (to_discard_.empty()) {
    for (auto& [_, kind] : kinds_) {
      if (static_cast<int>(kind.ready.size()) <= kind.target.count) continue;
      to_discard_.push_back(std::move(kind.ready.front().id));
      kind.ready.erase(kind.ready.begin());
      break;
    }
  }
  if (to_discard_.empty()) return false;
  const std::string id = std::move(to_discard_.back());
  to_discard_.pop_back();
  lock.unlock();
  hooks_.discard(id);
  lock.lock();
  return true;
}

bool WarmPool::build_one(std::unique_lock<std::mutex>& lock, const std::stop_token& stop) {
  std::string name;
  Kind* kind = most_wanting(Clock::now(), name);
  if (kind == nullptr) return false;
  const uint64_t memory_bytes = kind->memory_bytes;
  lock.unlock();
  hooks_.wait_for_pause(stop);
  const PoolHooks::Room room = hooks_.room(memory_bytes);
  lock.lock();
  if (stop.stop_requested()) return false;
  const auto start = Clock::now();
  kind = most_wanting(start, name);  // claimed, flushed, or drained, meanwhile
  if (kind == nullptr) return true;
  if (room.count <= 0) {
    kind->target = {static_cast<int>(kind->ready.size()), room.limit};
    kind->retry_at = start + 1s;
    return true;
  }
  ++kind->building;
  const uint64_t generation = generation_;
  lock.unlock();
  std::string id, problem;
  try {
    id = hooks_.build(name);
  } catch (const Error& e) {
    problem = error_text(e);
  } catch (const std::exception& e) {
    problem = e.what();
  }
  const auto end = Clock::now();
  lock.lock();
  --kind->building;
  kind->last_error = problem;
  if (!problem.empty()) {
    ++kind->failures;
    const auto pause = settings_.first_retry * (1 << std::min(kind->failures_in_a_row++, 10));
    kind->retry_at = end + std::min<Clock::duration>(pause, kLongestRetry);
    if (!stop.stop_requested()) log::warning("no warm sandbox of kind '{}': {}", name, problem);
    return true;
  }
  ++kind->builds;
  kind->failures_in_a_row = 0;
  kind->demand.note_build(end - start);
  if (generation != generation_ || stopped_)
    to_discard_.push_back(std::move(id));
  else
    kind->ready.push_back({std::move(id), end + settings_.first_check});
  return true;
}

/// Asks one that is due whether it answers. It stays claimable meanwhile: who claims it then owns it, and the
/// answer is of no interest any more.
bool WarmPool::check_one(std::unique_lock<std::mutex>& lock) {
  const auto now = Clock::now();
  for (auto& [_, kind] : kinds_) {
    const auto due = std::ranges::find_if(kind.ready, [&](const Ready& r) { return r.check_at <= now; });
    if (due == kind.ready.end()) continue;
    due->check_at = now + settings_.check_every;
    const std::string id = due->id;
    lock.unlock();
    const PoolHooks::Health health = hooks_.check(id);
    lock.lock();
    // Only when nobody claimed it meanwhile is it idle, and ours to judge.
    if (std::ranges::none_of(kind.ready, [&](const Ready& r) { return r.id == id; })) return true;
    if (health.answers) {
      kind.memory_bytes = health.memory_bytes;
      return true;
    }
    std::erase_if(kind.ready, [&](const Ready& r) { return r.id == id; });
    log::warning("warm sandbox {} does not answer: it is replaced", id);
    to_discard_.push_back(id);
    return true;
  }
  return false;
}

void WarmPool::wait(std::unique_lock<std::mutex>& lock, const std::stop_token& stop) {
  const auto now = Clock::now();
  auto next = now + 1h;
  const auto consider = [&](Clock::time_point when) {
    if (when > now) next = std::min(next, when);
  };
  for (const auto& [_, kind] : kinds_) {
    for (const auto& ready : kind.ready) consider(ready.check_at);
    consider(kind.retry_at);
    if (const auto when = kind.demand.changes_at()) consider(*when);
    if (const auto when = kind.demand.last_claim()) consider(*when + kKeptAfterUse);
  }
  changed_.wait_until(lock, stop, next, [&] { return look_again_; });
}

void WarmPool::keep(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    look_again_ = false;
    for (auto& [_, kind] : kinds_)
      if (kind.retry_at <= Clock::now()) set_target(kind, Clock::now());
    if (discard_one(lock) || build_one(lock, stop) || check_one(lock)) continue;
    wait(lock, stop);
  }
}

}  // namespace hutch::sandbox
