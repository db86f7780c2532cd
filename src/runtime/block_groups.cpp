#include "runtime/block_groups.h"

#include <fmt/format.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include <filesystem>

#include "base/sys.h"

namespace hutch::runtime {

namespace {

bool ext4_without_journal(int fd) {
  struct statfs fs {};
  struct stat st {};
  if (::fstatfs(fd, &fs) != 0 || fs.f_type != EXT4_SUPER_MAGIC || ::fstat(fd, &st) != 0) return false;
  const std::string device = fmt::format("/sys/dev/block/{}:{}", major(st.st_dev), minor(st.st_dev));
  const std::string name = std::filesystem::read_symlink(device).filename();
  return sys::read_file("/sys/fs/ext4/" + name + "/journal_task") == "<none>\n";
}

}  // namespace

void spread_subfolders(const std::string& folder) noexcept {
  try {
    const UniqueFd fd = sys::open(folder, O_RDONLY | O_DIRECTORY);
    int flags = 0;
    if (!ext4_without_journal(fd.get()) || ::ioctl(fd.get(), FS_IOC_GETFLAGS, &flags) != 0) return;
    flags |= FS_TOPDIR_FL;
    (void)::ioctl(fd.get(), FS_IOC_SETFLAGS, &flags);
  } catch (const std::exception&) {
    // It would have been faster, that is all.
  }
}

}  // namespace hutch::runtime
