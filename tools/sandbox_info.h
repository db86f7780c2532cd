#pragma once

#include "tools/refusal_view.h"
#include "tools/sandbox_create.h"
#include "tools/sandbox_list_ports.h"
#include "tools/sandbox_process.h"

namespace hutch::tools {

struct SandboxInfoArgs {
  std::string sandbox_id;

  template <class V>
  void describe(V& v) {
    v.optional("sandbox_id", sandbox_id, kSandboxIdHelp);
  }
};

struct SandboxInfo {
  SandboxView view;
  std::string created_at;
  std::optional<std::string> last_used_at, cause, pressure;
  std::map<std::string, std::string> labels;
  std::vector<ProcessView> processes;
  std::vector<PortView> ports;
  std::vector<std::string> allow;
  std::vector<RefusalView> refused;
  std::optional<int64_t> memory_bytes, pids, disk_bytes;
  std::optional<double> cpu_s;

  template <class V>
  void describe(V& v) {
    view.describe(v);
    v.required("created_at", created_at, "When it was made (UTC).");
    v.optional("last_used_at", last_used_at, "When it was used last (UTC).");
    v.required("labels", labels, "Its labels.");
    v.required("processes", processes, "Commands that outlived their calls, for sandbox_process.");
    v.required("ports", ports, "Its ports that can be reached from the host.");
    v.required("allow", allow, "Rules of what it may reach.");
    v.required("refused", refused, "Hosts that its network did not let through, of late.");
    v.optional("memory_bytes", memory_bytes, "Memory in use.");
    v.optional("pids", pids, "Processes and threads.");
    v.optional("disk_bytes", disk_bytes, "Disk that its files take.");
    v.optional("cpu_s", cpu_s, "Processor time used so far, in seconds.");
    v.optional("cause", cause, "Why it ended.");
    v.optional("pressure", pressure, "What was done to it because the host is short of memory or disk.");
  }
};

SandboxInfo info_of(sandbox::Sandbox& sandbox, Services& services);
/// An ended one is still described, with the cause of its end; by its name, unless another has that now.
SandboxInfo sandbox_info(const SandboxInfoArgs& args, Services& services);
std::string text_of(const SandboxInfo& info);

}  // namespace hutch::tools
