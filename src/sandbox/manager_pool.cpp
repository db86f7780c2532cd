#include "sandbox/manager.h"

#include <algorithm>

#include "base/log.h"
#include "base/sys.h"

/// What the manager does for the warm pool.
namespace hutch::sandbox {

using namespace std::chrono_literals;

namespace {

constexpr auto kPingTimeout = 1s;
/// A refill starts this long after the last call, or this long after it was due while calls run on and on.
constexpr auto kPause = 10ms, kPatience = 200ms;

}  // namespace

PoolHooks Manager::pool_hooks() {
  return {
      .build = [this](const std::string& kind) { return build_warm(kind); },
      .check = [this](const std::string& id) { return check_warm(id); },
      .discard = [this](const std::string& id) { remove(id); },
      .wait_for_pause =
          [this](const std::stop_token& stop) { builder_.calls().wait_for_pause(stop, kPause, kPatience); },
      .room = [this](uint64_t memory_bytes) { return room(memory_bytes); }};
}

std::string Manager::build_warm(const std::string& kind) {
  const auto entry = builder_.name_one();
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) throw Error(Errc::unavailable, "the server is ending");
    entries_[entry->id] = entry;
  }
  try {
    const auto [profile, base] = [&]() -> std::pair<std::string, Base> {
      const std::lock_guard lock(mutex_);
      const auto it = derived_kinds_.find(kind);
      return it != derived_kinds_.end() ? it->second : std::pair(kind, Base{});
    }();
    builder_.charge(entry->id, warm_charge());
    builder_.build(*entry, {profile, config::runtime_of(config_, config_.profiles.at(profile)), base,
                            default_limits(config_, profile), egress_.trusted_certificate()});
    if (!entry->whole()->ping(Clock::now() + kPingTimeout))
      throw Error(Errc::timeout, "its agent does not answer");
    for (const std::string& name : config_.pool.interpreters)
      start_interpreter(*entry->whole(), name, config_.profiles.at(profile));
    builder_.set_state(*entry, "warm");
    watch(entry);
    const std::lock_guard lock(mutex_);
    if (entry->gives_way) throw Error(Errc::limit_exceeded, "a caller needed its place");
    settled_.notify_all();
  } catch (...) {
    remove(entry->id);
    throw;
  }
  return entry->id;
}

/// One that is not there costs the session that wants it its start, and nothing more.
void Manager::start_interpreter(Sandbox& sandbox, const std::string& name, const config::Profile& profile) {
  auto env = base_environment(sandbox.about().user);
  if (profile.network == "filtered") env.merge(egress_environment());  // some of it is read at the start
  const Language language = name == "python" ? Language::python : Language::javascript;
  try {
    sandbox.sessions().start_ahead(sandbox, language, config_.results == "structured", env);
  } catch (const Error& e) {
    log::warning("pool.interpreters: {} cannot be started ahead: {}", name, e.what());
  }
}

PoolHooks::Health Manager::check_warm(const std::string& id) {
  std::shared_ptr<Sandbox> sandbox;
  {
    const std::lock_guard lock(mutex_);
    if (const auto it = entries_.find(id); it != entries_.end()) sandbox = it->second->whole();
  }
  if (!sandbox || !sandbox->ping(Clock::now() + kPingTimeout)) return {};
  return {true, sandbox->cgroup().exact_memory_bytes().value_or(0)};
}

/// Warm sandboxes are counted like others, but never take more than half of the memory that is free.
PoolHooks::Room Manager::room(uint64_t memory_bytes) {
  if (disk_guard_.closed()) return {0, "limits.disk_reserve"};
  const int64_t count = config_.limits.max_sandboxes - builder_.totals().sandboxes;
  if (count <= 0) return {0, "limits.max_sandboxes"};
  const auto by_memory =
      static_cast<int64_t>(sys::available_memory() / 2 / std::max(warm_charge().memory_bytes, memory_bytes));
  if (by_memory < count) return {static_cast<int>(by_memory), "the host's free memory"};
  return {static_cast<int>(count), ""};
}

}  // namespace hutch::sandbox
