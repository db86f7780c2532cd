#include "sandbox/manager.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <tuple>

#include "base/log.h"
#include "base/sys.h"

namespace hutch::sandbox {

using namespace std::chrono_literals;

namespace {

constexpr auto kEndTimeout = 5s;
constexpr auto kPingTimeout = 1s;
constexpr size_t kRememberedEnds = 256;
constexpr uint64_t kQuickFileBytes = 16u << 20;
constexpr uint64_t kWarmCharge = 64u << 20;  // what a warm sandbox is counted with until it is claimed

/// A refill starts this long after the last call, or this long after it was due while calls run on and on.
constexpr auto kPause = 10ms, kPatience = 200ms;

/// What every command finds in its environment; nothing of the server's own.
std::map<std::string, std::string> base_environment() {
  return {{"PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
          {"HOME", "/root"},
          {"USER", "root"},
          {"LOGNAME", "root"},
          {"SHELL", "/bin/bash"},
          {"LANG", "C.UTF-8"},
          {"TERM", "dumb"}};
}

/// Raising a hard limit needs CAP_SYS_RESOURCE, which servers in containers do not have: never more than
/// ours.
uint64_t open_files_limit(int64_t wanted) {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0) return static_cast<uint64_t>(wanted);
  return std::min<uint64_t>(files.rlim_max, static_cast<uint64_t>(wanted));
}

runtime::Limits limits_of(const config::SandboxDefaults& settings, const CreateRequest& request) {
  static const double host_cpus = static_cast<double>(std::max(1u, std::thread::hardware_concurrency()));
  return {.memory_bytes = request.memory_bytes.value_or(settings.memory.value),
          .cpus = std::min(request.cpus.value_or(settings.cpus), host_cpus),
          .pids = request.pids.value_or(settings.pids),
          .open_files = open_files_limit(settings.open_files),
          .shm_bytes = settings.shm.value,
          .disk_bytes = request.disk_bytes.value_or(settings.disk.value)};
}

void check_name(const std::string& name) {
  const bool plain = std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  });
  if (!plain || name.size() > 64 || name.starts_with("sbx-") || name.starts_with('-') ||
      name.starts_with('.'))
    throw Error(Errc::invalid_argument, fmt::format("'{}' cannot be a sandbox's name", name.substr(0, 80)))
        .hint("up to 64 letters, digits, '.', '_' and '-', not beginning with '.', '-' or 'sbx-'");
}

std::string absolute_workdir(const std::string& asked, const std::string& of_profile) {
  if (asked.empty()) return of_profile;
  return asked.front() == '/' ? asked : of_profile + "/" + asked;
}

Error has_ended(const std::string& id_or_name, const std::string& cause) {
  return Error(Errc::not_found, fmt::format("sandbox {} has ended: {}", id_or_name, cause))
      .hint("make a new one with sandbox_create, or leave sandbox_id out to use the default sandbox");
}

/// For each profile the first one with the same root file system, runtime and hardening; the default one
/// before all others.
std::map<std::string, std::string> kinds_of(const config::Config& config) {
  using Hard = std::tuple<std::string, std::vector<std::string>, std::string, int64_t, uint64_t>;
  const auto hard = [&](const std::string& name) {
    const config::Profile& p = config.profiles.at(name);
    const config::SandboxDefaults settings = config::settings_of(config, name);
    return Hard(p.runtime, p.host_paths, p.workdir, settings.open_files, settings.shm.value);
  };
  std::map<Hard, std::string> first{{hard(config.default_profile), config.default_profile}};
  std::map<std::string, std::string> kinds;
  for (const auto& [name, _] : config.profiles)
    kinds[name] = first.try_emplace(hard(name), name).first->second;
  return kinds;
}

PoolSettings pool_settings(const config::Pool& pool) {
  return {.min = static_cast<int>(pool.min),
          .max = static_cast<int>(pool.max),
          .cooldown = std::chrono::seconds(pool.cooldown_s)};
}

}  // namespace

