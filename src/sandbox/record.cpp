#include "sandbox/record.h"

#include <signal.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "base/sys.h"
#include "sandbox/base_json.h"

// Times are whole numbers: seconds, microseconds, and milliseconds since 1970.
namespace nlohmann {

template <class Value>
struct adl_serializer<std::optional<Value>> {
  static void to_json(json& j, const std::optional<Value>& value) {
    if (value)
      j = *value;
    else
      j = nullptr;
  }
  static void from_json(const json& j, std::optional<Value>& value) {
    value.reset();
    if (!j.is_null()) value = j.get<Value>();
  }
};

template <class Rep, class Period>
struct adl_serializer<std::chrono::duration<Rep, Period>> {
  using Duration = std::chrono::duration<Rep, Period>;
  static void to_json(json& j, const Duration& value) { j = value.count(); }
  static void from_json(const json& j, Duration& value) { value = Duration(j.get<Rep>()); }
};

template <>
struct adl_serializer<hutch::sandbox::WallClock::time_point> {
  using Time = hutch::sandbox::WallClock::time_point;
  static void to_json(json& j, const Time& value) {
    j = std::chrono::duration_cast<std::chrono::milliseconds>(value.time_since_epoch()).count();
  }
  static void from_json(const json& j, Time& value) {
    value = Time(std::chrono::milliseconds(j.get<int64_t>()));
  }
};

}  // namespace nlohmann

namespace hutch::runtime {
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(Enforcement, enforced, detail)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(DiskId, loop, image_device, image_inode)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(Limits, memory_bytes, cpus, pids, open_files, shm_bytes,
                                                disk_bytes)
}  // namespace hutch::runtime

namespace hutch::sandbox {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(AttachedVolume, name, target, read_only, size_bytes,
                                                not_limited, disk)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(Description, id, name, profile, runtime, workdir, user, env,
                                                labels, limits, isolation, warm, ttl, idle_timeout,
                                                pause_after, background_keeps_alive, created_at, expires_at,
                                                create_time, base, volumes, network, allow, secrets)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(TerminalSize, rows, columns)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(KeptSession, language, name, split)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(KeptProcess, stream, number, title, terminal, hidden,
                                                counts_as_use, has_answers, was_cancelled, started_at,
                                                oom_kills_before, next_unread, session)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(Record, id, runtime, state, pid, start_time, cgroup_v2,
                                                cgroups, first_id, disk, layers, about, owner, is_default,
                                                outlives_server, paused, processes)

std::string to_line(const Record& record) {
  return nlohmann::json(record).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace) + "\n";
}

std::optional<Record> read_record(const std::string& path) {
  std::optional<Record> found;
  if (!sys::exists(path)) return found;
  std::istringstream lines(sys::read_file(path));
  for (std::string line; std::getline(lines, line);) {
    try {
      found = nlohmann::json::parse(line).get<Record>();
    } catch (const nlohmann::json::exception&) {
      continue;
    }
  }
  return found;
}

UniqueFd recorded_agent(const Record& record) {
  if (record.pid <= 0) return {};
  try {
    UniqueFd pidfd = pidfd_open(static_cast<pid_t>(record.pid));
    // Compared after the pidfd is held, so that the number cannot change its owner in between.
    if (process_start_time(static_cast<pid_t>(record.pid)) != record.start_time) return {};
    if (wait_for_end(pidfd.get(), Clock::now())) return {};
    return pidfd;
  } catch (const Error&) {
    return {};  // there is no such process
  }
}

bool end_recorded_agent(const Record& record, Clock::time_point deadline) {
  const UniqueFd pidfd = recorded_agent(record);
  if (!pidfd) return true;
  pidfd_signal(pidfd.get(), SIGKILL);
  runtime::Cgroup(record.cgroup_v2, record.cgroups).thaw();  // on v1 a frozen process does not end
  return wait_for_end(pidfd.get(), deadline);
}

}  // namespace hutch::sandbox
