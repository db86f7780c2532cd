#include "sandbox/builder.h"

#include <fmt/format.h>
#include <unistd.h>

#include <thread>

#include "base/log.h"
#include "base/sys.h"

namespace hutch::sandbox {

using namespace std::chrono_literals;

namespace {

constexpr auto kBuildTimeout = 30s;

void make_workdir(Sandbox& sandbox, const std::string& workdir) {
  if (workdir != "/workspace") sandbox.make_folder(workdir);
}

}  // namespace

runtime::CgroupHost& Builder::cgroups() {
  const std::lock_guard lock(mutex_);
  if (!cgroups_) cgroups_ = runtime::CgroupHost::probe();
  return *cgroups_;
}

void Builder::prepare() {
  const auto& host = cgroups();
  const std::lock_guard lock(mutex_);
  store_.open();
  adopt_orphans();
  if (!host.problem().empty()) log::warning("limits cannot be enforced on this host: {}", host.problem());
  for (const auto& id : store_.remove_leftovers()) log::info("removed the leftover sandbox {}", id);
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
  const std::lock_guard lock(entry.mutex);
  entry.record.state = state;
  Store::write_record(entry.record_file, entry.record);
}

void Builder::build(Entry& entry, const std::string& profile_name, const runtime::Limits& limits) {
  const auto deadline = Clock::now() + kBuildTimeout;
  const config::Profile& profile = config_.profiles.at(profile_name);
  runtime::Runtime& runtime =
      choose_runtime(profile.runtime != "auto" ? profile.runtime : config_.oci.runtime);

  // The record comes before everything that it names: after a crash at any point the rest can be found.
  if (::geteuid() == 0) entry.first_id = ids_.take();
  {
    const std::lock_guard lock(entry.mutex);
    entry.record.runtime = runtime.name();
    entry.record_file = store_.create_sandbox_folder(entry.id);
    Store::write_record(entry.record_file, entry.record);
  }

  const std::string folder = store_.sandbox_folder(entry.id);
  auto channel = Channel::create(io_.context(), folder);
  runtime::Container container = runtime.start({.id = entry.id,
                                                .folder = folder,
                                                .data_folder = store_.home(),
                                                .host_paths = profile.host_paths,
                                                .limits = limits,
                                                .cgroup = entry.cgroup,
                                                .first_id = entry.first_id},
                                               deadline);
  {
    const std::lock_guard lock(entry.mutex);
    entry.record.pid = container.pid;
    entry.record.start_time = container.start_time;
    Store::write_record(entry.record_file, entry.record);
  }
  channel->connect(
      {.orphan_ttl_ms = static_cast<uint64_t>(config_.sandbox.orphan_ttl_s) * 1000, .ends_in_ms = 0},
      deadline);
  auto sandbox = std::make_shared<Sandbox>(io_.context(), calls_,
                                           Body{.id = entry.id,
                                                .runtime = std::string(runtime.name()),
                                                .limits = limits,
                                                .container = std::move(container),
                                                .cgroup = entry.cgroup,
                                                .channel = channel,
                                                .layer_folder = folder + "/layer",
                                                .log_max_bytes = config_.limits.log_max.value,
                                                .logs_max_bytes = config_.limits.logs_max.value});
  make_workdir(*sandbox, profile.workdir);
  const std::lock_guard lock(entry.mutex);
  entry.sandbox = std::move(sandbox);
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
    if (Clock::now() > deadline) {
      gone = false;
      break;
    }
    std::this_thread::sleep_for(1ms);  // the kernel frees a group a moment after its last process
  }
  reap_orphans();
  if (entry.first_id != 0) ids_.give_back(entry.first_id);
  return gone && store_.remove_sandbox_folder(entry.id, bounds);
}

}  // namespace hutch::sandbox
