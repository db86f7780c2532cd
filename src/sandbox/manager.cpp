#include "sandbox/manager.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "base/log.h"
#include "base/sys.h"

namespace hutch::sandbox {

using namespace std::chrono_literals;

namespace {

constexpr auto kEndTimeout = 5s;
constexpr size_t kRememberedEnds = 256;
constexpr uint64_t kQuickFileBytes = 16u << 20;

Error has_ended(const std::string& id_or_name, const std::string& cause) {
  return Error(Errc::not_found, fmt::format("sandbox {} has ended: {}", id_or_name, cause))
      .hint("make a new one with sandbox_create, or leave sandbox_id out to use the default sandbox");
}

/// Whose servers follow each other: a host's session, where it says which one, otherwise the program that
/// started this one in this folder.
std::string owner_key() {
  if (const char* session = std::getenv("CLAUDE_CODE_SESSION_ID"); session != nullptr && *session != '\0')
    return fmt::format("session {}", session);
  std::error_code unknown;
  return fmt::format("process {} of {} in {}", ::getppid(), process_start_time(::getppid()),
                     std::filesystem::current_path(unknown).string());
}

PoolSettings pool_settings(const config::Pool& pool) {
  return {.min = static_cast<int>(pool.min),
          .max = static_cast<int>(pool.max),
          .cooldown = std::chrono::seconds(pool.cooldown_s)};
}

}  // namespace

Manager::Manager(const config::Config& config, bool keeps)
    : config_(config),
      keeps_(keeps),
      owner_(owner_key()),
      kinds_(kinds_of(config_)),
      audit_(config_.home),
      builder_(config_),
      egress_(builder_.io().context(), config_, audit_),
      ports_(builder_.io().context(), config_.ports, audit_),
      disk_guard_(config_.home, config_.limits),
      pool_(pool_settings(config_.pool), pool_hooks()),
      housekeeper_([this](const std::stop_token& stop) { housekeep(stop); }),
      pressure_(pressure_settings(config_.pressure), pressure_hooks()) {}

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
  const Store::Leftovers leftovers = builder_.prepare(keeps_);
  for (const auto& leftover : leftovers.adopted) {
    try {
      adopt(leftover);
    } catch (const Error& e) {  // such as a full disk: it lies in our folder, and the next server tries again
      log::warning("sandbox {} of a server before is left to the next one: {}", leftover.record.id, e.what());
    }
  }
  for (const auto& [record, folder, last_used] : leftovers.removed) {
    if (record.about.id.empty()) continue;  // nobody had claimed it
    const std::lock_guard inner(mutex_);
    remember_end(record.about, record.about.is_over() ? lifetime_was_over(record.about)
                                                      : "its server ended, and it did not live on");
  }
  if (control_handler_) control_.emplace(builder_.io().context(), builder_.folder(), control_handler_);
  // Of one with a base of its own the first use says which it is: nothing is pulled or set up before.
  if (!config_.profiles.at(config_.default_profile).has_own_base())
    pool_.announce(kinds_.at(config_.default_profile));
  pool_.start();
  // What a server left that was killed over it.
  collect_ = sys::exists(config_.home + "/layers");
  prepared_ = true;
}

/// A sandbox whose server was killed, or has left it to us, is ours from here on.
void Manager::adopt(const Leftover& leftover) {
  const auto entry = builder_.name_adopted(leftover);
  {
    const std::lock_guard lock(mutex_);
    entry->claimed = true;
    // Two servers may have had sandboxes of one name.
    if (find_entry(entry->record.about.name) != entries_.end()) entry->record.about.name.clear();
    entry->name = entry->record.about.name;
    entries_[entry->id] = entry;
  }
  try {
    builder_.charge_anyway(entry->id, full_charge(entry->record.about.limits));
    builder_.adopt(*entry, leftover.last_used);
    disk_guard_.take_over(entry->whole()->disk());
    if (entry->record.about.network == "filtered") egress_.open(entry->whole());
    watch(entry);
  } catch (const Error& e) {
    log::warning("sandbox {} of a server before cannot be taken up: {}", entry->id, e.what());
    {
      const std::lock_guard lock(mutex_);
      remember_end(entry->record.about,
                   fmt::format("its server ended, and the next one could not take it up: {}", e.what()));
    }
    return remove(entry->id);
  }
  try {
    // Those that could not be taken up are not in it any more.
    builder_.note(*entry, [&](Record& record) { record.processes = entry->sandbox->kept_processes(); });
    note_last_use(entry->record_file, leftover.last_used);
  } catch (const Error& e) {
    log::warning("the record of {} stays as it was: {}", entry->id, e.what());
  }
  log::info("took up {} of a server before", entry->id);
  const std::lock_guard lock(mutex_);
  entry->published = true;
  if (entry->record.is_default && entry->record.owner == owner_) default_id_ = entry->id;
  look_again_ = true;
  changed_.notify_all();
}

