#include "sandbox/disk_guard.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>

#include <algorithm>

#include "base/log.h"
#include "base/sys.h"

namespace hutch::sandbox {

namespace {

double gigabytes(uint64_t bytes) {
  return static_cast<double>(bytes) / (1u << 30);
}

DiskHooks host_hooks(const std::string& folder) {
  return {.space =
              [folder] {
                struct statvfs fs {};
                if (::statvfs(folder.c_str(), &fs) != 0) throw sys_error(errno, "statvfs", folder);
                // bavail: what root alone may use is no room for sandboxes.
                return DiskSpace{fs.f_blocks * fs.f_frsize, fs.f_bavail * fs.f_frsize};
              },
          .written = [](const GuardedDisk& disk) -> uint64_t {
            struct stat st {};
            return ::stat(disk.image.c_str(), &st) == 0 ? static_cast<uint64_t>(st.st_blocks) * 512 : 0;
          },
          .used = [](const GuardedDisk& disk) -> uint64_t {
            struct statfs fs {};  // an overlay tells of its upper layer
            if (::statfs(fmt::format("/proc/{}/root/", disk.agent).c_str(), &fs) != 0) return 0;
            return (fs.f_blocks - fs.f_bfree) * static_cast<uint64_t>(fs.f_bsize);
          },
          .close = [](const GuardedDisk& disk) { return runtime::close_disk_image(disk.disk.value()); },
          .reopen = [](const GuardedDisk& disk) { runtime::reopen_disk_image(disk.disk.value()); }};
}

}  // namespace

uint64_t DiskSettings::reserve(const DiskSpace& space) const noexcept {
  return std::max(reserve_bytes,
                  static_cast<uint64_t>(static_cast<double>(space.size) * reserve_percent / 100));
}

DiskGuard::DiskGuard(std::string data_folder, DiskSettings settings)
    : DiskGuard(settings, host_hooks(data_folder)) {}

/// Opened again an eighth above, so that it does not flap.
bool DiskGuard::wants_closed(const DiskSpace& space, bool is_closed) const noexcept {
  const uint64_t reserve = settings_.reserve(space);
  return space.free < (is_closed ? reserve + reserve / 8 : reserve);
}

DiskGuard::Look DiskGuard::look(const std::vector<GuardedDisk>& disks) {
  const std::lock_guard one_at_a_time(look_mutex_);
  const DiskSpace space = space_left(disks);
  Look result;
  {
    const std::lock_guard lock(mutex_);
    const bool before = closed_;
    closed_ = result.closed = wants_closed(space, closed_);
    seen_ = space;
    if (closed_ != before) log::warning("{}", closed_ ? describe(space) : "the disk has room again");
  }
  if (!result.closed) {
    reopen_all(disks);
    return result;
  }
  close_all(disks, result);
  return result;
}

void DiskGuard::close_all(const std::vector<GuardedDisk>& disks, Look& look) {
  for (const GuardedDisk& disk : disks) {
    if (filled_.contains(disk.sandbox_id)) continue;
    try {
      if (!disk.disk) throw Error(Errc::unavailable, "it has no disk of its own");
      filled_[disk.sandbox_id] = hooks_.close(disk);
    } catch (const Error& e) {
      log::info("{} can still write to the disk: {}", disk.sandbox_id, e.what());
      look.open_still.push_back(disk.sandbox_id);
    }
  }
}

void DiskGuard::reopen_all(const std::vector<GuardedDisk>& disks) {
  for (const GuardedDisk& disk : disks) {
    if (!filled_.contains(disk.sandbox_id)) continue;
    try {
      hooks_.reopen(disk);
      filled_.erase(disk.sandbox_id);
    } catch (const Error& e) {
      log::warning("{} cannot write to its disk yet: {}", disk.sandbox_id, e.what());  // the next look tries
    }
  }
  // Of those that are gone nothing is left to do.
  std::erase_if(filled_, [&](const auto& filled) {
    return std::ranges::none_of(disks, [&](const auto& d) { return d.sandbox_id == filled.first; });
  });
}

/// Free as if all that is promised were written.
DiskSpace DiskGuard::space_left(const std::vector<GuardedDisk>& disks) const {
  DiskSpace space = hooks_.space();
  for (const GuardedDisk& disk : disks) {
    if (!disk.disk) continue;
    const auto filled = filled_.find(disk.sandbox_id);
    const uint64_t written = hooks_.written(disk) + (filled != filled_.end() ? filled->second : 0),
                   used = hooks_.used(disk);
    if (used > written) space.free -= std::min(space.free, used - written);
  }
  return space;
}

void DiskGuard::take_over(const GuardedDisk& disk) {
  const std::lock_guard lock(look_mutex_);
  if (disk.disk) hooks_.reopen(disk);
}

bool DiskGuard::closed() const {
  const std::lock_guard lock(mutex_);
  return closed_;
}

std::string DiskGuard::describe(const DiskSpace& space) const {
  const uint64_t reserve = settings_.reserve(space);
  return fmt::format(
      "the host's disk has {:.1f} GB free, the reserve is {:.1f} GB: sandboxes cannot write more, and none "
      "is "
      "made, until {:.1f} GB are free",
      gigabytes(space.free), gigabytes(reserve), gigabytes(reserve + reserve / 8));
}

std::string DiskGuard::reason() const {
  const std::lock_guard lock(mutex_);
  return closed_ ? describe(seen_) : "";
}

void DiskGuard::check_room_for_create() const {
  DiskSpace space = hooks_.space();
  if (closed()) {
    const std::lock_guard lock(mutex_);
    space = seen_;
  } else if (!wants_closed(space, false)) {
    return;
  }
  throw Error(Errc::limit_exceeded, describe(space))
      .hint(
          "delete files in sandboxes, destroy some, or free space on the host; limits.disk_reserve and "
          "limits.disk_reserve_percent set the reserve");
}

}  // namespace hutch::sandbox
