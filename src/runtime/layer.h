#pragma once

#include <optional>

#include "runtime/disk_image.h"
#include "runtime/runtime.h"
#include "runtime/stage_process.h"

namespace hutch::runtime {

/// Where the files go that a sandbox writes, before it has started.
struct Layer {
  enum class Kind { image, folder, memory };
  Kind kind = Kind::folder;
  std::string source;   // the folder
  std::string options;  // of the tmpfs
  UniqueFd mount;       // of the image, or of the tmpfs where the server can make it
  UniqueFd memory;      // the folder that such a tmpfs is
  std::optional<DiskId> disk;
  Enforcement size;  // whether the size is hard, for users
};

/// Where the image lies, or the folder, in the sandbox's own folder.
std::string layer_image(const std::string& sandbox_folder);
std::string layer_folder(const std::string& sandbox_folder);

/// In memory when the spec says so. Otherwise the best kind that this host can do, found by trying: an image
/// of the wanted size, mounted by a loop device; a plain folder, whose size nothing limits; a tmpfs, which
/// counts as memory. A want of room, which passes, is an Error and no reason for less.
Layer make_layer(const SandboxSpec& spec);

/// Copies all that a sandbox has written, whose processes must be held still, to an empty `folder`, as a
/// sealed layer's files; returns the device of its disk, if that is what it became. `stage` runs what copies
/// plain folders. Nothing of it is written to the host's disk yet.
struct WrittenFiles {
  std::string sandbox_folder;
  std::optional<DiskId> disk;
  int memory = -1;  // see Container
};
std::optional<ImageDevice> copy_written(const WrittenFiles& from, const std::string& folder,
                                        StageProcess& stage, const std::string& data_folder,
                                        Clock::time_point deadline);
/// What that takes of the host's disk at most, with what is still unwritten of the files themselves: on a
/// full disk a loop device loses both. 0 where a copy just fails.
uint64_t bytes_to_copy(const WrittenFiles& from, const std::string& folder);
/// Removes what does not belong into a sealed layer, the kernel's work folders and hutch's logs, and returns
/// the trees that it has. `device`: of its disk, which nobody else has mounted; null when it has none.
std::vector<std::string> tidy_layer(const std::string& folder, const ImageDevice* device);

/// Before the agent `pid` is killed: see drop_unwritten(), where it is worth it.
void drop_layer(const std::string& sandbox_folder, const DiskId& disk, pid_t pid) noexcept;

/// Bytes in use on the file system that its files lie on; `pid` is the agent's, whose root tells of it, or,
/// where that is not the sandbox's (gVisor's processes), the disk. 0: it cannot be told.
uint64_t used_bytes(pid_t pid, const std::optional<DiskId>& disk) noexcept;

/// Whether the host's disk was too full for something that was written inside, which then reads as zeros. Of
/// an agent whose root is an overlay on a disk; costs nothing but the question.
bool has_lost_writes(pid_t pid) noexcept;

/// Bytes that its files take.
uint64_t layer_bytes(const std::string& sandbox_folder, pid_t pid,
                     const std::optional<DiskId>& disk) noexcept;

}  // namespace hutch::runtime
