#include "runtime/shared_blocks.h"

#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>

#include <array>

#include "base/unique_fd.h"

namespace hutch::runtime {

namespace {

constexpr uint32_t kExtents = 256;  // of one question
constexpr uint64_t kBlockBytes = 4096;

}  // namespace

uint64_t shared_bytes(const std::string& path) noexcept {
  struct statfs fs {};
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  // ext4 would be asked for every extent in vain.
  if (!file || ::fstatfs(file.get(), &fs) != 0 || fs.f_type == EXT4_SUPER_MAGIC) return 0;
  uint64_t sum = 0;
  for (uint64_t at = 0;;) {
    alignas(fiemap) std::array<char, sizeof(fiemap) + kExtents * sizeof(fiemap_extent)> memory{};
    auto* answer = reinterpret_cast<fiemap*>(memory.data());
    answer->fm_start = at;
    answer->fm_length = FIEMAP_MAX_OFFSET - at;
    answer->fm_extent_count = kExtents;
    if (::ioctl(file.get(), FS_IOC_FIEMAP, answer) != 0 || answer->fm_mapped_extents == 0) return sum;
    for (uint32_t i = 0; i < answer->fm_mapped_extents; ++i) {
      const fiemap_extent& extent = answer->fm_extents[i];
      if (extent.fe_flags & FIEMAP_EXTENT_SHARED) sum += extent.fe_length;
      if (extent.fe_flags & FIEMAP_EXTENT_LAST) return sum;
      at = extent.fe_logical + extent.fe_length;
    }
  }
}

bool can_share_blocks(const std::string& path, const std::string& folder) noexcept {
  const UniqueFd from(::open(path.c_str(), O_RDONLY | O_CLOEXEC)),
      to(::open(folder.c_str(), O_RDWR | O_TMPFILE | O_CLOEXEC, 0600));
  file_clone_range first{.src_fd = from.get(), .src_offset = 0, .src_length = kBlockBytes, .dest_offset = 0};
  return from && to && ::ioctl(to.get(), FICLONERANGE, &first) == 0;
}

}  // namespace hutch::runtime
