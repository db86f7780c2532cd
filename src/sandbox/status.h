#pragma once

#include <optional>
#include <string>
#include <vector>

#include "sandbox/manager.h"
#include "schema/json.h"

/// How things stand, in one piece: for the resource `hutch://status`, for `hutch ls`, `hutch stats` and
/// `hutch pool`. Numbers of bytes and seconds are plain, for programs.
namespace hutch::sandbox {

struct HostStatus {
  int64_t cpus = 0;
  double load = 0;
  int64_t memory_bytes = 0, memory_available_bytes = 0;
  int64_t disk_bytes = 0, disk_free_bytes = 0;
  std::string cgroup;

  template <class V>
  void describe(V& v) {
    v.required("cpus", cpus, "Processors.");
    v.required("load", load, "Processes that ran or waited for the disk, mean of the last minute.");
    v.required("memory_bytes", memory_bytes, "Memory.");
    v.required("memory_available_bytes", memory_available_bytes, "Memory to be had without swapping.");
    v.required("disk_bytes", disk_bytes, "Disk of the data folder.");
    v.required("disk_free_bytes", disk_free_bytes, "Free disk of the data folder.");
    v.required("cgroup", cgroup, "What limits are made of.", {.one_of = {"v2", "v1", "none"}});
  }
};

struct ServerStatus {
  std::string id;
  int64_t pid = 0, uptime_s = 0;
  std::string owner;

  template <class V>
  void describe(V& v) {
    v.required("id", id, "Name of its folder in the data folder; empty before its first call.");
    v.required("pid", pid, "Its process.");
    v.required("uptime_s", uptime_s, "Seconds since its start.");
    v.required("owner", owner, "The program that started it, and where.");
  }
};

/// Want of memory: what the kernel says, which is the part of the last 10 s in which some, or all, waited;
/// and of a server what it makes of it.
struct PressurePart {
  std::optional<double> memory_some_percent, memory_full_percent;
  std::optional<std::string> level, available, last_action, last_refusal;
  std::optional<int64_t> since_s, squeezed;

  template <class V>
  void describe(V& v) {
    v.optional("memory_some_percent", memory_some_percent, "Time in which some process waited for memory.");
    v.optional("memory_full_percent", memory_full_percent, "Time in which all of them did.");
    v.optional("level", level, "normal, warning, high, critical or emergency.");
    v.optional("since_s", since_s, "Seconds since it came to that.");
    v.optional("available", available, "The memory that decides, when it was looked at last.");
    v.optional("squeezed", squeezed, "Sandboxes that are throttled or frozen.");
    v.optional("last_action", last_action, "What was done last.");
    v.optional("last_refusal", last_refusal, "Why a sandbox was refused last.");
  }
};

/// One kind of warm sandboxes.
struct PoolPart {
  std::string kind;
  std::vector<std::string> profiles;
  int64_t ready = 0, building = 0, target = 0;
  std::string reason;
  int64_t hits = 0, misses = 0, builds = 0, failures = 0;
  double build_ms = 0;
  int64_t idle_memory_bytes = 0;
  std::string last_error;

  template <class V>
  void describe(V& v) {
    v.required("kind", kind, "Named after its first profile.");
    v.required("profiles", profiles, "Profiles that it serves.");
    v.required("ready", ready, "Sandboxes that wait to be used.");
    v.required("building", building, "Those under way.");
    v.required("target", target, "How many are to be ready.");
    v.required("reason", reason, "Why that many.");
    v.required("hits", hits, "Calls that got one.");
    v.required("misses", misses, "Calls that found none.");
    v.required("builds", builds, "Those built so far.");
    v.required("failures", failures, "Builds that failed.");
    v.required("build_ms", build_ms, "Time that one takes.");
    v.required("idle_memory_bytes", idle_memory_bytes, "Memory of one that waits.");
    v.required("last_error", last_error, "Why the last build failed; empty when it did not.");
  }
};

struct SandboxStatus {
  std::string id, name, state, profile;
  int64_t age_s = 0, idle_s = 0;
  bool in_use = false;
  std::optional<int64_t> ends_in_s;
  std::optional<int64_t> memory_bytes, pids;
  std::optional<double> cpu_s;
  std::optional<int64_t> disk_bytes;
  int64_t memory_limit_bytes = 0, pids_limit = 0, disk_limit_bytes = 0;
  double cpus_limit = 0;
  std::vector<std::string> done_to_it;