Manager::Manager(const config::Config& config)
    : config_(config),
      kinds_(kinds_of(config_)),
      builder_(config_),
      pool_(pool_settings(config_.pool), pool_hooks()),
      housekeeper_([this](const std::stop_token& stop) { housekeep(stop); }) {}

Manager::~Manager() {
  housekeeper_.request_stop();
  housekeeper_.join();
  shutdown(Clock::now() + kEndTimeout);
}

/// At the first call: the data folder, what dead servers left in it, and the pool, which begins to build when
/// this call has been answered.
void Manager::prepare() {
  if (prepared_) return;
  const std::lock_guard lock(prepare_mutex_);
  if (prepared_) return;
  builder_.prepare();
  if (control_handler_) control_.emplace(builder_.io().context(), builder_.folder(), control_handler_);
  pool_.announce(kind_of(config_.default_profile));
  pool_.start();
  prepared_ = true;
}

/// A warm sandbox that lives, or nothing. With mutex_ held.
std::shared_ptr<Entry> Manager::take_warm(const std::string& kind) {
  while (const auto id = pool_.claim(kind)) {
    const auto it = entries_.find(*id);
    if (it == entries_.end()) continue;  // it ended by itself a moment ago
    const auto sandbox = it->second->whole();
    if (sandbox && sandbox->running()) return it->second;
  }
  return nullptr;
}

/// The entry of a sandbox that is this caller's alone: a warm one, or one that has to be built.
std::shared_ptr<Entry> Manager::reserve(const CreateRequest& request, const std::string& profile,
                                        bool warm_allowed) {
  const std::lock_guard lock(mutex_);
  if (stopping_) throw Error(Errc::unavailable, "the server is ending");
  const auto claimed =
      static_cast<int64_t>(std::ranges::count_if(entries_, [](const auto& e) { return e.second->claimed; }));
  if (claimed >= config_.limits.max_sandboxes)
    throw Error(Errc::limit_exceeded, fmt::format("there are {} sandboxes already", claimed))
        .hint("end one with sandbox_destroy, or raise limits.max_sandboxes in the configuration");
  if (!request.name.empty())
    if (const auto it = find_entry(request.name); it != entries_.end())
      throw Error(Errc::conflict, fmt::format("a sandbox named '{}' exists: {}", request.name, it->first))
          .hint("use it by that name as sandbox_id, destroy it first, or take another name");
  auto entry = warm_allowed ? take_warm(kind_of(profile)) : nullptr;
  if (!entry) {
    if (entries_.size() >= static_cast<size_t>(config_.limits.max_sandboxes)) {
      if (const auto id = pool_.evict()) to_remove_.push_back(*id), changed_.notify_all();
    }
    entry = builder_.name_one();
    entries_[entry->id] = entry;
  }
  entry->claimed = true;
  const std::lock_guard inner(entry->mutex);
  entry->record.name = request.name;
  entry->record.profile = profile;
  return entry;
}

