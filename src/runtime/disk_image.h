#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "base/unique_fd.h"

namespace hutch::runtime {

/// Names a mounted image for good: the loop device's number alone may belong to another file by now.
struct DiskId {
  uint32_t loop = 0;
  uint64_t image_device = 0, image_inode = 0;
  bool operator==(const DiskId&) const = default;
};

/// A formatted image of that size, of which others are copied: made once, shared by all servers. Throws an
/// Error that says why there can be none.
UniqueFd blank_image(const std::string& data_folder, uint64_t bytes);

/// A mounted copy of the blank. The mount is nowhere yet: whoever gets the descriptor attaches it, and with
/// the last mount the loop device goes too.
struct DiskImage {
  UniqueFd mount;
  DiskId id;
  uint64_t bytes = 0;       // that the device has
  uint64_t file_bytes = 0;  // of them for files; the rest is the file system's own tables
};
DiskImage make_disk_image(const UniqueFd& blank, const std::string& path);

/// A new image with a journal: what was synced inside is there after a power cut.
void format_durable_image(const std::string& path, uint64_t bytes);
/// A mount of it that is nowhere yet. Never two devices have it: by the one that is `known` when that still
/// has it, otherwise by a new one, of which `note` hears before it is mounted. Whoever does this for one
/// image does it under one lock.
DiskImage mount_durable_image(const std::string& path, const std::optional<DiskId>& known,
                              const std::function<void(const DiskId&)>& note);
/// Whether the device still has the image, mounted by anybody.
bool is_attached(const DiskId& id) noexcept;

/// Returns when all that was written is in the image's file and no device has it any more, provided that
/// nobody else has a mount of it.
void unmount_disk_image(DiskImage image);
/// Brings what is written inside by now to the image's file; not to the host's disk.
void flush_disk_image(const DiskId& id);

/// A loop device for an image that no sandbox writes, for as long as this lives or something has it mounted.
class ImageDevice {
 public:
  explicit ImageDevice(const std::string& path);
  /// Makes the file `to`, a copy of an image's file as it is: with the same blocks where the file system can
  /// share them, otherwise of the written parts. Nothing is written to the host's disk: a device that comes
  /// after the data would wait for that (Linux 6.14).
  static ImageDevice copy(const std::string& from, const std::string& to);

  /// Nowhere yet. Waits until a mount of the other kind that was given up is gone: all are read-only, or one
  /// writes.
  UniqueFd mount(bool read_only) const;

 private:
  ImageDevice(UniqueFd device, std::string path) : device_(std::move(device)), path_(std::move(path)) {}
  UniqueFd device_;
  std::string path_;
};

/// The root of the image's file system, by a mount that lives as long as the descriptor. Throws not_found
/// when the loop device is gone or has another file by now.
enum class DiskKind { throwaway, durable };
UniqueFd open_disk_image(const DiskId& id, DiskKind kind = DiskKind::throwaway);

/// Takes all free blocks, so that a write that needs a new one gets ENOSPC, and gives them back. Nothing of
/// it reaches the image but tables: the file that holds the blocks, whose size is returned, has no content.
uint64_t close_disk_image(const DiskId& id);
void reopen_disk_image(const DiskId& id);

/// The same for a durable one, with a file that has no name: they are given back with the descriptor, also
/// when its holder dies.
struct ClosedDisk {
  UniqueFd held;
  uint64_t bytes = 0;
};
ClosedDisk hold_free_blocks(const DiskId& id);

/// Before the sandbox is killed: what is still unwritten is dropped instead of being written to an image that
/// nobody will read again. For where that is much: it costs a wait of the kernel and a line in its log.
void drop_unwritten(const DiskId& id) noexcept;

}  // namespace hutch::runtime
