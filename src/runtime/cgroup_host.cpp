#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <set>
#include <sstream>

#include "base/sys.h"
#include "runtime/cgroup.h"
#include "runtime/kernel_files.h"
#include "runtime/mountinfo.h"

namespace hutch::runtime {

namespace {

/// Our own group by controller, from /proc/self/cgroup ("4:memory:/a/b", v2: "0::/a/b").
std::map<std::string, std::string> own_groups() {
  std::map<std::string, std::string> out;
  std::istringstream lines(sys::read_file("/proc/self/cgroup"));
  for (std::string line; std::getline(lines, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    std::istringstream controllers(line.substr(first + 1, second - first - 1));
    const std::string path = line.substr(second + 1);
    if (second == first + 1) out[""] = path;
    for (std::string name; std::getline(controllers, name, ',');) out[name] = path;
  }
  return out;
}

/// The folder of our own group below a cgroup mount. In a container the mount often shows only a part of the
/// tree (its root field), or the path of /proc/self/cgroup does not exist below it: then the mount itself is
/// ours.
std::string own_folder(const Mount& mount, const std::string& group) {
  std::string relative = group;
  if (mount.root != "/" && relative.starts_with(mount.root)) relative.erase(0, mount.root.size());
  const std::string path = mount.target + (relative == "/" ? "" : relative);
  return sys::exists(path + "/cgroup.procs") ? path : mount.target;
}

constexpr std::array kControllers = {"memory", "pids", "cpu"};

std::set<std::string> words_in(const std::string& path) {
  std::istringstream in(sys::read_file(path));
  std::set<std::string> words;
  for (std::string word; in >> word;) words.insert(word);
  return words;
}

constexpr std::string_view kAside = "/supervisor";

/// A group that hands controllers down may have no processes itself, unless it is the host's root. In a
/// container, or a scope of our own, it has: they go into a group beside ours, as Docker in Docker and
/// systemd's DelegateSubgroup= do it.
void move_processes_aside(const std::string& group) {
  const std::string aside = group + std::string(kAside);
  sys::make_dirs(aside);
  for (const auto& pid : words_in(group + "/cgroup.procs")) {
    try {
      sys::write_file(aside + "/cgroup.procs", pid);
    } catch (const Error&) {
      // It ended meanwhile, or it may not be moved: then handing down fails again and says so.
    }
  }
}

/// A group and those above it, up to the top of what is mounted.
std::vector<std::string> with_those_above(std::string folder, const std::string& mount) {
  std::vector<std::string> out;
  for (; folder.starts_with(mount); folder.resize(folder.rfind('/'))) out.push_back(folder);
  return out;
}

std::optional<GroupMemory> memory_of(const std::string& folder) {
  const bool v2 = sys::exists(folder + "/memory.current");
  const auto used = read_number(folder + (v2 ? "/memory.current" : "/memory.usage_in_bytes"));
  auto limit = read_number(folder + (v2 ? "/memory.max" : "/memory.limit_in_bytes"));
  // Above this one it is throttled.
  if (const auto high = read_number(folder + "/memory.high")) limit = std::min(*high, limit.value_or(*high));
  if (!used || !limit) return std::nullopt;
  // Pages of files can be taken back, as MemAvailable counts them for the host.
  uint64_t reclaimable = 0;
  for (const std::string name : {"inactive_file", "active_file"})
    reclaimable += read_keyed(folder + "/memory.stat", (v2 ? "" : "total_") + name).value_or(0);
  return GroupMemory{*limit, *used - std::min(*used, reclaimable)};
}

double part_left(const GroupMemory& group) {
  return 1 - static_cast<double>(group.used_bytes) /
                 static_cast<double>(std::max<uint64_t>(1, group.limit_bytes));
}

/// Where our groups can be below a group, and what is missing there.
struct Base {
  std::string problem;
  bool usable = false;
};

/// Makes `base` and hands the controllers down to it.
Base prepare_v2(const std::string& parent, const std::string& base) {
  try {
    if (::access((parent + "/cgroup.procs").c_str(), W_OK) != 0)
      return {.problem = parent + "/cgroup.procs is not writable"};
    sys::make_dirs(base);
    std::string missing;
    for (int attempt = 0;; ++attempt) {
      try {
        missing = hand_controllers_down(parent);
        break;
      } catch (const Error& e) {
        if (e.code() != Errc::conflict || attempt == 5) throw;
        move_processes_aside(parent);  // again and again: they may fork meanwhile
      }
    }
    (void)hand_controllers_down(base);
    if (!missing.empty()) missing = fmt::format("{} does not offer: {}", parent, missing);
    return {.problem = missing, .usable = true};
  } catch (const Error& e) {
    return {.problem = e.what()};
  }
}

/// systemd delegates user@UID.service to the user; anything deeper is below it. Otherwise it is our own
/// group, or the one above it when we, or a server before us, have been moved aside.
std::string delegated_parent(const std::string& own) {
  if (const size_t service = own.find("/user@"); service != std::string::npos)
    return own.substr(0, own.find('/', service + 1));
  if (own.ends_with(kAside)) {
    const std::string above = own.substr(0, own.size() - kAside.size());
    if (sys::exists(above + "/hutch.slice")) return above;
  }
  return own;
}

}  // namespace

std::string hand_controllers_down(const std::string& folder) {
  const auto offered = words_in(folder + "/cgroup.controllers"),
             handed = words_in(folder + "/cgroup.subtree_control");
  std::string missing, wanted;
  for (const char* name : kControllers) {
    if (!offered.contains(name))
      missing += fmt::format("{}{}", missing.empty() ? "" : ", ", name);
    else if (!handed.contains(name))
      wanted += fmt::format("+{} ", name);
  }
  if (!wanted.empty()) sys::write_file(folder + "/cgroup.subtree_control", wanted);
  return missing;
}

CgroupHost CgroupHost::probe() {
  CgroupHost host;
  const auto groups = own_groups();
  const auto mounts = read_mountinfo("/proc/self/mountinfo");
  std::string own;  // our group on v2
  const auto note_memory = [&](const std::string& folder, const std::string& mount) {
    for (auto& group : with_those_above(folder, mount)) host.memory_groups_.push_back(std::move(group));
  };
  for (const auto& mount : mounts) {
    if (mount.type == "cgroup") {
      for (const char* controller : {"memory", "pids", "cpu", "cpuacct"})
        if (mount.has_option(controller) && groups.contains(controller))
          host.bases_[controller] = own_folder(mount, groups.at(controller)) + "/hutch";
      if (mount.has_option("memory") && groups.contains("memory"))
        note_memory(own_folder(mount, groups.at("memory")), mount.target);
      // Nothing that is promised needs this one: it may also be missing, or another's.
      if (mount.has_option("freezer") && groups.contains("freezer")) {
        const std::string own_freezer = own_folder(mount, groups.at("freezer"));
        if (::access(own_freezer.c_str(), W_OK) == 0) host.bases_["freezer"] = own_freezer + "/hutch";
      }
    } else if (mount.type == "cgroup2") {
      host.hybrid_mount_ = mount.target;
      own = groups.contains("") ? own_folder(mount, groups.at("")) : mount.target;
    }
  }
  if (host.bases_.contains("memory")) {
    if (::access(host.bases_["memory"].substr(0, host.bases_["memory"].rfind('/')).c_str(), W_OK) != 0) {
      host.problem_ = fmt::format("{} is not writable", host.bases_["memory"]);
      host.bases_.clear();
    }
  } else if (!host.hybrid_mount_.empty()) {
    host.v2_ = true;
    host.v2_mount_ = std::exchange(host.hybrid_mount_, "");
    const std::string parent = ::geteuid() == 0 ? host.v2_mount_ : delegated_parent(own);
    const Base base = prepare_v2(parent, parent + "/hutch.slice");
    if (base.usable) host.bases_ = {{"", parent + "/hutch.slice"}};
    host.problem_ = base.problem;
    note_memory(own, host.v2_mount_);
    if (base.usable) note_memory(parent + "/hutch.slice", host.v2_mount_);
  } else {
    host.problem_ = "no cgroup file system is mounted";
  }
  return host;
}

std::optional<GroupMemory> CgroupHost::tightest_memory(uint64_t host_bytes) const {
  std::optional<GroupMemory> tightest;
  for (const auto& folder : memory_groups_) {
    const auto group = memory_of(folder);
    if (!group || group->limit_bytes >= host_bytes) continue;
    if (!tightest || part_left(*group) < part_left(*tightest)) tightest = group;
  }
  return tightest;
}

}  // namespace hutch::runtime