std::shared_ptr<Sandbox> Manager::create(const CreateRequest& request) {
  const CallGauge::Scope running(builder_.calls());
  const auto start = Clock::now();
  if (!request.name.empty()) check_name(request.name);
  check_environment(request.env);
  const std::string profile_name = request.profile.empty() ? config_.default_profile : request.profile;
  const config::SandboxDefaults settings = config::settings_of(config_, profile_name);
  const config::Profile& profile = config_.profiles.at(profile_name);
  prepare();

  Description about{
      .name = request.name,
      .profile = profile_name,
      .workdir = absolute_workdir(request.workdir, profile.workdir),
      .env = base_environment(),
      .labels = request.labels,
      .limits = limits_of(settings, request),
      .ttl = std::chrono::seconds(request.ttl_s.value_or(settings.ttl_s)),
      .idle_timeout = std::chrono::seconds(request.idle_timeout_s.value_or(settings.idle_timeout_s)),
      .background_keeps_alive = std::chrono::seconds(config_.sandbox.background_keeps_alive_s),
      .created_at = WallClock::now()};
  for (const auto* more : {&profile.env, &request.env})
    for (const auto& [name, value] : *more) about.env[name] = value;

  for (bool warm_allowed = true;; warm_allowed = false) {
    const auto entry = reserve(request, profile_name, warm_allowed);
    about.warm = entry->whole() != nullptr;
    try {
      if (!about.warm) {
        builder_.build(*entry, profile_name, about.limits);
        watch(*entry);
      }
      auto sandbox = claim(*entry, request, about, start);
      log::info("{} made in {} us{}", entry->id, sandbox->about().create_time.count(),
                about.warm ? ", warm" : "");
      return sandbox;
    } catch (const Error& e) {
      remove(entry->id);
      // The pool is never the reason why a call fails.
      if (!about.warm || e.code() == Errc::invalid_argument) throw;
      log::info("warm sandbox {} cannot be used: {}", entry->id, e.what());
    } catch (...) {
      remove(entry->id);
      throw;
    }
  }
}

/// Gives a whole sandbox to its owner: what differs from one owner to the next is attached here.
std::shared_ptr<Sandbox> Manager::claim(Entry& entry, const CreateRequest& request, Description about,
                                        Clock::time_point asked_at) {
  const auto sandbox = entry.whole();
  sandbox->claim(std::move(about), asked_at);
  check_enforced(request, sandbox->about().isolation);
  builder_.set_state(entry, "running");
  if (!request.workdir.empty()) sandbox->make_folder(sandbox->about().workdir);
  const std::lock_guard lock(mutex_);
  if (stopping_) throw Error(Errc::unavailable, "the server is ending");
  entry.published = true;
  if (const auto end = sandbox->ends_at(); end && *end < next_look_) {
    look_again_ = true;
    changed_.notify_all();
  }
  return sandbox;
}

/// From here on the housekeeper hears of its end.
void Manager::watch(Entry& entry) {
  entry.whole()->watch([this, id = entry.id] {
    pool_.forget(id);
    const std::lock_guard lock(mutex_);
    to_remove_.push_back(id);
    changed_.notify_all();
  });
}

/// A limit that the caller named must hold; a default one is reported as it is.
void Manager::check_enforced(const CreateRequest& request, const runtime::Isolation& isolation) const {
  const auto require = [&](bool asked, const char* name) {
    if (!asked) return;
    const auto it = isolation.find(name);
    if (it != isolation.end() && it->second.enforced) return;
    throw Error(Errc::unavailable, fmt::format("the limit '{}' cannot be enforced on this host: {}", name,
                                               it != isolation.end() ? it->second.detail : "it is not known"))
        .hint(fmt::format("leave '{}' out to go without it, or see hutch doctor", name));
  };
  require(request.memory_bytes.has_value(), "memory");
  require(request.memory_bytes.has_value(), "swap");  // or the rest would go there
  require(request.cpus.has_value(), "cpus");
  require(request.pids.has_value(), "pids");
}

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
    builder_.build(*entry, kind, limits_of(config::settings_of(config_, kind), {}));
    if (!entry->whole()->ping(Clock::now() + kPingTimeout))
      throw Error(Errc::timeout, "its agent does not answer");
    for (const std::string& name : config_.pool.interpreters) start_interpreter(*entry->whole(), name);
    builder_.set_state(*entry, "warm");
    watch(*entry);
    const std::lock_guard lock(mutex_);
    settled_.notify_all();
  } catch (...) {
    remove(entry->id);
    throw;
  }
  return entry->id;
}

