#include "bench/machine.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <sstream>
#include <thread>

#include "base/error.h"
#include "base/process.h"
#include "base/sys.h"

namespace hutch::bench {

namespace {

/// The first "name: value" line of a file of /proc; empty when there is none.
std::string field_of(const std::string& path, std::string_view name) {
  std::istringstream lines(sys::read_file(path));
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with(name)) continue;
    const size_t start = line.find_first_not_of(" \t:", name.size());
    return start == std::string::npos ? "" : line.substr(start);
  }
  return "";
}

uint64_t kib_field(const std::string& path, std::string_view name) {
  try {
    const std::string value = field_of(path, name);
    return value.empty() ? 0 : std::stoull(value) * 1024;
  } catch (const std::exception&) {
    return 0;  // the process is gone
  }
}

std::string cgroup_version() {
  if (sys::exists("/sys/fs/cgroup/cgroup.controllers")) return "v2";
  if (!sys::exists("/sys/fs/cgroup/memory")) return "none";
  return sys::exists("/sys/fs/cgroup/unified") ? "v1 (hybrid)" : "v1";
}

sigset_t stop_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&signals, signal);
  return signals;
}

}  // namespace

Json describe_machine() {
  utsname names{};
  ::uname(&names);
  return {{"cpu", field_of("/proc/cpuinfo", "model name")},
          {"cores", ::sysconf(_SC_NPROCESSORS_ONLN)},
          {"memory_bytes", kib_field("/proc/meminfo", "MemTotal")},
          {"kernel", names.release},
          {"cgroup", cgroup_version()}};
}

Json describe_build(const std::string& version, std::vector<std::string>& warnings) {
  bool optimized = false;
  std::string sanitizer;
#ifdef __OPTIMIZE__
  optimized = true;
#endif
#if defined(__SANITIZE_ADDRESS__)
  sanitizer = "address";
#elif defined(__SANITIZE_THREAD__)
  sanitizer = "thread";
#endif
  if (!optimized)
    warnings.push_back("hutch was built without optimization: meson setup build --buildtype=release");
  if (!sanitizer.empty())
    warnings.push_back(
        fmt::format("hutch was built with the {} sanitizer: its times say nothing", sanitizer));
  return {{"version", version}, {"optimized", optimized}, {"sanitizer", sanitizer}};
}

double machine_busy_ms() {
  std::istringstream line(field_of("/proc/stat", "cpu "));
  double user = 0, nice = 0, system = 0, idle = 0, iowait = 0, irq = 0, softirq = 0;
  line >> user >> nice >> system >> idle >> iowait >> irq >> softirq;
  return (user + nice + system + irq + softirq) * 1000.0 / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

double background_load(double seconds) {
  const auto start = Clock::now();
  const double before = machine_busy_ms();
  sleep_ms(seconds * 1000);
  const std::chrono::duration<double, std::milli> wall = Clock::now() - start;
  return (machine_busy_ms() - before) / (wall.count() * static_cast<double>(::sysconf(_SC_NPROCESSORS_ONLN)));
}

std::string file_system_of(const std::string& folder) {
  struct statfs fs {};
  if (::statfs(folder.c_str(), &fs) != 0) throw sys_error(errno, "statfs", folder);
  switch (static_cast<unsigned long>(fs.f_type)) {
    case EXT4_SUPER_MAGIC:
      return "ext4";
    case XFS_SUPER_MAGIC:
      return "xfs";
    case BTRFS_SUPER_MAGIC:
      return "btrfs";
    case TMPFS_MAGIC:
      return "tmpfs";
    case OVERLAYFS_SUPER_MAGIC:
      return "overlay";
    default:
      return fmt::format("file system {:x}", static_cast<unsigned long>(fs.f_type));
  }
}

bool shares_blocks(const std::string& folder) {
  const UniqueFd from = sys::open(folder, O_RDWR | O_TMPFILE, 0600),
                 to = sys::open(folder, O_RDWR | O_TMPFILE, 0600);
  sys::write_all(from.get(), std::string(4096, 'x'));
  return ::ioctl(to.get(), FICLONE, from.get()) == 0;
}

uint64_t memory_available_bytes() {
  return kib_field("/proc/meminfo", "MemAvailable");
}

uint64_t resident_bytes(pid_t pid) {
  return kib_field(fmt::format("/proc/{}/status", pid), "VmRSS");
}

double process_cpu_ms(pid_t pid) {
  double total_ns = 0;
  std::error_code ignored;
  for (const auto& task : std::filesystem::directory_iterator(fmt::format("/proc/{}/task", pid), ignored)) {
    try {
      total_ns += std::stod(sys::read_file(task.path().string() + "/schedstat"));
    } catch (const std::exception&) {
      // A thread that has just ended.
    }
  }
  return total_ns / 1e6;
}

void hold_signals() {
  const sigset_t signals = stop_signals();
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
}

int interrupted() noexcept {
  sigset_t pending;
  sigemptyset(&pending);
  ::sigpending(&pending);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP})
    if (sigismember(&pending, signal) == 1) return signal;
  return 0;
}

void check_interrupted() {
  if (const int signal = interrupted(); signal != 0) throw Interrupted{signal};
}

void sleep_ms(double ms) {
  const auto end = Clock::now() +
                   std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double, std::milli>(ms));
  while (Clock::now() < end) {
    check_interrupted();
    std::this_thread::sleep_until(std::min(end, Clock::now() + std::chrono::milliseconds(200)));
  }
}

}  // namespace hutch::bench
