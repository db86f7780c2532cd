#include "runtime/counts.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "base/sys.h"

namespace hutch::runtime {

namespace {

/// Half of a number, divided by as many sandboxes as `max_sandboxes` allows unless it is set.
constexpr uint64_t kShares = 128;
constexpr const char* kFolder = "/proc/sys/user/";

std::optional<uint64_t> number_in(const std::string& path) {
  const UniqueFd fd = sys::open_if_exists(path, O_RDONLY);
  if (!fd) return std::nullopt;
  const std::string text = sys::read_all(fd.get());
  uint64_t value = 0;
  if (std::from_chars(text.data(), text.data() + text.size(), value).ec != std::errc{}) return std::nullopt;
  return value;
}

/// No user namespace inside, and of the others what the OCI runtime makes and a few to spare.
void cap_namespaces(Counts& counts) {
  for (const char* kind : {"user", "cgroup", "ipc", "mnt", "net", "pid", "time", "uts"}) {
    const std::string file = fmt::format("max_{}_namespaces", kind);
    if (sys::exists(kFolder + file))  // time: Linux 5.6
      counts.caps.insert(counts.caps.end(), {file, std::string_view(kind) == "user" ? "0" : "8"});
  }
}

/// The host's number is in `setting`: a server in a namespace of its own finds no limit in /proc/sys/user.
std::string cap_share(Counts& counts, const std::string& file, const std::string& setting, uint64_t least,
                      const char* what) {
  const auto here = number_in(kFolder + file), host = number_in(setting);
  if (!here) return "";  // fanotify: Linux 5.13
  const uint64_t all = std::min(*here, host.value_or(UINT64_MAX)), share = std::max(all / kShares, least);
  if (share >= all) return "";
  counts.caps.insert(counts.caps.end(), {file, std::to_string(share)});
  return fmt::format("{}{} of {} {}", counts.said.detail.empty() ? "" : ", ", share, all, what);
}

void limit_share(Counts& counts, __rlimit_resource resource, uint64_t least) {
  rlimit now{};
  if (::getrlimit(resource, &now) != 0) return;
  const uint64_t share =
      std::max<uint64_t>(now.rlim_max == RLIM_INFINITY ? 0 : now.rlim_max / kShares, least);
  counts.rlimits[resource] = std::min<uint64_t>(share, now.rlim_max);
}

void give_shares(Counts& counts) {
  const std::string inotify = "/proc/sys/fs/inotify/max_user_", fanotify = "/proc/sys/fs/fanotify/max_user_";
  auto& said = counts.said.detail;
  said += cap_share(counts, "max_inotify_instances", inotify + "instances", 8, "inotify instances");
  said += cap_share(counts, "max_inotify_watches", inotify + "watches", 2048, "watches");
  said += cap_share(counts, "max_fanotify_groups", fanotify + "groups", 2, "fanotify groups");
  said += cap_share(counts, "max_fanotify_marks", fanotify + "marks", 256, "fanotify marks");
  limit_share(counts, RLIMIT_SIGPENDING, 1024);
  limit_share(counts, RLIMIT_MSGQUEUE, 100 << 10);  // one queue of the default size
  limit_share(counts, RLIMIT_MEMLOCK, 64 << 10);
}

}  // namespace

Counts counts_of_sandbox(bool own_user) {
  Counts counts;
  struct statvfs proc {};
  const bool writable = ::statvfs(kFolder, &proc) == 0 && (proc.f_flag & ST_RDONLY) == 0;
  if (own_user) {
    counts.said = {true, "inotify, timers, message queues and namespaces are counted for it alone"};
  } else {
    give_shares(counts);
    counts.said = {writable, "shares of what the server's user may have: " + counts.said.detail};
  }
  cap_namespaces(counts);
  if (writable) return counts;
  counts.caps.clear();
  if (!own_user) counts.said.detail = "/proc/sys/user is read-only: it can use up what its user may have";
  return counts;
}

}  // namespace hutch::runtime
