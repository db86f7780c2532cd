#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/process.h"
#include "runtime/pack_tree.h"
#include "runtime/unpack_tree.h"

namespace hutch::runtime {

/// Packs or unpacks the tree of a layer in a process of its own, this program started again: it sees nothing
/// but the tree (chroot) and, for a server without root's rights, has those of root over its files in a user
/// namespace. It ends with its streams, so that a server that is killed leaves none behind.
class TreeProcess {
 public:
  static TreeProcess count(int tree, uint32_t first_id);
  static TreeProcess pack(int tree, int out, const std::string& prefix, uint32_t first_id);
  /// Until all of it has been passed to `sink`.
  static void pack_to(const std::function<void(std::string_view)>& sink, int tree, const std::string& prefix,
                      uint32_t first_id);
  static TreeProcess unpack(int tree, int in, const std::string& prefix, uint64_t max_bytes);

  /// Of which only those that belong to the task say something. Throws what went wrong in it.
  struct Report {
    Packed packed;
    Unpacked unpacked;
  };
  Report wait();

 private:
  TreeProcess(int tree, int in, int out, const std::vector<std::string>& words);
  Process process_;
  UniqueFd report_;
};

/// What main() calls for the words that begin with this.
inline constexpr const char* kTreeMode = "--tree";
int run_tree_process(const std::vector<std::string>& words) noexcept;

}  // namespace hutch::runtime