  template <class V>
  void describe(V& v) {
    v.required("id", id, "Its id.");
    v.required("name", name, "Its name; empty when it has none.");
    v.required("state", state, "What it does.");
    v.required("profile", profile, "Kind of sandbox.");
    v.required("age_s", age_s, "Seconds since it was made.");
    v.required("in_use", in_use, "Whether a call or a command runs.");
    v.required("idle_s", idle_s, "Seconds since its last use.");
    v.optional("ends_in_s", ends_in_s, "Seconds until it ends unless it is used, or whatever it does.");
    v.optional("memory_bytes", memory_bytes, "Memory in use.");
    v.required("memory_limit_bytes", memory_limit_bytes, "Its limit.");
    v.optional("cpu_s", cpu_s, "Processor time used so far.");
    v.required("cpus_limit", cpus_limit, "Processors that it may use.");
    v.optional("pids", pids, "Processes and threads.");
    v.required("pids_limit", pids_limit, "Their limit.");
    v.optional("disk_bytes", disk_bytes, "Disk that its files take.");
    v.required("disk_limit_bytes", disk_limit_bytes, "Its limit.");
    v.required("done_to_it", done_to_it, "What befell it at its limits, or for want of memory.");
  }
};

struct EndedStatus {
  std::string id, name, profile, cause;
  int64_t ended_s = 0;

  template <class V>
  void describe(V& v) {
    v.required("id", id, "Its id.");
    v.required("name", name, "Its name; empty when it had none.");
    v.required("profile", profile, "Kind of sandbox.");
    v.required("cause", cause, "Why it ended.");
    v.required("ended_s", ended_s, "Seconds since then.");
  }
};

/// Sums over the sandboxes of one server, beside what may be in use at most.
struct TotalsStatus {
  int64_t sandboxes = 0, sandboxes_limit = 0, warm = 0;
  int64_t memory_bytes = 0, memory_limits_bytes = 0, memory_limits_max_bytes = 0;
  int64_t disk_bytes = 0, disk_limits_bytes = 0;

  template <class V>
  void describe(V& v) {
    v.required("sandboxes", sandboxes, "Sandboxes that somebody has.");
    v.required("sandboxes_limit", sandboxes_limit,
               "limits.max_sandboxes, for those of all servers together.");
    v.required("warm", warm, "Sandboxes that wait to be used, or are being built for that.");
    v.required("memory_bytes", memory_bytes, "Memory in use.");
    v.required("memory_limits_bytes", memory_limits_bytes, "Sum of the limits.");
    v.required("memory_limits_max_bytes", memory_limits_max_bytes,
               "What that sum may be: the host's memory times limits.memory_overcommit.");
    v.required("disk_bytes", disk_bytes, "Disk in use.");
    v.required("disk_limits_bytes", disk_limits_bytes, "Sum of the limits.");
  }
};

struct Status {
  HostStatus host;
  ServerStatus server;
  PressurePart pressure;
  TotalsStatus totals;
  std::vector<PoolPart> pool;
  std::vector<SandboxStatus> sandboxes;
  std::optional<std::vector<EndedStatus>> ended;

  template <class V>
  void describe(V& v) {
    v.required("host", host, "This machine.");
    v.required("server", server, "The server whose sandboxes these are.");
    v.required("pressure", pressure, "Want of memory.");
    v.required("totals", totals, "All sandboxes of this server together.");
    v.required("pool", pool, "Warm sandboxes, ready before they are asked for.");
    v.required("sandboxes", sandboxes, "The live ones.");
    v.optional("ended", ended, "Those that are no more.");
  }
};

struct StatusOptions {
  bool disk = true;  // counting the files of a sandbox takes time
  bool ended = false;
};

/// Of the host alone; `folder` is where the data is, or is to be.
HostStatus host_status(const std::string& folder);
PressurePart pressure_part();
std::vector<PoolPart> pool_part(Manager& manager);
/// Makes nothing: a server that has not had its first call has no sandboxes. May take its time.
Status status_of(Manager& manager, const StatusOptions& options = {});

}  // namespace hutch::sandbox
