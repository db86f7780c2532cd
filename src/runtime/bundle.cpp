#include "runtime/bundle.h"

#include <array>
#include <nlohmann/json.hpp>

#include "runtime/trust_bundle.h"

namespace hutch::runtime {

namespace {

using nlohmann::json;

/// Enough for package managers and servers; each of them has power over the sandbox's own ids and namespaces
/// only. Left out of Docker's default set: NET_RAW, MKNOD, AUDIT_WRITE.
constexpr std::array kCapabilities = {"CAP_CHOWN",   "CAP_DAC_OVERRIDE",     "CAP_FOWNER",    "CAP_FSETID",
                                      "CAP_KILL",    "CAP_SETGID",           "CAP_SETUID",    "CAP_SETPCAP",
                                      "CAP_SETFCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT"};

/// Docker's list and its later additions: facts about the host, or ways to change it.
constexpr std::array kMaskedPaths = {"/proc/acpi",          "/proc/asound",
                                     "/proc/interrupts",    "/proc/kcore",
                                     "/proc/keys",          "/proc/kmsg",
                                     "/proc/latency_stats", "/proc/sched_debug",
                                     "/proc/scsi",          "/proc/timer_list",
                                     "/proc/timer_stats",   "/sys/devices/virtual/powercap",
                                     "/sys/firmware",       "/sys/fs/selinux",
                                     "/sys/kernel/debug",   "/sys/devices/system/cpu/cpu0/thermal_throttle"};
/// The last four are the agent's own: a command may not offer it to the out-of-memory killer.
constexpr std::array kReadonlyPaths = {"/proc/bus",
                                       "/proc/fs",
                                       "/proc/irq",
                                       "/proc/sys",
                                       "/proc/sysrq-trigger",
                                       "/proc/1/oom_adj",
                                       "/proc/1/oom_score_adj",
                                       "/proc/1/task/1/oom_adj",
                                       "/proc/1/task/1/oom_score_adj"};

json mount(const char* target, const char* type, std::vector<std::string> options) {
  return {{"destination", target}, {"type", type}, {"source", type}, {"options", std::move(options)}};
}

json mounts(const SandboxSpec& spec, const BundleOptions& options) {
  json list = json::array();
  list.push_back(mount("/proc", "proc", {"nosuid", "noexec", "nodev"}));
  list.push_back(mount("/dev", "tmpfs", {"nosuid", "noexec", "strictatime", "mode=755", "size=64k"}));
  list.push_back(
      mount("/dev/pts", "devpts", {"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}));
  list.push_back(
      mount("/dev/shm", "tmpfs",
            {"nosuid", "noexec", "nodev", "mode=1777", "size=" + std::to_string(spec.limits.shm_bytes)}));
  list.push_back(mount("/dev/mqueue", "mqueue", {"nosuid", "noexec", "nodev"}));
  list.push_back(mount("/sys", "sysfs", {"nosuid", "noexec", "nodev", "ro"}));
  list.push_back(mount("/run", "tmpfs", {"nosuid", "nodev", "mode=755", "size=64m"}));
  json agent = mount(kAgentPath, "bind", {"bind", "ro", "nosuid", "nodev"});
  agent["source"] = options.agent;
  list.push_back(std::move(agent));
  if (!options.trust.empty()) {
    json trust = mount(kTrustPath, "bind", {"bind", "ro", "nosuid", "nodev", "noexec"});
    trust["source"] = options.trust;
    list.push_back(std::move(trust));
  }
  if (options.is_kernel) {  // gVisor covers an empty /tmp with a tmpfs unless it is told what is there
    json tmp = mount("/tmp", "bind", {"bind", "rw", "nosuid", "nodev"});
    tmp["source"] = options.root + "/tmp";
    list.push_back(std::move(tmp));
  }
  return list;
}

json namespaces(const std::string& user_namespace, bool make_user) {
  json list = json::array();
  for (const char* type : {"pid", "mount", "ipc", "uts", "network", "cgroup"})
    list.push_back({{"type", type}});
  if (!user_namespace.empty()) list.push_back({{"type", "user"}, {"path", user_namespace}});
  if (make_user) list.push_back({{"type", "user"}});
  return list;
}

}  // namespace

std::string bundle_config(const SandboxSpec& spec, const BundleOptions& options) {
  json config = {
      {"ociVersion", "1.0.2"},
      {"hostname", "sandbox"},
      {"root", {{"path", options.root}, {"readonly", false}}},
      {"mounts", mounts(spec, options)},
      {"process",
       {{"terminal", false},
        {"user", {{"uid", 0}, {"gid", 0}}},
        {"args", {kAgentPath}},
        {"env", {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}},
        {"cwd", "/"},
        {"noNewPrivileges", true},
        // No inheritable and no ambient ones (CVE-2022-24769).
        {"capabilities",
         {{"bounding", kCapabilities}, {"effective", kCapabilities}, {"permitted", kCapabilities}}}}},
      {"linux",
       {{"namespaces", namespaces(options.user_namespace, options.is_kernel && spec.first_id != 0)},
        {"maskedPaths", kMaskedPaths},
        {"readonlyPaths", kReadonlyPaths}}},
  };
  // No `seccomp` here: the agent loads its own precompiled filter before it answers anything, which is the
  // same on every runtime and spares libseccomp's compilation at each start (about 3 ms of crun's 9).
  json& linux = config["linux"];
  if (spec.first_id != 0) {  // runc 1.1 wants the ids also of a namespace that it joins
    const json map = json::array({{{"containerID", 0}, {"hostID", spec.first_id}, {"size", 65536}}});
    linux["uidMappings"] = map;
    linux["gidMappings"] = map;
  }
  if (options.is_kernel)
    for (const auto& [type, value] :
         {std::pair("RLIMIT_NOFILE", spec.limits.open_files), {"RLIMIT_CORE", 0ul}})
      config["process"]["rlimits"].push_back({{"type", type}, {"hard", value}, {"soft", value}});
  if (!options.cgroups_path.empty()) linux["cgroupsPath"] = options.cgroups_path;
  return config.dump();
}

}  // namespace hutch::runtime