/// With mutex_ held.
void Manager::remember_end(const Description& about, const std::string& cause) {
  ended_.push_back({about, cause, WallClock::now()});
  if (ended_.size() > kRememberedEnds) ended_.pop_front();
}

/// A warm sandbox that lives, or nothing. With mutex_ held.
std::shared_ptr<Entry> Manager::take_warm(const std::string& kind, bool rare) {
  while (const auto id = pool_.claim(kind, rare)) {
    const auto it = entries_.find(*id);
    if (it == entries_.end()) continue;  // it ended by itself a moment ago
    const auto sandbox = it->second->whole();
    if (sandbox && sandbox->running()) return it->second;
  }
  return nullptr;
}

/// Counts it with that much. Warm sandboxes of ours give way to it, also one that is just being made. With
/// mutex_ held.
void Manager::charge(const std::string& id, const Charge& charge) {
  for (;;) {
    try {
      return builder_.charge(id, charge);
    } catch (const Error& e) {
      if (e.code() != Errc::limit_exceeded || !make_room(id)) throw;
    }
  }
}

bool Manager::make_room(const std::string& for_id) {
  const auto evicted = pool_.evict();
  const auto it = evicted ? entries_.find(*evicted) : std::ranges::find_if(entries_, [&](const auto& e) {
    return !e.second->claimed && !e.second->gives_way && e.first != for_id;
  });
  if (it == entries_.end()) return evicted.has_value();  // it ended by itself a moment ago
  it->second->gives_way = true;
  builder_.release(it->first);
  if (evicted) to_remove_.push_back(*evicted), changed_.notify_all();
  return true;
}

/// With mutex_ held.
std::string Manager::kind_of(const Description& about) {
  const std::string& kind = kinds_.at(about.profile);
  if (about.base.layers.empty()) return kind;
  std::string derived = fmt::format("{} on {}", kind, about.base.key());
  derived_kinds_.try_emplace(derived, kind, about.base);
  return derived;
}

/// The entry of a sandbox that is this caller's alone: a warm one, or one that has to be built.
std::shared_ptr<Entry> Manager::reserve(const Description& about, bool warm_allowed, bool own_base) {
  pressure_.admit();
  const std::lock_guard lock(mutex_);
  if (stopping_) throw Error(Errc::unavailable, "the server is ending");
  if (const auto it = find_entry(about.name); it != entries_.end())
    throw Error(Errc::conflict, fmt::format("a sandbox named '{}' exists: {}", about.name, it->first))
        .hint("use it by that name as sandbox_id, destroy it first, or take another name");
  const std::string kind = warm_allowed ? kind_of(about) : "";
  if (warm_allowed && own_base) use_kind(about.profile, kind);
  auto entry = warm_allowed ? take_warm(kind, !own_base) : nullptr;
  const bool warm = entry != nullptr;
  if (!warm) entry = builder_.name_one();
  try {
    charge(entry->id, full_charge(about.limits));
  } catch (...) {
    if (warm) pool_.put_back(kind, entry->id);
    throw;
  }
  entries_[entry->id] = entry;
  entry->claimed = true;
  entry->name = about.name;
  return entry;
}

std::shared_ptr<Sandbox> Manager::create(const CreateRequest& request) {
  return create(request, false);
}

std::shared_ptr<Sandbox> Manager::create(const CreateRequest& request, bool is_default) {
  const CallGauge::Scope running(builder_.calls());
  const std::string& profile = request.profile.empty() ? config_.default_profile : request.profile;
  (void)config::settings_of(config_, profile);  // throws when there is none
  return create(request, describe_new(config_, request, base_of(request, profile)), is_default);
}

