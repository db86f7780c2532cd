#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <set>
#include <sstream>

#include "base/sys.h"
#include "runtime/cgroup.h"
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

bool has_controllers(const std::string& text) {
  std::istringstream in(text);
  std::set<std::string> found;
  for (std::string word; in >> word;) found.insert(word);
  return std::ranges::all_of(kControllers, [&](const char* name) { return found.contains(name); });
}

/// Makes `base` and hands the controllers down to it. Returns why that did not work, or nothing.
std::string prepare_v2(const std::string& parent, const std::string& base) {
  try {
    if (!has_controllers(sys::read_file(parent + "/cgroup.controllers")))
      return fmt::format("{} does not offer the memory, pids and cpu controllers", parent);
    sys::make_dirs(base);
    for (const auto& folder : {parent, base})
      if (!has_controllers(sys::read_file(folder + "/cgroup.subtree_control")))
        sys::write_file(folder + "/cgroup.subtree_control", "+memory +pids +cpu");
    return ::access((parent + "/cgroup.procs").c_str(), W_OK) == 0 ? ""
                                                                   : parent + "/cgroup.procs is not writable";
  } catch (const Error& e) {
    return e.what();
  }
}

/// systemd delegates user@UID.service to the user; anything deeper is below it.
std::string delegated_parent(const std::string& own) {
  const size_t service = own.find("/user@");
  return service == std::string::npos ? own : own.substr(0, own.find('/', service + 1));
}

}  // namespace

CgroupHost CgroupHost::probe() {
  CgroupHost host;
  const auto groups = own_groups();
  const auto mounts = read_mountinfo("/proc/self/mountinfo");
  for (const auto& mount : mounts) {
    if (mount.type == "cgroup") {
      for (const char* controller : {"memory", "pids", "cpu", "cpuacct"})
        if (mount.has_option(controller) && groups.contains(controller))
          host.bases_[controller] = own_folder(mount, groups.at(controller)) + "/hutch";
    } else if (mount.type == "cgroup2") {
      host.hybrid_mount_ = mount.target;
    }
  }
  if (host.bases_.contains("memory")) {
    if (::access(host.bases_["memory"].substr(0, host.bases_["memory"].rfind('/')).c_str(), W_OK) != 0)
      host.problem_ = fmt::format("{} is not writable", host.bases_["memory"]);
  } else if (!host.hybrid_mount_.empty()) {
    host.v2_ = true;
    const std::string mount = host.v2_mount_ = std::exchange(host.hybrid_mount_, "");
    const std::string parent = ::geteuid() == 0 ? mount : delegated_parent(mount + groups.at(""));
    host.bases_ = {{"", parent + "/hutch.slice"}};
    host.problem_ = prepare_v2(parent, host.bases_.at(""));
  } else {
    host.problem_ = "no cgroup file system is mounted";
  }
  if (!host.problem_.empty()) host.bases_.clear();
  return host;
}

}  // namespace hutch::runtime
