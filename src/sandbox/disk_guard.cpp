#include "sandbox/disk_guard.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>

#include <algorithm>
#include <memory>

#include "base/log.h"
#include "base/sys.h"
#include "runtime/layer.h"
#include "runtime/shared_blocks.h"

namespace hutch::sandbox {

namespace {

double gigabytes(uint64_t bytes) {
  return static_cast<double>(bytes) / (1u << 30);
}

/// By a mount of our own: what its path leads to inside is up to the sandbox.
uint64_t used_of_volume(const GuardedDisk& disk) noexcept {
  try {
    struct statfs fs {};
    const UniqueFd root = runtime::open_disk_image(disk.disk.value(), runtime::DiskKind::durable);
    if (::fstatfs(root.get(), &fs) == 0)
      return (fs.f_blocks - fs.f_bfree) * static_cast<uint64_t>(fs.f_bsize);
  } catch (const Error&) {
    // The last sandbox that had it has just ended.
  }
  return 0;
}

DiskSpace space_of(const std::string& folder) {
  struct statvfs fs {};
  if (::statvfs(folder.c_str(), &fs) != 0) throw sys_error(errno, "statvfs", folder);
  // bavail: what root alone may use is no room for sandboxes.
  return {fs.f_blocks * fs.f_frsize, fs.f_bavail * fs.f_frsize};
}

/// What a template or a fork has too is still to be written when the sandbox changes it. It cannot be more
/// than is in use, so nobody counts it while that would not reach the reserve.
uint64_t written_bytes(const std::string& image, const DiskSpace& space, const DiskSettings& settings) {
  struct stat st {};
  if (::stat(image.c_str(), &st) != 0) return 0;
  const uint64_t written = static_cast<uint64_t>(st.st_blocks) * 512;
  if (space.free > space.size - space.free + settings.reserve(space)) return written;
  return written - std::min(written, runtime::shared_bytes(image));
}

DiskHooks host_hooks(const std::string& folder, const DiskSettings& settings) {
  const auto held = std::make_shared<std::map<std::string, UniqueFd>>();  // free blocks of volumes
  return {.space = [folder] { return space_of(folder); },
          .written =
              [folder, settings](const GuardedDisk& disk) {
                return written_bytes(disk.image, space_of(folder), settings);
              },
          .used =
              [](const GuardedDisk& disk) {
                return disk.is_volume ? used_of_volume(disk) : runtime::used_bytes(disk.agent, disk.disk);
              },
          .close =
              [held](const GuardedDisk& disk) {
                if (!disk.is_volume) return runtime::close_disk_image(disk.disk.value());
                auto [fd, bytes] = runtime::hold_free_blocks(disk.disk.value());
                (*held)[disk.id] = std::move(fd);
                return bytes;
              },
          .reopen =
              [held](const GuardedDisk& disk) {
                if (disk.is_volume)
                  held->erase(disk.id);
                else
                  runtime::reopen_disk_image(disk.disk.value());
              }};
}

}  // namespace

Error full_disk() {
  return Error(Errc::limit_exceeded, "the disk that the data folder lies on is full")
      .with_os_error(ENOSPC)
      .hint("`hutch gc` and `hutch image gc` remove what is not used any more");
}

bool is_disk_full(const std::string& data_folder) noexcept {
  constexpr uint64_t kNextToNothing = 16u << 20;
  struct statvfs fs {};
  return ::statvfs(data_folder.c_str(), &fs) == 0 && fs.f_bavail * fs.f_frsize < kNextToNothing;
}

bool says_disk_full(const Error& error) noexcept {
  const std::string_view said = error.what();
  return error.os_error() == ENOSPC || error.os_error() == EDQUOT ||
         said.find("o space left on device") != said.npos;
}

uint64_t DiskSettings::reserve(const DiskSpace& space) const noexcept {
  return std::max(reserve_bytes,
                  static_cast<uint64_t>(static_cast<double>(space.size) * reserve_percent / 100));
}

DiskGuard::DiskGuard(std::string data_folder, const config::Limits& limits)
    : settings_{.reserve_bytes = limits.disk_reserve.value, .reserve_percent = limits.disk_reserve_percent},
      hooks_(host_hooks(data_folder, settings_)) {}

/// Opened again an eighth above, so that it does not flap.
bool DiskGuard::wants_closed(const DiskSpace& space, bool is_closed) const noexcept {
  const uint64_t reserve = settings_.reserve(space);
  return space.free < (is_closed ? reserve + reserve / 8 : reserve);
}

DiskGuard::Look DiskGuard::look(const std::vector<GuardedDisk>& disks) {
  const std::lock_guard one_at_a_time(look_mutex_);
  forget_all_but(disks);
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
    reopen_all();
    return result;
  }
  close_all(disks, result);
  return result;
}

void DiskGuard::close_all(const std::vector<GuardedDisk>& disks, Look& look) {
  for (const GuardedDisk& disk : disks) {
    if (filled_.contains(disk.id)) continue;
    try {
      if (!disk.disk) throw Error(Errc::unavailable, "it has no disk of its own");
      filled_[disk.id] = {disk, hooks_.close(disk)};
    } catch (const Error& e) {
      log::info("{} can still write to the disk: {}", disk.id, e.what());
      look.open_still.push_back(disk.id);
    }
  }
}

void DiskGuard::reopen_all() {
  std::erase_if(filled_, [&](const auto& filled) {
    try {
      hooks_.reopen(filled.second.disk);
      return true;
    } catch (const Error& e) {
      log::warning("{} cannot write to its disk yet: {}", filled.first, e.what());  // the next look tries
      return false;
    }
  });
}

/// Of a sandbox that is gone nothing is left to do; a volume that none of ours has any more is given back.
void DiskGuard::forget_all_but(const std::vector<GuardedDisk>& disks) {
  std::erase_if(filled_, [&](const auto& filled) {
    if (std::ranges::any_of(disks, [&](const auto& disk) { return disk.id == filled.first; })) return false;
    if (filled.second.disk.is_volume) hooks_.reopen(filled.second.disk);
    return true;
  });
}

/// Free as if all that is promised were written.
DiskSpace DiskGuard::space_left(const std::vector<GuardedDisk>& disks) const {
  DiskSpace space = hooks_.space();
  for (const GuardedDisk& disk : disks) {
    if (!disk.disk) continue;
    const auto filled = filled_.find(disk.id);
    const uint64_t written = hooks_.written(disk) + (filled != filled_.end() ? filled->second.bytes : 0),
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

void DiskGuard::check_room_for(uint64_t bytes) const {
  check_room_for_create();
  const DiskSpace space = hooks_.space();
  if (space.free >= bytes && !wants_closed({space.size, space.free - bytes}, false)) return;
  constexpr uint64_t kMiB = 1u << 20;
  throw Error(
      Errc::limit_exceeded,
      fmt::format("it takes {} MiB; {} MiB are free on the disk, and {} MiB of a disk are the reserve",
                  bytes / kMiB, space.free / kMiB, settings_.reserve(space) / kMiB))
      .hint(
          "`hutch gc` and `hutch image gc` remove what is not used any more; limits.disk_reserve and "
          "limits.disk_reserve_percent set the reserve");
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
