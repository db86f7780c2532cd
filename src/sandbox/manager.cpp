#include "sandbox/manager.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>

#include "base/log.h"
#include "base/sys.h"

namespace hutch::sandbox {

using namespace std::chrono_literals;

namespace {

constexpr auto kStartTimeout = 30s;
constexpr auto kEndTimeout = 5s;
constexpr size_t kRememberedEnds = 256;
constexpr uint64_t kQuickFileBytes = 16u << 20;

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
  const double host_cpus = static_cast<double>(std::max(1u, std::thread::hardware_concurrency()));
  return {.memory_bytes = request.memory_bytes.value_or(settings.memory.value),
          .cpus = std::min(request.cpus.value_or(settings.cpus), host_cpus),
          .pids = request.pids.value_or(settings.pids),
          .open_files = open_files_limit(settings.open_files),
          .shm_bytes = settings.shm.value};
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

}  // namespace

Manager::Manager(const config::Config& config)
    : config_(config),
      store_(config.home),
      housekeeper_([this](const std::stop_token& stop) { housekeep(stop); }) {}

Manager::~Manager() {
  housekeeper_.request_stop();
  housekeeper_.join();
  shutdown(Clock::now() + kEndTimeout);
}

runtime::CgroupHost& Manager::cgroups() {
  const std::lock_guard lock(prepare_mutex_);
  if (!cgroups_) cgroups_ = runtime::CgroupHost::probe();
  return *cgroups_;
}

/// At the first call: the data folder, and what dead servers left in it.
void Manager::prepare() {
  const auto& host = cgroups();
  const std::lock_guard lock(prepare_mutex_);
  if (!store_.server_id().empty()) return;
  store_.open();
  adopt_orphans();
  if (!host.problem().empty()) log::warning("limits cannot be enforced on this host: {}", host.problem());
  for (const auto& id : store_.remove_leftovers()) log::info("removed the leftover sandbox {}", id);
}

runtime::Runtime& Manager::choose_runtime(const std::string& wanted) {
  auto& host = cgroups();
  const std::lock_guard lock(prepare_mutex_);
  auto& candidates = runtimes_[wanted];
  if (candidates.empty()) candidates = runtime::make_runtimes(host, wanted);
  std::string problems, hint;
  for (const auto& candidate : candidates) {
    const auto probe = candidate->probe();
    if (probe.usable) return *candidate;
    problems += (problems.empty() ? "" : "; ") + probe.detail;
    if (hint.empty()) hint = probe.hint;
  }
  throw Error(Errc::unavailable, "no sandbox can be made: " + problems)
      .hint(hint + " (hutch doctor tells more)");
}

std::shared_ptr<Manager::Entry> Manager::reserve(const CreateRequest& request, const std::string& profile) {
  const std::lock_guard lock(mutex_);
  if (stopping_) throw Error(Errc::unavailable, "the server is ending");
  if (entries_.size() >= static_cast<size_t>(config_.limits.max_sandboxes))
    throw Error(Errc::limit_exceeded, fmt::format("there are {} sandboxes already", entries_.size()))
        .hint("end one with sandbox_destroy, or raise limits.max_sandboxes in the configuration");
  if (!request.name.empty()) {
    for (const auto& [id, entry] : entries_)
      if (entry->record.name == request.name)
        throw Error(Errc::conflict, fmt::format("a sandbox named '{}' exists: {}", request.name, id))
            .hint("use it by that name as sandbox_id, destroy it first, or take another name");
  }
  const std::string id = "sbx-" + sys::random_hex(6);
  auto entry = std::make_shared<Entry>();
  entry->record = {.id = id, .name = request.name, .profile = profile, .runtime = {}};
  entries_[id] = entry;
  return entry;
}

std::shared_ptr<Sandbox> Manager::create(const CreateRequest& request) {
  const auto start = Clock::now();
  if (!request.name.empty()) check_name(request.name);
  check_environment(request.env);
  const std::string profile_name = request.profile.empty() ? config_.default_profile : request.profile;
  const config::SandboxDefaults settings = config::settings_of(config_, profile_name);
  const config::Profile& profile = config_.profiles.at(profile_name);
  prepare();

  const auto entry = reserve(request, profile_name);
  const std::string id = entry->record.id;
  try {
    Description about{
        .id = id, .name = request.name, .profile = profile_name, .runtime = {}, .workdir = profile.workdir};
    about.env = base_environment();
    for (const auto* more : {&profile.env, &request.env})
      for (const auto& [name, value] : *more) about.env[name] = value;
    about.labels = request.labels;
    if (!request.workdir.empty())
      about.workdir =
          request.workdir.front() == '/' ? request.workdir : profile.workdir + "/" + request.workdir;
    about.limits = limits_of(settings, request);
    about.ttl = std::chrono::seconds(request.ttl_s.value_or(settings.ttl_s));
    about.idle_timeout = std::chrono::seconds(request.idle_timeout_s.value_or(settings.idle_timeout_s));
    about.log_max_bytes = config_.limits.log_max.value;
    about.logs_max_bytes = config_.limits.logs_max.value;
    about.created_at = WallClock::now();
    auto sandbox = build(*entry, std::move(about), settings, request);
    log::info("{} made in {} ms", id,
              std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start).count());
    return sandbox;
  } catch (...) {
    remove(id);
    throw;
  }
}

