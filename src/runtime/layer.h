#pragma once

#include <optional>

#include "runtime/disk_image.h"
#include "runtime/runtime.h"

namespace hutch::runtime {

/// Where the files go that a sandbox writes, before it has started.
struct Layer {
  enum class Kind { image, folder, memory };
  Kind kind = Kind::folder;
  std::string source;   // the folder
  std::string options;  // of the tmpfs
  UniqueFd mount;       // of the image
  std::optional<DiskId> disk;
  Enforcement size;  // whether the size is hard, for users
};

/// Where the image lies, or the folder, in the sandbox's own folder.
std::string layer_image(const std::string& sandbox_folder);
std::string layer_folder(const std::string& sandbox_folder);

/// The best kind that this host can do, found by trying: an image of the wanted size, mounted by a loop
/// device; a plain folder, whose size nothing limits; a tmpfs, which counts as memory. A want of room, which
/// passes, is an Error and no reason for less.
Layer make_layer(const SandboxSpec& spec);

/// Before the agent `pid` is killed: see drop_unwritten(), where it is worth it.
void drop_layer(const std::string& sandbox_folder, const DiskId& disk, pid_t pid) noexcept;

/// Bytes that its files take; `pid` is the agent's.
uint64_t layer_bytes(const std::string& sandbox_folder, pid_t pid) noexcept;

}  // namespace hutch::runtime
