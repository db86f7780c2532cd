#include "sandbox/builder.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "base/log.h"
#include "base/sys.h"
#include "sandbox/admission.h"

namespace hutch::sandbox {

using namespace std::chrono_literals;

namespace {

constexpr auto kBuildTimeout = 30s, kAttachTimeout = 10s;

/// An agent that does not answer by then is no use to anybody.
constexpr auto kAdoptTimeout = 5s;

/// The one that every root file system of ours has is root's; an image need not have it.
void make_workdir(Sandbox& sandbox, const config::Profile& profile, const Base& base,
                  const std::string& user) {
  if (profile.workdir != "/workspace" || !user.empty() || !base.host_files())
    sandbox.make_folder(profile.workdir);
  if (!base.workdir.empty()) sandbox.make_folder(base.workdir);
}

/// An ordinary user's server has one id for each of its sandboxes, its own.
void check_user(const config::Profile& profile) {
  if (config::user_of(profile).empty() || ::geteuid() == 0) return;
  throw Error(Errc::unavailable,
              fmt::format("commands cannot run as '{}': hutch does not run as root, so its sandboxes have no "
                          "user but root",
                          profile.user))
      .hint("leave `user` out of the profile, or start hutch as root");
}

/// A template would hand on what is lost.
void check_whole(Sandbox& sandbox) {
  sandbox.look_for_lost_writes();
  const std::string damage = sandbox.damage();
  if (damage.empty()) return;
  throw Error(Errc::unavailable, damage)
      .hint("sandbox_create makes a new one; sandbox_read_file still reads what this one has");
}

}  // namespace

runtime::CgroupHost& Builder::cgroups() {
  const std::lock_guard lock(mutex_);
  if (!cgroups_) cgroups_ = runtime::CgroupHost::probe();
  return *cgroups_;
}

Store::Leftovers Builder::prepare(bool adopts) {
  const auto& host = cgroups();
  const std::lock_guard lock(mutex_);
  store_.open();
  adopt_orphans();
  volumes_.remove_unfinished();
  if (!host.problem().empty()) log::warning("limits cannot be enforced on this host: {}", host.problem());
  return store_.take_leftovers(adopts);
}

/// What all servers together may promise of this host now. `written_bytes` of what they have promised are on
/// the disk already, and no part of what is free.
HostTotals Builder::host_totals(uint64_t written_bytes) const {
  const config::Limits& limits = config_.limits;
  const auto times = [](double factor, uint64_t bytes) {
    return static_cast<uint64_t>(factor * static_cast<double>(bytes));
  };
  struct statvfs disk {};
  const bool known = ::statvfs(store_.home().c_str(), &disk) == 0;
  return {.sandboxes = limits.max_sandboxes,
          .memory_bytes = times(limits.memory_overcommit, host_memory_bytes()),
          .disk_bytes = known ? times(limits.disk_overcommit, disk.f_bavail * disk.f_frsize) + written_bytes
                              : UINT64_MAX};
}

void Builder::charge(const std::string& id, const Charge& charge) {
  const auto attempt = [&](uint64_t written_bytes) {
    store_.ledger().charge(store_.server_id(), id, charge, host_totals(written_bytes));
  };
  try {
    attempt(0);
  } catch (const Error&) {
    attempt(store_.written_bytes());  // looked for only when it matters: it takes a stat(2) for each sandbox
  }
}

runtime::Runtime& Builder::choose_runtime(const std::string& wanted) {
  auto& host = cgroups();
  const std::lock_guard lock(mutex_);
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

std::shared_ptr<Entry> Builder::name_one() {
  auto entry = std::make_shared<Entry>();
  entry->id = "sbx-" + sys::random_hex(6);
  entry->cgroup = runtime::Cgroup(cgroups(), store_.server_id(), entry->id);
  entry->record = {.id = entry->id, .cgroup_v2 = cgroups().v2(), .cgroups = entry->cgroup.folders()};
  return entry;
}

void Builder::set_state(Entry& entry, const std::string& state) {
  note(entry, [&](Record& record) { record.state = state; });
}

std::shared_ptr<Entry> Builder::name_adopted(const Leftover& leftover) {
  auto entry = std::make_shared<Entry>();
  entry->id = leftover.record.id;
  entry->record = leftover.record;
  entry->cgroup = runtime::Cgroup(leftover.record.cgroup_v2, leftover.record.cgroups);
  entry->first_id = leftover.record.first_id;
  entry->adopted = true;
  if (entry->first_id != 0) ids_.keep(entry->first_id);
  entry->record_file = store_.open_record(entry->id);
  sys::write_all(entry->record_file.get(), "\n");  // behind a line that was not finished
  note_last_use(entry->record_file, leftover.last_used);
  return entry;
}

void Builder::adopt(Entry& entry, WallClock::time_point last_used) {
  const Record record = entry.record;
  const std::string folder = store_.sandbox_folder(entry.id);
  runtime::Container container{.pid = static_cast<pid_t>(record.pid),
                               .start_time = record.start_time,
                               .pidfd = recorded_agent(record),
                               .isolation = record.about.isolation,
                               .disk = record.disk};
  if (!container.pidfd) throw Error(Errc::unavailable, "its agent has ended meanwhile");
  if (!entry.cgroup.holds(container.pid)) throw Error(Errc::unavailable, "it has left its cgroup");
  entry.cgroup.thaw();
  auto channel = Channel::take_over(io_.context(), folder);
  auto sandbox = std::make_shared<Sandbox>(
      io_.context(), calls_,
      body_of(entry, record.about.limits, record.about.user, std::move(container), channel));
  sandbox->restore({record.about, last_used, record.processes},
                   static_cast<uint64_t>(config_.sandbox.orphan_ttl_s) * 1000, Clock::now() + kAdoptTimeout);
  (void)sandbox->squeeze({});  // it may have been throttled when its server died
  sandbox->look_for_lost_writes();
  if (record.paused) sandbox->update({.paused = true});
  const std::lock_guard lock(entry.mutex);
  entry.sandbox = std::move(sandbox);
}

Body Builder::body_of(const Entry& entry, const runtime::Limits& limits, const std::string& user,
                      runtime::Container container, std::shared_ptr<Channel> channel) const {
  return {.id = entry.id,
          .runtime = entry.record.runtime,
          .user = user,
          .limits = limits,
          .container = std::move(container),
          .cgroup = entry.cgroup,
          .channel = std::move(channel),
          .folder = store_.sandbox_folder(entry.id),
          .log_max_bytes = config_.limits.log_max.value,
          .logs_max_bytes = config_.limits.logs_max.value};
}

bool Builder::attaches_volumes(const std::string& runtime) {
  return choose_runtime(runtime).attaches_volumes();
}

/// The record comes before the mounts: from here on nobody removes them.
std::vector<runtime::VolumeMount> Builder::open_volumes(Entry& entry, std::vector<AttachedVolume>& volumes,
                                                        bool by_server) {
  const VolumeStore::Held held = volumes_.hold(volumes);
  note(entry, [&](Record& record) { record.about.volumes = volumes; });
  std::vector<runtime::VolumeMount> out;
  for (auto& volume : volumes) out.push_back(volumes_.open(held, volume, by_server));
  return out;
}

void Builder::attach_volumes(Entry& entry, const std::string& runtime, std::vector<AttachedVolume>& volumes) {
  const auto mounts = open_volumes(entry, volumes, true);
  choose_runtime(runtime).attach_volumes(entry.whole()->container(), entry.first_id, mounts, store_.home(),
                                         Clock::now() + kAttachTimeout);
}

void Builder::attach_network(Entry& entry, const Description& about) {
  choose_runtime(about.runtime)
      .attach_network(entry.whole()->container(), entry.cgroup, about.allow, store_.home(),
                      Clock::now() + kAttachTimeout);
}

void Builder::build(Entry& entry, const Build& wanted, std::vector<AttachedVolume>* volumes) {
  const auto deadline = Clock::now() + kBuildTimeout;
  const config::Profile& profile = config_.profiles.at(wanted.profile);
  const Base& base = wanted.base;
  const runtime::Limits& limits = wanted.limits;
  check_user(profile);
  runtime::Runtime& runtime = choose_runtime(wanted.runtime);

  // The record comes before everything that it names: after a crash at any point the rest can be found.
  if (::geteuid() == 0) entry.first_id = ids_.take();
  {
    const std::lock_guard lock(entry.mutex);
    entry.record.runtime = runtime.name();
    entry.record.first_id = entry.first_id;
    entry.record.layers = base.layers;
    store_.create_sandbox_folder(entry.id);
    entry.record_file = store_.open_record(entry.id);
    Store::write_record(entry.record_file, entry.record);
  }

  std::vector<runtime::VolumeMount> mounts;
  if (volumes != nullptr) mounts = open_volumes(entry, *volumes, ::geteuid() == 0);
  for (const auto& layer : base.layers) entry.layers.push_back(bases_.layers().use(layer));
  const std::string folder = store_.sandbox_folder(entry.id);
  auto channel = Channel::create(io_.context(), folder);
  runtime::Container container = runtime.start({.id = entry.id,
                                                .folder = folder,
                                                .data_folder = store_.home(),
                                                .host_files = base.host_files(),
                                                .host_paths = profile.host_paths,
                                                .layers = entry.layers,
                                                .files_in_memory = profile.storage == "memory",
                                                .trusted_certificate = wanted.trusted_certificate,
                                                .limits = limits,
                                                .cgroup = entry.cgroup,
                                                .first_id = entry.first_id,
                                                .volumes = std::move(mounts)},
                                               deadline);
  {
    const std::lock_guard lock(entry.mutex);
    entry.record.pid = container.pid;
    entry.record.start_time = container.start_time;
    entry.record.disk = container.disk;
    Store::write_record(entry.record_file, entry.record);
  }
  channel->connect(
      {.orphan_ttl_ms = static_cast<uint64_t>(config_.sandbox.orphan_ttl_s) * 1000, .ends_in_ms = 0},
      deadline);
  reap_orphans();  // the runtime's helpers, which are over when the agent answers
  const std::string user = user_of(profile, base);
  auto sandbox = std::make_shared<Sandbox>(
      io_.context(), calls_, body_of(entry, limits, user, std::move(container), std::move(channel)));
  make_workdir(*sandbox, profile, base, user);
  const std::lock_guard lock(entry.mutex);
  entry.sandbox = std::move(sandbox);
}

LayerStore::Finished Builder::seal(Entry& entry, bool lasts, const DiskGuard& disk) {
  LayerStore& layers = bases_.layers();
  LayerDraft draft = layers.begin();
  const auto sandbox = entry.whole();
  sandbox->hold_still([&](const runtime::WrittenFiles& from) {
    // Before anything is written, also of the sandbox's own files: what finds no room then is lost.
    disk.check_room_for(runtime::bytes_to_copy(from, draft.folder()));
    check_whole(*sandbox);
    writing_to_loop_device(store_.home(), [&] { layers.copy_written(draft, from); });
    check_whole(*sandbox);
  });
  return layers.finish(std::move(draft), entry.first_id, lasts);
}

bool Builder::remove(Entry& entry, Clock::time_point deadline, const sys::RemoveBounds& bounds) {
  const auto sandbox = entry.whole();
  Record record;
  {
    const std::lock_guard lock(entry.mutex);
    record = entry.record;
  }
  bool gone = sandbox ? sandbox->wait_until_ended(deadline) : end_recorded_agent(record, deadline);
  for (;;) {
    // A container that was only half made may have processes that nobody else knows of.
    if (!sandbox) entry.cgroup.kill_all();
    if (entry.cgroup.remove()) break;
    // What works for its network ends with it, but a moment later.
    if (gone && record.about.network == "full") entry.cgroup.kill_all();
    if (Clock::now() > deadline) {
      gone = false;
      break;
    }
    std::this_thread::sleep_for(1ms);  // the kernel frees a group a moment after its last process
  }
  reap_orphans();
  if (entry.first_id != 0) ids_.give_back(entry.first_id);
  gone = gone && store_.remove_sandbox_folder(entry.id, bounds);
  // What is left stays counted: it still takes the host's memory or disk.
  if (gone) release(entry.id);
  return gone;
}

}  // namespace hutch::sandbox
