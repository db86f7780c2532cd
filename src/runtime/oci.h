#pragma once

#include <mutex>

#include "runtime/counts.h"
#include "runtime/layer.h"
#include "runtime/runtime.h"
#include "runtime/stage_process.h"

namespace hutch::runtime {

/// In what runtimes differ that understand the same command line.
struct OciDialect;

/// Sandboxes by an OCI runtime's command line: crun, runc, or one that understands the same arguments.
class OciRuntime : public Runtime {
 public:
  /// `program`: a name looked up in PATH, or a path.
  OciRuntime(std::string program, const CgroupHost& cgroups)
      : program_(std::move(program)), cgroups_(cgroups) {}

  std::string_view name() const noexcept override { return program_; }
  Probe probe() const override;
  Container start(const SandboxSpec& spec, Clock::time_point deadline) override;
  bool attaches_volumes() const override;
  void attach_volumes(const Container& container, uint32_t first_id, const std::vector<VolumeMount>& volumes,
                      const std::string& data_folder, Clock::time_point deadline) override;
  void attach_network(const Container& container, const Cgroup& cgroup, const std::vector<std::string>& allow,
                      const std::string& data_folder, Clock::time_point deadline) override;

 private:
  const OciDialect& dialect() const;
  std::string pid_file(const SandboxSpec& spec) const;
  std::vector<std::string> command(const SandboxSpec& spec, const std::string& path,
                                   const std::string& state) const;
  StagePlan plan(const SandboxSpec& spec, const std::string& program, const Counts& counts,
                 Layer& layer) const;

  std::string program_;
  const CgroupHost& cgroups_;
  mutable std::mutex mutex_;
  mutable std::string path_;  // where it was found last
  StageProcess stage_;
};

}  // namespace hutch::runtime
