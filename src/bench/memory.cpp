#include <fmt/format.h>

#include <filesystem>
#include <set>
#include <sstream>

#include "base/error.h"
#include "base/sys.h"
#include "bench/machine.h"
#include "bench/scenarios.h"

namespace hutch::bench {

namespace {

namespace fs = std::filesystem;

constexpr double kSettleMs = 500;

/// The memory cgroups of these sandboxes, wherever hutch has put them: each bears its sandbox's id.
std::vector<fs::path> memory_groups(const std::set<std::string>& sandbox_ids) {
  const bool v1 = sys::exists("/sys/fs/cgroup/memory");
  std::vector<fs::path> out;
  std::error_code ignored;
  const auto options = fs::directory_options::skip_permission_denied;
  for (auto it = fs::recursive_directory_iterator(v1 ? "/sys/fs/cgroup/memory" : "/sys/fs/cgroup", options,
                                                  ignored);
       it != fs::recursive_directory_iterator(); it.increment(ignored))
    if (sandbox_ids.contains(it->path().filename())) out.push_back(it->path());
  return out;
}

uint64_t usage_bytes(const fs::path& group) {
  for (const char* name : {"/memory.usage_in_bytes", "/memory.current"})
    if (const std::string path = group.string() + name; sys::exists(path))
      return std::stoull(sys::read_file(path));
  throw Error(Errc::unavailable, fmt::format("{} does not say how much memory it holds", group.string()));
}

/// Processor time that the processes of these groups have used so far.
double groups_cpu_ms(const std::vector<fs::path>& groups) {
  double total_ms = 0;
  for (const auto& group : groups)
    for (const auto& entry : fs::recursive_directory_iterator(group)) {
      if (entry.path().filename() != "cgroup.procs") continue;
      std::istringstream pids(sys::read_file(entry.path()));
      for (pid_t pid = 0; pids >> pid;) total_ms += process_cpu_ms(pid);
    }
  return total_ms;
}

double per(double value, size_t count) {
  return value / static_cast<double>(count);
}
/// b - a, where b may be the smaller one.
double growth(uint64_t a, uint64_t b) {
  return static_cast<double>(b) - static_cast<double>(a);
}

Json measure_idle(const Context& context, size_t count) {
  McpClient client(context.server({fmt::format("LIMITS__MAX_SANDBOXES={}", count + 100)}));
  const Request create = Request::tool("sandbox_create", {{"memory", "32m"}});
  std::set<std::string> ids;
  ids.insert(sandbox_id_of(client.call(create)));  // the first call makes more than a sandbox
  sleep_ms(kSettleMs);
  const uint64_t resident = resident_bytes(client.pid()), available = memory_available_bytes();
  while (ids.size() < count + 1) {
    check_interrupted();
    ids.insert(sandbox_id_of(client.call(create)));
  }
  sleep_ms(kSettleMs);
  Json out = {{"sandboxes", count},
              {"server_rss_bytes_each", per(growth(resident, resident_bytes(client.pid())), count)},
              {"available_bytes_each", per(growth(memory_available_bytes(), available), count)}};
  const auto groups = memory_groups(ids);
  if (!groups.empty()) {
    uint64_t total = 0;
    for (const auto& group : groups) total += usage_bytes(group);
    out["cgroup_bytes_each"] = per(static_cast<double>(total), groups.size());
  }
  const double before = groups_cpu_ms(groups), server_before = process_cpu_ms(client.pid());
  sleep_ms(context.plan.idle_s * 1000);
  out["idle_s"] = context.plan.idle_s;
  // Whoever has started has used some time: none at all means that it is not counted here.
  if (before > 0) out["idle_cpu_ms"] = groups_cpu_ms(groups) - before;
  if (server_before > 0) out["idle_server_cpu_ms"] = process_cpu_ms(client.pid()) - server_before;
  return out;
}

Json measure_memory(const Context& context) {
  Json out = Json::array();
  for (const size_t count : context.plan.memory_counts) out.push_back(measure_idle(context, count));
  return {{"memory", out}};
}

Json measure_rss(const Context& context) {
  McpClient client(context.cold_server());
  const uint64_t at_start = resident_bytes(client.pid());
  (void)client.call(Request::tool("sandbox_exec", {{"argv", {"true"}}}), "exit 0");
  return {{"rss",
           {{"after_initialize_bytes", at_start}, {"after_first_call_bytes", resident_bytes(client.pid())}}}};
}

}  // namespace

const std::vector<Scenario>& memory_scenarios() {
  static const std::vector<Scenario> list = {
      {"memory", "idle sandboxes", measure_memory},
      {"rss", "the server's resident memory, pool empty", measure_rss},
  };
  return list;
}

}  // namespace hutch::bench