std::shared_ptr<Sandbox> Manager::build(Entry& entry, Description about,
                                        const config::SandboxDefaults& settings,
                                        const CreateRequest& request) {
  const auto start = Clock::now(), deadline = start + kStartTimeout;
  const config::Profile& profile = config_.profiles.at(about.profile);
  runtime::Runtime& runtime =
      choose_runtime(profile.runtime != "auto" ? profile.runtime : config_.oci.runtime);
  about.runtime = runtime.name();

  // The record comes before everything that it names: after a crash at any point the rest can be found.
  runtime::Cgroup cgroup(cgroups(), store_.server_id(), about.id);
  {
    const std::lock_guard lock(mutex_);
    entry.cgroup = cgroup;
    if (::geteuid() == 0) entry.first_id = ids_.take();
    entry.record.runtime = about.runtime;
    entry.record.cgroup_v2 = cgroups().v2();
    entry.record.cgroups = cgroup.folders();
  }
  store_.create_sandbox_folder(about.id);
  store_.write_record(entry.record);

  const std::string folder = store_.sandbox_folder(about.id);
  auto channel = Channel::create(io_.context(), folder);
  runtime::Container container = runtime.start({.id = about.id,
                                                .folder = folder,
                                                .data_folder = store_.home(),
                                                .host_paths = profile.host_paths,
                                                .limits = about.limits,
                                                .cgroup = cgroup,
                                                .first_id = entry.first_id},
                                               deadline);
  entry.record.pid = container.pid;
  entry.record.start_time = container.start_time;
  entry.record.state = "running";
  store_.write_record(entry.record);
  check_enforced(request, container.isolation);
  channel->connect({.orphan_ttl_ms = static_cast<uint64_t>(settings.orphan_ttl_s) * 1000,
                    .ends_in_ms = static_cast<uint64_t>(about.ttl.count()) * 1000},
                   deadline);

  about.isolation = container.isolation;
  about.create_time = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start);
  auto sandbox = std::make_shared<Sandbox>(io_.context(), std::move(about), std::move(container), cgroup,
                                           channel, folder + "/layer");
  if (sandbox->about().workdir != "/workspace") make_workdir(*sandbox);
  const std::lock_guard lock(mutex_);
  if (stopping_) throw Error(Errc::unavailable, "the server is ending");
  entry.sandbox = sandbox;
  sandbox->watch([this, id = sandbox->about().id] {
    const std::lock_guard inner(mutex_);
    to_remove_.push_back(id);
    changed_.notify_all();
  });
  look_again_ = true;
  changed_.notify_all();
  return sandbox;
}

/// A limit that the caller named must hold; a default one is reported as it is.
void Manager::check_enforced(const CreateRequest& request, const runtime::Isolation& isolation) const {
  const auto require = [&](bool asked, const char* name) {
    if (!asked) return;
    const auto it = isolation.find(name);
    if (it != isolation.end() && it->second.enforced) return;
    throw Error(Errc::unavailable,
                fmt::format("the limit '{}' cannot be enforced on this host: {}", name,
                            it != isolation.end() ? it->second.detail : cgroups_->problem()))
        .hint(fmt::format("leave '{}' out to go without it, or see hutch doctor", name));
  };
  require(request.memory_bytes.has_value(), "memory");
  require(request.memory_bytes.has_value(), "swap");  // or the rest would go there
  require(request.cpus.has_value(), "cpus");
  require(request.pids.has_value(), "pids");
}

void Manager::make_workdir(Sandbox& sandbox) const {
  const auto made =
      sandbox.exec({.command = {}, .argv = {"mkdir", "-p", "--", sandbox.about().workdir}, .workdir = "/"});
  if (made.exit_code != 0)
    throw Error(Errc::invalid_argument,
                fmt::format("the working folder '{}' cannot be made: {}", sandbox.about().workdir, made.err));
}

Manager::Entries::iterator Manager::find_entry(const std::string& id_or_name) {
  if (const auto it = entries_.find(id_or_name); it != entries_.end()) return it;
  return std::ranges::find_if(
      entries_, [&](const auto& e) { return !id_or_name.empty() && e.second->record.name == id_or_name; });
}

