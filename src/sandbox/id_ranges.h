#pragma once

#include <cstdint>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

namespace hutch::sandbox {

/// Ranges of 65,536 host user and group ids, one for each sandbox, that belong to nobody on this host.
///
/// 0x70000000 to 0x7FFEFFFF: above what systemd gives to containers, below its range for foreign images and
/// the sign bit (systemd's UIDS-GIDS document), and outside of all that /etc/subuid and /etc/subgid give
/// away. Started at a random place, so that servers side by side rarely choose the same one; a shared range
/// would weaken nothing but file owners on the host, since every sandbox has namespaces of its own.
class IdRanges {
 public:
  /// The first id of a free range. Throws limit_exceeded when all are taken.
  uint32_t take();
  /// A range that a sandbox of a server before has.
  void keep(uint32_t first_id);
  void give_back(uint32_t first_id);

 private:
  std::mutex mutex_;
  std::set<uint32_t> taken_;
  std::vector<std::pair<uint64_t, uint64_t>> reserved_;  // first, count
  bool loaded_ = false;
};

}  // namespace hutch::sandbox
