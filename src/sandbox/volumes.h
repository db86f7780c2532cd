#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "config/config.h"
#include "runtime/runtime.h"
#include "sandbox/description.h"

namespace hutch::sandbox {

/// A named folder that outlives sandboxes.
struct Volume {
  std::string name;
  uint64_t size_bytes = 0;
  WallClock::time_point created_at;
  std::string made_by;      // version of hutch
  std::string not_limited;  // why its size does not hold; empty when it does
};

/// All volumes of a data folder, shared by all servers on it. Each has a folder of its own below `volumes/`:
/// `manifest.json`, and `disk`, an ext4 image that keeps what was synced over a power cut, or, where there
/// are no loop devices or no power to use them, `files`. Thread-safe.
class VolumeStore {
 public:
  VolumeStore(std::string home, const config::Volumes& settings)
      : home_(std::move(home)), settings_(settings) {}

  /// Throws conflict when it exists.
  Volume create(const std::string& name, uint64_t bytes) const;
  std::vector<Volume> list() const;
  /// Throws conflict, which names the sandboxes, while it is in use.
  void remove(const std::string& name) const;
  /// Bytes that its files take.
  uint64_t used_bytes(const std::string& name) const noexcept;
  /// The ids of the sandboxes that have it.
  std::vector<std::string> users_of(const std::string& name) const;

  /// While this lives, nobody else removes or mounts them. Those that do not exist are made; sizes are filled
  /// in.
  using Held = std::map<std::string, UniqueFd>;
  Held hold(std::vector<AttachedVolume>& volumes) const;
  /// Of one that is held. `by_server`: as a mount, of which the disk is noted; otherwise its folder.
  runtime::VolumeMount open(const Held& held, AttachedVolume& volume, bool by_server) const;
  /// Where its files lie, for the guard of the host's disk.
  std::string disk_file(const std::string& name) const;
  /// What a killed process was making or removing.
  void remove_unfinished() const noexcept;

 private:
  std::string folder_of(const std::string& name) const;
  std::string hidden_folder(UniqueFd& lock) const;
  Volume make(const std::string& name, uint64_t bytes) const;
  UniqueFd lock(const std::string& name) const;

  std::string home_;
  config::Volumes settings_;
};

/// The volumes of a new sandbox, parents of targets first: those of the profile, of which the call replaces
/// what has the same target. Throws one invalid_argument that names all that is wrong.
std::vector<AttachedVolume> wanted_volumes(const std::vector<config::VolumeUse>& of_profile,
                                           const std::vector<config::VolumeUse>& asked);

}  // namespace hutch::sandbox
