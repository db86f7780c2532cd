#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace hutch::runtime {

/// What an overlay has beside files in its upper folder is the same on every host only in an archive: marks
/// of root's overlays there, owners from 0. Both for the process that packs or unpacks.
struct LayerMarks {
  static constexpr const char* kOpaque = "trusted.overlay.opaque";
  static constexpr const char* kOpaqueInNamespace = "user.overlay.opaque";
  static constexpr const char* kCapability = "security.capability";
  static constexpr uint32_t kIds = 65536;  // that a sandbox has

  /// Whether this process may set root's marks: in user namespaces others stand for them.
  static bool are_trusted();
  static bool is_attribute(std::string_view name, bool trusted);
};

struct Packed {
  uint64_t entries = 0, bytes = 0;  // bytes: that it would take on a disk with blocks of 4 KiB
  uint64_t left_out = 0;            // devices
};

struct PackRules {
  std::string prefix;     // of all names
  uint32_t first_id = 0;  // see SealedLayer::Facts
  bool trusted_marks = true;
};

/// Writes all that lies in the folder `root`, without itself, to `out` as entries of a tar archive; `out` -1
/// only counts. The same tree gives the same bytes. Reads by names below `root` alone and follows no links.
Packed pack_tree(int root, int out, const PackRules& rules);

}  // namespace hutch::runtime
