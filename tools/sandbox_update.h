#pragma once

#include "tools/sandbox_info.h"

namespace hutch::tools {

struct SandboxUpdateArgs {
  std::string sandbox_id;
  std::optional<int64_t> ttl_s, idle_timeout_s, pids;
  std::optional<Bytes> memory;
  std::optional<double> cpus;
  std::map<std::string, std::string> labels;
  std::optional<bool> paused;
  std::optional<std::string> network;
  std::optional<std::vector<std::string>> allow;

  template <class V>
  void describe(V& v) {
    v.optional("sandbox_id", sandbox_id, kSandboxIdHelp);
    v.optional("ttl_s", ttl_s, "Seconds from now after which it ends; 0: never.",
               {.min = 0, .max = 31'536'000});
    v.optional("idle_timeout_s", idle_timeout_s, "Seconds without use after which it ends; 0: never.",
               {.min = 0, .max = 31'536'000});
    v.optional("memory", memory, "Memory limit; no swap.", {.min = 16 << 20});
    v.optional("cpus", cpus, "Processors, at most the host's.", {.min = 0.05, .max = 1024});
    v.optional("pids", pids, "Processes and threads at once.", {.min = 8, .max = 4'194'304});
    v.optional("network", network, "What it can reach.", {.one_of = {"none", "filtered", "full"}});
    v.optional("allow", allow,
               "Hosts that it may reach from now on, besides those there are; `-host`: no longer.",
               {.max = 256});
    v.optional("labels", labels, "Labels to set; an empty value removes one.", {.max = 64});
    v.optional("paused", paused,
               "true freezes all its processes, files and memory stay; false lets them go on.");
  }
};

}  // namespace hutch::tools
