#include "runtime/layer.h"

#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>

#include "base/sys.h"

namespace hutch::runtime {

namespace {

constexpr uint64_t kMiB = 1u << 20;
constexpr uint64_t kDropBytes = 16 * kMiB;

/// File systems that cannot be the upper layer of an overlay.
bool can_be_upper(const std::string& folder) {
  struct statfs fs {};
  if (::statfs(folder.c_str(), &fs) != 0) return false;
  switch (static_cast<unsigned long>(fs.f_type)) {
    case OVERLAYFS_SUPER_MAGIC:
    case NFS_SUPER_MAGIC:
    case FUSE_SUPER_MAGIC:
    case V9FS_MAGIC:
    case MSDOS_SUPER_MAGIC:
      return false;
    default:
      return true;
  }
}

bool passes(int err) {
  const auto all = {ENOSPC, EDQUOT, EIO, EMFILE, ENFILE, ENOMEM, EINTR};
  return std::ranges::find(all, err) != all.end();
}

Layer image_layer(const SandboxSpec& spec) {
  if (::geteuid() != 0) throw Error(Errc::unavailable, "loop devices are for root");
  const uint64_t bytes = (spec.limits.disk_bytes + kMiB - 1) / kMiB * kMiB;
  DiskImage image = make_disk_image(blank_image(spec.data_folder, bytes), layer_image(spec.folder));
  if (image.bytes != bytes)
    throw Error(Errc::unavailable, fmt::format("its image has {} bytes instead of {}", image.bytes, bytes));
  return {.kind = Layer::Kind::image,
          .source = {},
          .options = {},
          .mount = std::move(image.mount),
          .disk = image.id,
          .size = {true, fmt::format("{}, {} of them for files", image.bytes, image.file_bytes)}};
}

}  // namespace

std::string layer_image(const std::string& sandbox_folder) {
  return sandbox_folder + "/disk";
}

std::string layer_folder(const std::string& sandbox_folder) {
  return sandbox_folder + "/layer";
}

Layer make_layer(const SandboxSpec& spec) {
  std::string problem;
  try {
    return image_layer(spec);
  } catch (Error& e) {
    e.during("making the sandbox's disk");
    if (passes(e.os_error())) throw;
    problem = e.what();
  }
  Layer layer;
  if (can_be_upper(spec.folder)) {
    layer.source = layer_folder(spec.folder);
    sys::make_dirs(layer.source, 0700);
    layer.size = {false, "the size of its files is not limited: " + problem};
  } else {
    layer.kind = Layer::Kind::memory;
    // As many files as on an image of that size.
    layer.options = fmt::format("mode=0700,size={},nr_inodes={}", spec.limits.disk_bytes,
                                std::max<uint64_t>(spec.limits.disk_bytes / 8192, 1024));
    layer.size = {true, fmt::format("{}, counted as memory: {}", spec.limits.disk_bytes, problem)};
  }
  return layer;
}

void drop_layer(const std::string& sandbox_folder, const DiskId& disk, pid_t pid) noexcept {
  struct stat st {};
  if (::stat(layer_image(sandbox_folder).c_str(), &st) != 0) return;
  if (layer_bytes(sandbox_folder, pid) > static_cast<uint64_t>(st.st_blocks) * 512 + kDropBytes)
    drop_unwritten(disk);
}

uint64_t layer_bytes(const std::string& sandbox_folder, pid_t pid) noexcept {
  if (sys::exists(layer_folder(sandbox_folder))) return sys::tree_bytes(layer_folder(sandbox_folder));
  struct statfs fs {};  // an overlay tells of its upper layer
  if (::statfs(fmt::format("/proc/{}/root/", pid).c_str(), &fs) != 0) return 0;
  return (fs.f_blocks - fs.f_bfree) * static_cast<uint64_t>(fs.f_bsize);
}

}  // namespace hutch::runtime
