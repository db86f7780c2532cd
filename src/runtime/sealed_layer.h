#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/disk_image.h"

namespace hutch::runtime {

/// Trees of files that lie read-only below what a sandbox writes: what another one had written, or an image's
/// files. In a folder of its own lies `disk`, an ext4 image, or `files`, a plain folder, where this host has
/// no loop devices or the server may not use them.
class SealedLayer {
 public:
  struct Facts {
    std::string id;
    uint32_t first_id = 0;           // host id that root inside has as owner on its disk
    std::vector<std::string> views;  // names of the trees in it, see view_name()
  };
  /// Throws not_found when the folder has none. `device`: of its disk, when there is one already.
  SealedLayer(const std::string& folder, Facts facts, std::optional<ImageDevice> device = {});

  const Facts& facts() const noexcept { return facts_; }
  bool has(const std::string& view) const noexcept;
  bool on_disk() const noexcept { return disk_.has_value(); }
  /// Of one on a disk.
  UniqueFd mount() const { return disk_->mount(true); }
  /// Of one that is not.
  const std::string& files() const noexcept { return files_; }

 private:
  Facts facts_;
  std::string files_;
  std::optional<ImageDevice> disk_;
};

/// Where they are in the folder.
std::string sealed_disk(const std::string& folder);
std::string sealed_files(const std::string& folder);

/// Names the part of a layer that belongs to one tree of the root file system: "root" for "/",
/// "root%2Fusr" for "/usr". No character in it means anything to mount options.
std::string view_name(std::string_view target);

}  // namespace hutch::runtime