/// With mutex_ held.
Error Manager::unknown(const std::string& id_or_name) const {
  for (const auto& gone : ended_)
    if (gone.about.id == id_or_name || (!id_or_name.empty() && gone.about.name == id_or_name))
      return Error(Errc::not_found, fmt::format("sandbox {} has ended: {}", id_or_name, gone.cause))
          .hint("make a new one with sandbox_create, or leave sandbox_id out to use the default sandbox");
  std::string live;
  for (const auto& [id, entry] : entries_)
    if (entry->sandbox && entry->sandbox->running())
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
  if (it == entries_.end() || !it->second->sandbox) throw unknown(id_or_name);
  if (!it->second->sandbox->running())
    throw Error(Errc::not_found,
                fmt::format("sandbox {} has ended: {}", id_or_name, it->second->sandbox->cause()))
        .hint("make a new one with sandbox_create, or leave sandbox_id out to use the default sandbox");
  return it->second->sandbox;
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
    if (entry->sandbox && entry->sandbox->running()) out.push_back(entry->sandbox);
  return out;
}

std::vector<Ended> Manager::ended() const {
  const std::lock_guard lock(mutex_);
  return {ended_.begin(), ended_.end()};
}

bool Manager::destroy(const std::string& id_or_name, std::string& id) {
  std::shared_ptr<Sandbox> sandbox;
  {
    const std::lock_guard lock(mutex_);
    const auto it = find_entry(id_or_name);
    if (it == entries_.end() || !it->second->sandbox) return false;
    id = it->first;
    sandbox = it->second->sandbox;
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
    entries_.erase(it);
    ++removing_;
  }
  if (entry->sandbox) {
    entry->sandbox->end("it was removed");
    const std::lock_guard lock(mutex_);
    ended_.push_back({entry->sandbox->about(), entry->sandbox->cause(), WallClock::now()});
    if (ended_.size() > kRememberedEnds) ended_.pop_front();
  }
  if (!remove_traces(*entry, Clock::now() + kEndTimeout, {}))
    log::warning("something of {} is still there; the next server removes it", id);
  const std::lock_guard lock(mutex_);
  --removing_;
  changed_.notify_all();
}

bool Manager::remove_traces(Entry& entry, Clock::time_point deadline, const sys::RemoveBounds& bounds) {
  bool gone =
      entry.sandbox ? entry.sandbox->wait_until_ended(deadline) : end_recorded_agent(entry.record, deadline);
  for (;;) {
    // A container that was only half made may have processes that nobody else knows of.
    if (!entry.sandbox) entry.cgroup.kill_all();
    if (entry.cgroup.remove()) break;
    if (Clock::now() > deadline) {
      gone = false;
      break;
    }
    std::this_thread::sleep_for(1ms);  // the kernel frees a group a moment after its last process
  }
  reap_orphans();
  if (entry.first_id != 0) ids_.give_back(entry.first_id);
  return gone && store_.remove_sandbox_folder(entry.record.id, bounds);
}

void Manager::shutdown(Clock::time_point deadline) {
  Entries entries;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    entries.swap(entries_);
  }
  for (auto& [_, entry] : entries) {
    entry->record.state = "ending";
    if (!entry->sandbox) continue;  // being made: its cgroup is emptied below, and what makes it fails
    entry->sandbox->end("the server ended");
    try {
      store_.write_record(entry->record);
    } catch (const Error&) {
      // A full disk must not keep the sandbox alive.
    }
  }
  {
    std::vector<std::jthread> removals;
    for (auto& [_, entry] : entries)
      removals.emplace_back([&] {
        remove_traces(*entry, deadline, {.max_file_bytes = kQuickFileBytes, .deadline = deadline});
      });
  }
  std::unique_lock lock(mutex_);
  changed_.wait_until(lock, deadline, [&] { return removing_ == 0; });
  store_.close();
}

/// Ends what is over its time and returns when to look again.
Clock::time_point Manager::end_overdue() {
  auto next = Clock::now() + 1h;
  for (const auto& [_, entry] : entries_) {
    if (!entry->sandbox || !entry->sandbox->running()) continue;
    Sandbox& sandbox = *entry->sandbox;
    const auto end = sandbox.ends_at();
    if (end && *end <= Clock::now()) {
      const auto expires = sandbox.expires_at();
      sandbox.end(expires && *expires <= WallClock::now()
                      ? fmt::format("its lifetime of {} s was over", sandbox.about().ttl.count())
                      : fmt::format("it was not used for {} s", sandbox.about().idle_timeout.count()));
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
    const auto next = end_overdue();
    while (!to_remove_.empty()) {
      const std::string id = std::move(to_remove_.front());
      to_remove_.pop_front();
      lock.unlock();
      remove(id);
      lock.lock();
    }
    changed_.wait_until(lock, stop, next, [&] { return look_again_ || !to_remove_.empty(); });
  }
}

}  // namespace hutch::sandbox
