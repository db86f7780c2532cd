#include "sandbox/status.h"

#include <fmt/format.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "base/sys.h"

namespace hutch::sandbox {

namespace {

int64_t seconds(Clock::duration duration) {
  return std::chrono::duration_cast<std::chrono::seconds>(duration).count();
}

int64_t seconds_since(WallClock::time_point when) {
  const auto since = std::chrono::duration_cast<std::chrono::seconds>(WallClock::now() - when).count();
  return std::max<int64_t>(since, 0);  // the clock of the host may be set back
}

template <class To>
std::optional<To> as(const std::optional<uint64_t>& value) {
  return value ? std::optional(static_cast<To>(*value)) : std::nullopt;
}

/// Empty when there is none: other kernels, other rights.
std::string text_of(const std::string& path) {
  try {
    return sys::read_file(path);
  } catch (const Error&) {
    return {};
  }
}

/// The nearest folder above that exists: a data folder is made at the first call.
void add_disk(std::filesystem::path folder, HostStatus& host) {
  struct statvfs disk {};
  while (::statvfs(folder.c_str(), &disk) != 0) {
    if (!folder.has_relative_path()) return;
    folder = folder.parent_path();
  }
  host.disk_bytes = static_cast<int64_t>(disk.f_blocks * disk.f_frsize);
  host.disk_free_bytes = static_cast<int64_t>(disk.f_bavail * disk.f_frsize);
}

std::string cgroup_version() {
  if (sys::exists("/sys/fs/cgroup/cgroup.controllers")) return "v2";
  return sys::exists("/sys/fs/cgroup/memory") ? "v1" : "none";
}

/// "claude (4711) in /home/me/project".
std::string owner() {
  const pid_t parent = ::getppid();
  std::string name = text_of(fmt::format("/proc/{}/comm", parent));
  while (name.ends_with('\n')) name.pop_back();
  std::error_code ignored;
  const std::string folder = std::filesystem::current_path(ignored);
  return fmt::format("{} ({}) in {}", name.empty() ? "process" : name, parent, folder);
}

/// The number behind "avg10=" in the line that begins with `kind`.
std::optional<double> mean_of_10s(const std::string& pressure, const std::string& kind) {
  const size_t line = pressure.find(kind + " avg10=");
  if (line == std::string::npos) return std::nullopt;
  return std::strtod(pressure.c_str() + line + kind.size() + 7, nullptr);
}

std::vector<std::string> done_to(const Sandbox& sandbox) {
  std::vector<std::string> out;
  if (const uint64_t kills = sandbox.cgroup().oom_kills(); kills > 0)
    out.push_back(fmt::format("{} of its processes were killed at its memory limit", kills));
  if (const uint64_t refused = sandbox.cgroup().pids_refused(); refused > 0)
    out.push_back(fmt::format("{} times a process was refused at its limit of pids", refused));
  return out;
}

SandboxStatus status_of(Sandbox& sandbox, bool disk) {
  const Description about = sandbox.about();
  SandboxStatus out{
      .id = about.id, .name = about.name, .state = std::string(sandbox.state()), .profile = about.profile};
  out.age_s = seconds_since(about.created_at);
  const auto now = Clock::now(), last_activity = sandbox.last_activity();
  out.in_use = last_activity >= now;  // it is the present as long as something runs
  out.idle_s = out.in_use ? 0 : seconds(now - last_activity);
  if (const auto end = sandbox.ends_at()) out.ends_in_s = std::max<int64_t>(0, seconds(*end - Clock::now()));
  const runtime::CgroupUsage usage = sandbox.cgroup().usage();
  out.memory_bytes = as<int64_t>(usage.memory_bytes);
  out.pids = as<int64_t>(usage.pids);
  if (usage.cpu_us) out.cpu_s = static_cast<double>(*usage.cpu_us) / 1e6;
  if (disk) out.disk_bytes = static_cast<int64_t>(sandbox.usage().disk_bytes);
  out.memory_limit_bytes = static_cast<int64_t>(about.limits.memory_bytes);
  out.cpus_limit = about.limits.cpus;
  out.pids_limit = about.limits.pids;
  out.disk_limit_bytes = static_cast<int64_t>(about.limits.disk_bytes);
  out.done_to_it = done_to(sandbox);
  return out;
}

void add_level(const PressureStatus& pressure, PressurePart& out) {
  out.level = name_of(pressure.level);
  out.since_s = seconds(Clock::now() - pressure.since);
  out.squeezed = static_cast<int64_t>(pressure.sandboxes.size());
  if (pressure.figures.total_bytes > 0) out.available = pressure.figures.text();
  if (!pressure.last_action.empty()) out.last_action = pressure.last_action;
  if (!pressure.last_refusal.empty()) out.last_refusal = pressure.last_refusal;
}

TotalsStatus totals_of(const Status& status, const config::Limits& limits) {
  TotalsStatus out;
  out.sandboxes = static_cast<int64_t>(status.sandboxes.size());
  out.sandboxes_limit = limits.max_sandboxes;
  for (const PoolPart& kind : status.pool) out.warm += kind.ready + kind.building;
  for (const SandboxStatus& one : status.sandboxes) {
    out.memory_bytes += one.memory_bytes.value_or(0);
    out.memory_limits_bytes += one.memory_limit_bytes;
    out.disk_bytes += one.disk_bytes.value_or(0);
    out.disk_limits_bytes += one.disk_limit_bytes;
  }
  out.memory_limits_max_bytes =
      static_cast<int64_t>(static_cast<double>(status.host.memory_bytes) * limits.memory_overcommit);
  return out;
}

std::vector<EndedStatus> ended_of(const Manager& manager) {
  std::vector<EndedStatus> out;
  for (const Ended& one : manager.ended())
    out.push_back({.id = one.about.id,
                   .name = one.about.name,
                   .profile = one.about.profile,
                   .cause = one.cause,
                   .ended_s = seconds_since(one.ended_at)});
  return out;
}

}  // namespace

HostStatus host_status(const std::string& folder) {
  HostStatus out{.cpus = ::sysconf(_SC_NPROCESSORS_ONLN), .cgroup = cgroup_version()};
  double load = 0;
  if (::getloadavg(&load, 1) == 1) out.load = load;
  out.memory_bytes = static_cast<int64_t>(host_memory_bytes());
  out.memory_available_bytes = static_cast<int64_t>(sys::available_memory());
  add_disk(folder, out);
  return out;
}

PressurePart pressure_part() {
  const std::string memory = text_of("/proc/pressure/memory");
  return {.memory_some_percent = mean_of_10s(memory, "some"),
          .memory_full_percent = mean_of_10s(memory, "full")};
}

std::vector<PoolPart> pool_part(Manager& manager) {
  std::vector<PoolPart> out;
  for (const PoolStatus& kind : manager.pool().status()) {
    PoolPart part{.kind = kind.kind,
                  .ready = kind.ready,
                  .building = kind.building,
                  .target = kind.target,
                  .reason = kind.reason,
                  .hits = static_cast<int64_t>(kind.hits),
                  .misses = static_cast<int64_t>(kind.misses),
                  .builds = static_cast<int64_t>(kind.builds),
                  .failures = static_cast<int64_t>(kind.failures),
                  .build_ms = static_cast<double>(kind.build_time.count()) / 1000,
                  .idle_memory_bytes = static_cast<int64_t>(kind.memory_bytes),
                  .last_error = kind.last_error};
    for (const auto& [profile, _] : manager.config().profiles)
      if (manager.kind_of(profile) == kind.kind) part.profiles.push_back(profile);
    out.push_back(std::move(part));
  }
  return out;
}

Status status_of(Manager& manager, const StatusOptions& options) {
  Status out{.host = host_status(manager.config().home),
             .server = {.pid = ::getpid(),
                        .uptime_s = seconds(Clock::now() - manager.started_at()),
                        .owner = owner()},
             .pressure = pressure_part()};
  const PressureStatus pressure = manager.pressure().status();
  add_level(pressure, out.pressure);
  if (manager.prepared()) {
    out.server.id = std::filesystem::path(manager.folder()).filename();
    out.pool = pool_part(manager);
    for (const auto& sandbox : manager.list()) {
      out.sandboxes.push_back(status_of(*sandbox, options.disk));
      if (const auto text = pressure.done_to(sandbox->id())) out.sandboxes.back().done_to_it.push_back(*text);
    }
  }
  if (options.ended) out.ended = ended_of(manager);
  out.totals = totals_of(out, manager.config().limits);
  return out;
}

}  // namespace hutch::sandbox
