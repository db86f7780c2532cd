#pragma once

#include <cstdint>
#include <string>

namespace hutch::runtime {

struct Unpacked {
  uint64_t entries = 0;
  uint64_t owners_lost = 0;         // entries that belong to us now, who may give files to nobody else
  uint64_t attributes_dropped = 0;  // those that no layer may have
};

struct UnpackRules {
  std::string prefix;      // that all names have, and which is left out
  uint64_t max_bytes = 0;  // that the files may take
  bool keep_owners = true;
  bool trusted_marks = true;  // see LayerMarks
};

/// Reads a part of a tar archive from `in` up to its end, without an end of its own, and makes what is in it
/// in the empty folder `root`. The archive is somebody else's: every name is a path of plain names below
/// `root` and is there once, no link is followed, no device is made but the mark of a deletion; what cannot
/// be as the archive says is an Error. Setuid bits stay, as they do inside: layers are mounted nosuid, and
/// the data folder is for nobody else. What was made stays when it fails.
Unpacked unpack_tree(int in, int root, const UnpackRules& rules);

}  // namespace hutch::runtime
