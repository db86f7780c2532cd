#include "runtime/cgroup.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <sstream>
#include <thread>

#include "base/process.h"
#include "base/sys.h"
#include "runtime/kernel_files.h"

namespace hutch::runtime {

using namespace std::chrono_literals;

namespace {

constexpr int64_t kCpuPeriodUs = 100'000;
constexpr auto kFreezeTimeout = 1000ms;  // a process that waits for a disk is frozen when that has answered

}  // namespace

Cgroup::Cgroup(const CgroupHost& host, const std::string& server_id, const std::string& sandbox_id)
    : v2_(host.v2()) {
  for (const auto& [controller, base] : host.bases())
    folders_[controller] = fmt::format("{}/{}/{}", base, server_id, sandbox_id);
}

void Cgroup::create() {
  for (const auto& [_, path] : folders_) {
    // Another server that ends may remove the shared folder above between two of our steps: then again.
    for (int attempt = 0;; ++attempt) {
      try {
        sys::make_dirs(path);
        break;
      } catch (const Error& e) {
        if (e.code() != Errc::not_found || attempt == 5) throw;
      }
    }
  }
  if (!v2_) return;
  // The server's folder has to hand down what base, prepared by the probe, offers to it.
  for (const auto& [_, path] : folders_) hand_controllers_down(path.substr(0, path.rfind('/')));
}

std::vector<std::string> Cgroup::join_files() const {
  std::vector<std::string> out;
  for (const auto& [_, path] : folders_) out.push_back(path + (v2_ ? "/cgroup.procs" : "/tasks"));
  return out;
}

const std::string* Cgroup::folder(const std::string& controller) const {
  const auto it = folders_.find(v2_ ? "" : controller);
  if (it == folders_.end()) return nullptr;
  // On v2 a controller that was not delegated to us has no files in the folder.
  return !v2_ || sys::exists(fmt::format("{}/{}.max", it->second, controller)) ? &it->second : nullptr;
}

std::map<std::string, Enforcement> Cgroup::apply(const CgroupLimits& limits) const {
  std::map<std::string, Enforcement> out;
  const auto attempt = [&](const char* name, auto&& set) {
    try {
      out[name] = set();
    } catch (const Error& e) {
      out[name] = {false, e.what()};
    }
  };
  if (limits.memory_bytes != 0) {
    // v1 keeps memory+swap >= memory at all times: when raising, the sum goes first; when lowering, last.
    const auto* memory = folder("memory");
    const auto current =
        memory != nullptr && !v2_ ? read_number(*memory + "/memory.limit_in_bytes") : std::nullopt;
    const bool raising = current && *current < limits.memory_bytes;
    if (raising) attempt("swap", [&] { return apply_swap(limits.memory_bytes); });
    attempt("memory", [&] { return apply_memory(limits.memory_bytes); });
    if (!raising) attempt("swap", [&] { return apply_swap(limits.memory_bytes); });
  }
  if (limits.cpus > 0) attempt("cpus", [&] { return apply_cpus(limits.cpus); });
  if (limits.pids > 0) attempt("pids", [&] { return apply_pids(limits.pids); });
  return out;
}

namespace {

Enforcement missing(std::string_view controller) {
  return {false, fmt::format("the {} controller is not available", controller)};
}

Enforcement write_and_check(const std::string& path, const std::string& value, uint64_t slack = 0) {
  sys::write_file(path, value);
  const std::string found = read_value(path);
  if (found == value) return {true, found};
  uint64_t wanted = 0, got = 0;
  std::from_chars(value.data(), value.data() + value.size(), wanted);
  std::from_chars(found.data(), found.data() + found.size(), got);
  const bool close = got <= wanted && wanted - got <= slack;
  return {close, close ? found : fmt::format("wrote {} to {}, the kernel keeps {}", value, path, found)};
}

const uint64_t kPageSlack = 65536;  // the kernel rounds memory limits down to whole pages

}  // namespace

Enforcement Cgroup::apply_memory(uint64_t bytes) const {
  const auto* path = folder("memory");
  if (path == nullptr) return missing("memory");
  return write_and_check(*path + (v2_ ? "/memory.max" : "/memory.limit_in_bytes"), std::to_string(bytes),
                         kPageSlack);
}

Enforcement Cgroup::apply_swap(uint64_t bytes) const {
  const auto* path = folder("memory");
  if (path == nullptr) return missing("memory");
  const std::string file = *path + (v2_ ? "/memory.swap.max" : "/memory.memsw.limit_in_bytes");
  // Without swap accounting the file is absent; then a host without swap is as good as a limit.
  if (!sys::exists(file)) {
    const bool no_swap = sys::read_file("/proc/swaps").find('\n') + 1 >= sys::read_file("/proc/swaps").size();
    return {no_swap, no_swap ? "0 (the host has no swap)" : "the kernel does not account swap"};
  }
  Enforcement result = write_and_check(file, v2_ ? "0" : std::to_string(bytes), kPageSlack);
  if (result.enforced) result.detail = "0";
  return result;
}

Enforcement Cgroup::apply_cpus(double cpus) const {
  const auto* path = folder("cpu");
  if (path == nullptr) return missing("cpu");
  const auto quota = static_cast<int64_t>(std::llround(cpus * static_cast<double>(kCpuPeriodUs)));
  Enforcement result;
  if (v2_) {
    result = write_and_check(*path + "/cpu.max", fmt::format("{} {}", quota, kCpuPeriodUs));
  } else {
    sys::write_file(*path + "/cpu.cfs_period_us", std::to_string(kCpuPeriodUs));
    result = write_and_check(*path + "/cpu.cfs_quota_us", std::to_string(quota));
  }
  if (result.enforced) result.detail = fmt::format("{}", cpus);
  return result;
}

Enforcement Cgroup::apply_pids(int64_t pids) const {
  const auto* path = folder("pids");
  if (path == nullptr) return missing("pids");
  return write_and_check(*path + "/pids.max", std::to_string(pids));
}

Enforcement Cgroup::throttle_memory(uint64_t bytes) const {
  const auto* path = folder("memory");
  if (path == nullptr) return missing("memory");
  if (v2_) return write_and_check(*path + "/memory.high", std::to_string(bytes), kPageSlack);
  // EBUSY is normal here: the kernel could not take back so much.
  return apply({.memory_bytes = bytes}).at("memory");
}

std::map<std::string, Enforcement> Cgroup::unthrottle(const CgroupLimits& asked) const {
  if (!v2_) return apply(asked);
  const auto* path = folder("memory");
  if (path == nullptr) return {};
  return {{"memory", write_and_check(*path + "/memory.high", "max")}};
}

bool Cgroup::holds(pid_t pid) const {
  const auto lists = [&](const std::string& folder) {
    if (!sys::exists(folder + "/cgroup.procs")) return false;
    std::istringstream pids(sys::read_file(folder + "/cgroup.procs"));
    for (pid_t member = 0; pids >> member;)
      if (member == pid) return true;
    return false;
  };
  return std::ranges::all_of(folders_,
                             [&](const auto& f) { return lists(f.second) || lists(f.second + "/runtime"); });
}

CgroupUsage Cgroup::usage() const {
  CgroupUsage usage;
  if (const auto* path = folder("memory"))
    usage.memory_bytes = read_number(*path + (v2_ ? "/memory.current" : "/memory.usage_in_bytes"));
  if (const auto* path = folder("pids")) usage.pids = read_number(*path + "/pids.current");
  if (v2_) {
    // There even without the cpu controller.
    for (const auto& [_, path] : folders_) usage.cpu_us = read_keyed(path + "/cpu.stat", "usage_usec");
  } else if (const auto* path = folder("cpuacct")) {
    if (const auto ns = read_number(*path + "/cpuacct.usage")) usage.cpu_us = *ns / 1000;
  }
  return usage;
}

std::optional<uint64_t> Cgroup::exact_memory_bytes() const {
  const auto* path = folder("memory");
  if (path == nullptr) return std::nullopt;
  const auto stat = [&](std::string_view key) { return read_keyed(*path + "/memory.stat", key); };
  if (v2_) {
    const auto anon = stat("anon"), file = stat("file"), kernel = stat("kernel");  // kernel: Linux 5.18
    return anon && file && kernel ? std::optional(*anon + *file + *kernel) : usage().memory_bytes;
  }
  const auto rss = stat("rss"), cache = stat("cache"),
             kernel = read_number(*path + "/memory.kmem.usage_in_bytes");
  return rss && cache && kernel ? std::optional(*rss + *cache + *kernel) : usage().memory_bytes;
}

uint64_t Cgroup::oom_kills() const {
  const auto* path = folder("memory");
  if (path == nullptr) return 0;
  return read_keyed(*path + (v2_ ? "/memory.events" : "/memory.oom_control"), "oom_kill").value_or(0);
}

uint64_t Cgroup::pids_refused() const {
  const auto* path = folder("pids");
  if (path == nullptr) return 0;
  // Before Linux 6.11 it is counted in the group of the process that was refused: runc's, where that is in
  // use.
  return read_keyed(*path + "/pids.events", "max").value_or(0) +
         read_keyed(*path + "/runtime/pids.events", "max").value_or(0);
}

/// v2 has it in every group but the host's root.
const std::string* Cgroup::freezer_folder() const {
  const auto it = folders_.find(v2_ ? "" : "freezer");
  return it == folders_.end() ? nullptr : &it->second;
}

bool Cgroup::is_frozen() const {
  const std::string& path = *freezer_folder();
  if (v2_) return read_keyed(path + "/cgroup.events", "frozen") == 1;
  return read_value(path + "/freezer.state") == "FROZEN";  // FREEZING: some of them run on
}

void Cgroup::write_freezer(bool frozen) const {
  const std::string& path = *freezer_folder();
  if (v2_)
    sys::write_file(path + "/cgroup.freeze", frozen ? "1" : "0");
  else
    sys::write_file(path + "/freezer.state", frozen ? "FROZEN" : "THAWED");
}

void Cgroup::freeze(bool frozen) const {
  const auto* path = freezer_folder();
  if (path == nullptr) throw Error(Errc::unavailable, "the freezer controller is not available");
  write_freezer(frozen);
  for (const auto deadline = Clock::now() + kFreezeTimeout; is_frozen() != frozen;) {
    if (Clock::now() > deadline) {
      thaw();
      throw Error(Errc::timeout, fmt::format("the kernel did not {} {} within {} ms",
                                             frozen ? "freeze" : "thaw", *path, kFreezeTimeout.count()));
    }
    std::this_thread::sleep_for(200us);
  }
}

void Cgroup::thaw() const noexcept {
  try {
    const auto* path = freezer_folder();
    if (path != nullptr && sys::exists(*path)) write_freezer(false);
  } catch (const std::exception&) {
    // Gone meanwhile.
  }
}

void Cgroup::kill_all() const noexcept {
  for (const auto& [_, path] : folders_) {
    try {
      if (v2_ && sys::exists(path + "/cgroup.kill")) {  // Linux 5.14
        sys::write_file(path + "/cgroup.kill", "1");
        continue;
      }
      for (const char* below : {"", "/runtime"}) {
        const std::string group = path + below;
        if (!sys::exists(group)) continue;
        std::istringstream pids(sys::read_file(group + "/cgroup.procs"));
        for (pid_t pid = 0; pids >> pid;) ::kill(pid, SIGKILL);
      }
    } catch (const std::exception&) {
      // Gone already, or no such controller: remove() will tell.
    }
  }
  if (!v2_) thaw();
}

bool Cgroup::remove() const noexcept {
  bool gone = true;
  for (const auto& [_, path] : folders_) {
    // runc makes a group of its own below ours.
    if (::rmdir(path.c_str()) != 0 && errno != ENOENT &&
        (::rmdir((path + "/runtime").c_str()) != 0 || ::rmdir(path.c_str()) != 0))
      gone = false;
    const std::string server = path.substr(0, path.rfind('/'));
    ::rmdir(server.c_str());  // each succeeds when this was the last one in it
    if (!v2_) ::rmdir(server.substr(0, server.rfind('/')).c_str());
  }
  return gone;
}

}  // namespace hutch::runtime
