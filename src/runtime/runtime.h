#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/process.h"
#include "runtime/cgroup.h"
#include "runtime/disk_image.h"
#include "runtime/sealed_layer.h"

namespace hutch::runtime {

struct Limits {
  uint64_t memory_bytes = 1ull << 30;
  double cpus = 2;
  int64_t pids = 512;
  uint64_t open_files = 65536;  // at most our own hard limit
  uint64_t shm_bytes = 64ull << 20;
  uint64_t disk_bytes = 2ull << 30;  // of all files on the writable layer
};

/// Files that outlive sandboxes, and where one sees them.
struct VolumeMount {
  UniqueFd mount;      // nowhere yet, owners as on its disk; or
  std::string folder;  // where they lie, for servers that cannot make mounts
  std::string target;  // see refused_target()
  bool read_only = false;
};

/// Everything a driver needs, already checked and with defaults filled in.
struct SandboxSpec {
  std::string id;           // sbx- and 12 hex digits
  std::string folder;       // ours alone, exists; runtime state, channel and writable layer go here
  std::string data_folder;  // shared by all servers: made-up root file systems, the agent's binary
  bool host_files = true;   // the root file system is the host's programs; else `layers` alone
  std::vector<std::string> host_paths;                     // further host paths to show
  std::vector<std::shared_ptr<const SealedLayer>> layers;  // the lowest first
  bool files_in_memory = false;                            // what it writes
  std::string
      trusted_certificate;  // PEM; its programs find it at kTrustPath with the host's; empty: nothing there
  Limits limits;
  Cgroup cgroup;                     // named, not yet made
  uint32_t first_id = 0;             // host id of the sandbox's root; 0 = this server cannot choose one
  std::vector<VolumeMount> volumes;  // where attaches_volumes() says no; parents first
};

/// The two FIFOs of the agent's channel, in the sandbox's folder.
inline constexpr std::string_view kToAgent = "to-agent";
inline constexpr std::string_view kFromAgent = "from-agent";

/// What holds, item by item, said to users as it is: "memory" -> {true, "1073741824"}.
using Isolation = std::map<std::string, Enforcement>;

/// A running sandbox as a runtime sees it. Ending it is a kill of its PID 1, which takes everything inside
/// with it.
struct Container {
  pid_t pid = 0;            // of the agent, on the host
  uint64_t start_time = 0;  // of that process, see process_start_time()
  UniqueFd pidfd;
  Isolation isolation;
  // Where its files lie: on that disk, in that folder in memory (of which only this server knows), or in a
  // plain folder.
  std::optional<DiskId> disk;
  UniqueFd memory;
};

/// Something that can start sandboxes. Drivers hold no state per sandbox; what exists is in records and
/// cgroups.
class Runtime {
 public:
  struct Probe {
    bool usable = false;
    std::string detail;  // version and path, or why it cannot be used
    std::string hint;    // the command that mends it
  };

  virtual ~Runtime() = default;
  virtual std::string_view name() const noexcept = 0;
  virtual Probe probe() const = 0;
  /// Makes cgroups, mounts and processes. Throws an Error that says which step failed; then whatever was made
  /// is ended again by the caller through the spec's cgroup and folder.
  virtual Container start(const SandboxSpec& spec, Clock::time_point deadline) = 0;
  /// Whether a running sandbox can be given volumes, which until then has run nothing of anybody's.
  virtual bool attaches_volumes() const = 0;
  /// Parents first. Throws invalid_argument for a target where none can be.
  virtual void attach_volumes(const Container& container, uint32_t first_id,
                              const std::vector<VolumeMount>& volumes, const std::string& data_folder,
                              Clock::time_point deadline) = 0;
  /// Gives a running sandbox, which until then has run nothing of anybody's, the host's network: every public
  /// address, and of the others those in `allow`, see allowed_ranges(). `cgroup` is the sandbox's, which pays
  /// for it; it ends with the agent, whoever then looks after the sandbox. Throws unavailable where that
  /// cannot be; then the sandbox is to be ended.
  virtual void attach_network(const Container& container, const Cgroup& cgroup,
                              const std::vector<std::string>& allow, const std::string& data_folder,
                              Clock::time_point deadline) = 0;
};

/// The only place that names every driver, best first. `wanted`: "auto", a name, a path of an OCI runtime, or
/// "every" that has a name.
std::vector<std::unique_ptr<Runtime>> make_runtimes(const CgroupHost& cgroups,
                                                    const std::string& wanted = "auto");

}  // namespace hutch::runtime