/// One that is not there costs the session that wants it its start, and nothing more.
void Manager::start_interpreter(Sandbox& sandbox, const std::string& name) {
  const Language language = name == "python" ? Language::python : Language::javascript;
  try {
    sandbox.sessions().start_ahead(sandbox, language, config_.results == "structured", base_environment());
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
  int64_t count = 0;
  {
    const std::lock_guard lock(mutex_);
    count = config_.limits.max_sandboxes - static_cast<int64_t>(entries_.size());
  }
  if (count <= 0) return {0, "limits.max_sandboxes"};
  const auto by_memory =
      static_cast<int64_t>(sys::available_memory() / 2 / std::max(kWarmCharge, memory_bytes));
  if (by_memory < count) return {static_cast<int>(by_memory), "the host's free memory"};
  return {static_cast<int>(count), ""};
}

Manager::Entries::iterator Manager::find_entry(const std::string& id_or_name) {
  if (const auto it = entries_.find(id_or_name); it != entries_.end() && it->second->claimed) return it;
  return std::ranges::find_if(
      entries_, [&](const auto& e) { return !id_or_name.empty() && e.second->record.name == id_or_name; });
}

/// With mutex_ held.
Error Manager::unknown(const std::string& id_or_name) const {
  for (const auto& gone : ended_)
    if (gone.about.id == id_or_name || (!id_or_name.empty() && gone.about.name == id_or_name))
      return has_ended(id_or_name, gone.cause);
  std::string live;
  for (const auto& [id, entry] : entries_)
    if (entry->published && entry->whole()->running())
      live += fmt::format("{}{}{}", live.empty() ? "" : ", ", id,
                          entry->record.name.empty() ? "" : fmt::format(" ({})", entry->record.name));
  return Error(Errc::not_found, fmt::format("there is no sandbox '{}'", id_or_name.substr(0, 80)))
      .hint(live.empty() ? "no sandbox is running: make one with sandbox_create, or leave sandbox_id out"
                         : "the live ones are " + live + "; sandbox_create makes a new one");
}

std::shared_ptr<Sandbox> Manager::find(const std::string& id_or_name) {
  prepare();
  const std::lock_guard lock(mutex_);
  const auto it = find_entry(id_or_name);
  if (it == entries_.end() || !it->second->published) throw unknown(id_or_name);
  auto sandbox = it->second->whole();
  if (!sandbox->running()) throw has_ended(id_or_name, sandbox->cause());
  return sandbox;
}

Manager::DefaultSandbox Manager::default_sandbox() {
  const std::lock_guard one_maker(default_mutex_);
  std::string previous;
  if (!default_id_.empty()) {
    try {
      return {.sandbox = find(default_id_), .fresh = false, .previous_cause = {}};
    } catch (const Error& e) {
      previous = e.what();
    }
  }
  DefaultSandbox made{.sandbox = create({}), .fresh = true, .previous_cause = previous};
  default_id_ = made.sandbox->about().id;
  return made;
}

std::vector<std::shared_ptr<Sandbox>> Manager::list() {
  prepare();
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<Sandbox>> out;
  for (const auto& [_, entry] : entries_)
    if (entry->published && entry->whole()->running()) out.push_back(entry->whole());
  return out;
}

std::vector<Ended> Manager::ended() const {
  const std::lock_guard lock(mutex_);
  std::vector<Ended> out(ended_.begin(), ended_.end());
  // One that has just ended, of which not everything is removed yet, belongs to them too.
  for (const auto& [_, entry] : entries_) {
    if (!entry->published) continue;
    const auto sandbox = entry->whole();
    if (!sandbox->running()) out.push_back({sandbox->about(), sandbox->cause(), WallClock::now()});
  }
  return out;
}

bool Manager::destroy(const std::string& id_or_name, std::string& id) {
  const CallGauge::Scope running(builder_.calls());
  std::shared_ptr<Sandbox> sandbox;
  {
    const std::lock_guard lock(mutex_);
    const auto it = find_entry(id_or_name);
    if (it == entries_.end() || !it->second->published) return false;
    id = it->first;
    sandbox = it->second->whole();
  }
  sandbox->end("it was destroyed");
  remove(id);
  return true;
}

/// Ends what is left of a sandbox and forgets it. Whoever comes first does it; the others find nothing.
void Manager::remove(const std::string& id) {
  std::shared_ptr<Entry> entry;
  {
    const std::lock_guard lock(mutex_);
    const auto it = entries_.find(id);
    if (it == entries_.end()) return;
    entry = it->second;
    const auto sandbox = entry->whole();
    if (sandbox) sandbox->end("it was removed");
    // In one step with leaving the entries: whoever asks finds it here or there.
    if (sandbox && entry->published) ended_.push_back({sandbox->about(), sandbox->cause(), WallClock::now()});
    if (ended_.size() > kRememberedEnds) ended_.pop_front();
    entries_.erase(it);
    ++removing_;
    settled_.notify_all();
  }
  if (!builder_.remove(*entry, Clock::now() + kEndTimeout, {}))
    log::warning("something of {} is still there; the next server removes it", id);
  const std::lock_guard lock(mutex_);
  --removing_;
  settled_.notify_all();
}

void Manager::shutdown(Clock::time_point deadline) {
  pool_.stop();
  Entries entries;
  {
    std::unique_lock lock(mutex_);
    stopping_ = true;
    // What is half made is best removed by whoever makes it, who knows how far it is: without its processes
    // it fails at once.
    const auto is_whole = [](const auto& e) { return e.second->whole() != nullptr; };
    for (const auto& [_, entry] : entries_)
      if (!entry->whole()) entry->cgroup.kill_all();
    settled_.wait_until(lock, Clock::now() + (deadline - Clock::now()) / 2,
                        [&] { return std::ranges::all_of(entries_, is_whole); });
    entries.swap(entries_);
  }
  for (auto& [_, entry] : entries) {
    const auto sandbox = entry->whole();
    if (!sandbox) continue;  // still being made
    sandbox->end("the server ended");
    try {
      builder_.set_state(*entry, "ending");
    } catch (const Error&) {
      // A full disk must not keep the sandbox alive.
    }
  }
  {
    std::vector<std::jthread> removals;
    for (auto& [_, entry] : entries) {
      // Whoever still makes it goes on until this process ends: what it makes last is removed after that, by
      // the record, which therefore stays.
      if (!entry->whole()) continue;
      removals.emplace_back([&] {
        builder_.remove(*entry, deadline, {.max_file_bytes = kQuickFileBytes, .deadline = deadline});
      });
    }
  }
  std::unique_lock lock(mutex_);
  settled_.wait_until(lock, deadline, [&] { return removing_ == 0; });
  builder_.close();
}

/// Ends what is over its time and returns when to look again.
Clock::time_point Manager::end_overdue() {
  auto next = Clock::now() + 1h;
  for (const auto& [_, entry] : entries_) {
    if (!entry->published) continue;
    const auto sandbox = entry->whole();
    if (!sandbox->running()) continue;
    const auto end = sandbox->ends_at();
    if (end && *end <= Clock::now()) {
      const auto expires = sandbox->expires_at();
      sandbox->end(expires && *expires <= WallClock::now()
                       ? fmt::format("its lifetime of {} s was over", sandbox->about().ttl.count())
                       : fmt::format("it was not used for {} s", sandbox->about().idle_timeout.count()));
    } else if (end) {
      next = std::min(next, *end);
    }
  }
  return next;
}

void Manager::housekeep(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    look_again_ = false;
    next_look_ = end_overdue();
    while (!to_remove_.empty()) {
      const std::string id = std::move(to_remove_.front());
      to_remove_.pop_front();
      lock.unlock();
      remove(id);
      lock.lock();
    }
    changed_.wait_until(lock, stop, next_look_, [&] { return look_again_ || !to_remove_.empty(); });
  }
}

}  // namespace hutch::sandbox