std::shared_ptr<Sandbox> Manager::create(const CreateRequest& request, Description about, bool is_default,
                                         bool warm_allowed) {
  const auto start = Clock::now();
  prepare();
  disk_guard_.check_room_for_create();
  if (about.network == "filtered") (void)egress_.rules(about);  // or what is wrong with them

  const bool has_volumes = !about.volumes.empty();
  const bool attaches = has_volumes && builder_.attaches_volumes(about.runtime);
  warm_allowed = warm_allowed && is_of_its_kind(config_, about) && attaches == has_volumes;
  for (;; warm_allowed = false) {
    const auto entry = reserve(about, warm_allowed, !request.names_base());
    about.warm = entry->whole() != nullptr;
    try {
      if (!about.warm) {
        builder_.build(
            *entry, {about.profile, about.runtime, about.base, about.limits, egress_.trusted_certificate()},
            has_volumes && !attaches ? &about.volumes : nullptr);
        watch(entry);
      }
      if (attaches) builder_.attach_volumes(*entry, about.runtime, about.volumes);
      if (about.network == "full") builder_.attach_network(*entry, about);
      auto sandbox = claim(*entry, request, about, start, is_default);
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
                                        Clock::time_point asked_at, bool is_default) {
  const auto sandbox = entry.whole();
  sandbox->claim(std::move(about), asked_at);
  check_enforced(request, sandbox->about().isolation);
  if (sandbox->about().network == "filtered") egress_.open(sandbox);
  const Description now = sandbox->about();
  // The record of a hidden one stays that of one that is being made.
  if (!request.hidden)
    builder_.note(entry, [&](Record& record) {
      record.state = "running";
      record.about = now;
      record.owner = owner_;
      record.is_default = is_default;
      record.outlives_server = keeps_;
      record.processes = sandbox->kept_processes();
    });
  if (!request.workdir.empty()) sandbox->make_folder(now.workdir);
  const std::lock_guard lock(mutex_);
  if (stopping_) throw Error(Errc::unavailable, "the server is ending");
  if (request.hidden) return sandbox;
  entry.published = true;
  const auto end = sandbox->ends_at();
  if ((end && *end < next_look_) || now.pause_after > 0s) {
    look_again_ = true;
    changed_.notify_all();
  }
  return sandbox;
}

/// From here on the housekeeper hears of its end.
void Manager::watch(const std::shared_ptr<Entry>& entry) {
  pressure_.wake();
  // What the sandbox holds must not hold the entry, which holds the sandbox.
  const auto with_entry = [weak = std::weak_ptr(entry)](auto act) {
    return [weak, act] {
      if (const auto held = weak.lock()) act(*held);
    };
  };
  entry->whole()->watch(
      {.on_end =
           [this, id = entry->id] {
             pool_.forget(id);
             const std::lock_guard lock(mutex_);
             to_remove_.push_back(id);
             changed_.notify_all();
           },
       .on_use = with_entry([](Entry& used) { note_last_use(used.record_file, WallClock::now()); }),
       .on_processes_change = with_entry([this](Entry& changed) {
         const auto processes = changed.whole()->kept_processes();
         builder_.note(changed, [&](Record& record) { record.processes = processes; });
       })});
}

Manager::Entries::iterator Manager::find_entry(const std::string& id_or_name) {
  if (const auto it = entries_.find(id_or_name); it != entries_.end() && it->second->claimed) return it;
  return std::ranges::find_if(
      entries_, [&](const auto& e) { return !id_or_name.empty() && e.second->name == id_or_name; });
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
                          entry->name.empty() ? "" : fmt::format(" ({})", entry->name));
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

Manager::DefaultSandbox Manager::default_sandbox(const Progress& progress, const std::stop_token& stop) {
  const std::lock_guard one_maker(default_mutex_);
  prepare();  // may take up the one of the server before
  std::string previous;
  if (!default_id_.empty()) {
    try {
      return {.sandbox = find(default_id_), .fresh = false, .previous_cause = {}};
    } catch (const Error& e) {
      previous = e.what();
    }
  }
  DefaultSandbox made{.sandbox = create({.progress = progress, .stop = stop}, true),
                      .fresh = true,
                      .previous_cause = previous};
  default_id_ = made.sandbox->id();
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

std::shared_ptr<Entry> Manager::entry_of(const Sandbox& sandbox) {
  const std::lock_guard lock(mutex_);
  const auto it = entries_.find(sandbox.id());
  if (it == entries_.end()) throw unknown(sandbox.id());
  return it->second;
}

void Manager::update(const std::string& id_or_name, Changes changes) {
  const CallGauge::Scope running(builder_.calls());
  check_caps(config_.limits, changes);
  const auto sandbox = id_or_name.empty() ? default_sandbox().sandbox : find(id_or_name);
  const auto egress = sandbox->egress();
  std::optional<net::RuleSet> rules;
  if (changes.allow) {
    if (!egress)
      throw Error(Errc::invalid_argument, "`allow` of a living sandbox is for the network `filtered`")
          .hint(
              "make another one: sandbox_create with `network` and `allow`; files come along by a template");
    Description changed = sandbox->about();
    changed.allow = changed_rules(changed.allow, *changes.allow);
    rules = egress_.rules(changed);
    changes.allow = changed.allow;
  }
  const auto entry = entry_of(*sandbox);
  runtime::Limits limits = sandbox->about().limits;
  const Charge before = full_charge(limits);
  limits.memory_bytes = changes.memory_bytes.value_or(limits.memory_bytes);
  {
    const std::lock_guard lock(mutex_);
    charge(entry->id, full_charge(limits));
  }
  try {
    sandbox->update(changes);
  } catch (...) {
    builder_.charge_anyway(entry->id, before);
    throw;
  }
  if (rules) egress->set_rules(std::move(*rules));
  builder_.note(*entry, [&](Record& record) {
    record.about = sandbox->about();
    record.paused = sandbox->pause() == Sandbox::Pause::by_owner;
  });
  const std::lock_guard lock(mutex_);
  look_again_ = true;
  changed_.notify_all();
}

bool Manager::destroy(const std::string& id_or_name, std::string& id) {
  const CallGauge::Scope running(builder_.calls());
  prepare();
  std::shared_ptr<Sandbox> sandbox;
  {
    std::unique_lock lock(mutex_);
    const auto it = find_entry(id_or_name);
    if (it == entries_.end() || !it->second->published) {
      // Gone means that it holds nothing any more, whoever removes it.
      settled_.wait(lock, [&] { return !removing_.contains(id_or_name); });
      return false;
    }
    id = it->first;
    sandbox = it->second->whole();
  }
  sandbox->end("it was destroyed");
  remove(id);
  // The housekeeper hears of the end too and may have come first: what is destroyed holds nothing any more.
  std::unique_lock lock(mutex_);
  settled_.wait(lock, [&] { return !removing_.contains(id); });
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
  }
  const auto sandbox = entry->whole();
  ports_.close_all(id);
  if (sandbox) sandbox->end("it was removed");  // without the lock: it drops what is not written yet
  ports_.close_all(id);                         // also what was opened meanwhile
  {
    const std::lock_guard lock(mutex_);
    if (entries_.erase(id) == 0) return;
    // In one step with leaving the entries: whoever asks finds it here or there.
    if (sandbox && entry->published) remember_end(sandbox->about(), sandbox->cause());
    removing_.insert(id);
    settled_.notify_all();
  }
  if (!builder_.remove(*entry, Clock::now() + kEndTimeout, {}))
    log::warning("something of {} is still there; the next server removes it", id);
  const bool had_layers = !std::exchange(entry->layers, {}).empty();  // or they would still be in use
  const std::lock_guard lock(mutex_);
  removing_.erase(id);
  collect_ = collect_ || had_layers;
  look_again_ = look_again_ || collect_;
  changed_.notify_all();
  settled_.notify_all();
}

/// Whether it is left to the next server.
bool Manager::stays(Entry& entry) const {
  const auto sandbox = entry.whole();
  if (!keeps_ || !entry.published || !sandbox->running()) return false;
  return config_.on_exit == "keep" || (entry.adopted && !sandbox->was_used());
}

void Manager::leave(Entry& entry) {
  try {
    // A frozen agent could not end the sandbox if no server came.
    entry.whole()->resume();
  } catch (const Error& e) {
    log::warning("{} is left frozen: {}", entry.id, e.what());
  }
}

void Manager::shutdown(Clock::time_point deadline) {
  pool_.stop();
  pressure_.stop();
  Entries entries;
  std::vector<std::shared_ptr<Entry>> kept;
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
    std::erase_if(entries, [&](const auto& e) {
      const bool left = stays(*e.second);
      if (left) kept.push_back(e.second);
      return left;
    });
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
  for (const auto& entry : kept) leave(*entry);
  std::unique_lock lock(mutex_);
  settled_.wait_until(lock, deadline, [&] { return removing_.empty(); });
  // Layers of those that are gone go after this process has ended.
  const bool had_layers =
      std::ranges::any_of(entries, [](const auto& e) { return !e.second->layers.empty(); });
  builder_.close(had_layers || collect_);
}

}  // namespace hutch::sandbox
