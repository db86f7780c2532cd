#include "runtime/disk_image.h"

#include <dirent.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <memory>
#include <thread>
#include <vector>

#include "base/log.h"
#include "base/process.h"
#include "base/sys.h"

namespace hutch::runtime {

using namespace std::chrono_literals;

namespace {

constexpr const char* kBlankPrefix = "ext4-1-";  // the number: of the options below
constexpr size_t kMostBlanks = 32;
constexpr const char* kFiller = "filler";

/// How an image is formatted and mounted.
struct Ext4 {
  const char* features;
  const char* extended;
  const char* on_error;
  std::vector<const char*> mount_flags;
};

/// Explicit, since the defaults differ between versions and installations. No journal, no checksums: nothing
/// here survives a crash. The tables that files do not need yet stay holes: 1.2 MB of 2 GiB are written.
/// nobarrier: neither an fsync inside nor the unmount waits for the host's disk. discard: what is deleted is
/// given back to it. noinit_itable: or the kernel would write all empty tables, 3 % of the size.
Ext4 throwaway() {
  return {
      "none,extent,flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize,filetype,dir_index,"
      "ext_attr,uninit_bg",
      "lazy_itable_init=1,nodiscard,packed_meta_blocks=1",
      "continue",
      {"discard", "nobarrier", "noinit_itable", "noauto_da_alloc"}};
}

/// What was synced inside is there after a power cut. Of the journal, too, nothing is written before it is
/// needed: the file is new, and its holes read as zeros.
Ext4 durable() {
  return {
      "none,has_journal,64bit,metadata_csum,extent,flex_bg,sparse_super,large_file,huge_file,dir_nlink,"
      "extra_isize,filetype,dir_index,ext_attr",
      "lazy_itable_init=1,lazy_journal_init=1,nodiscard,packed_meta_blocks=1",
      "remount-ro",
      {"discard", "noinit_itable"}};
}

/// Written by nobody any more, with a journal or without.
Ext4 sealed() {
  return {.features = nullptr, .extended = nullptr, .on_error = nullptr, .mount_flags = {"ro"}};
}

std::vector<std::string> mkfs_command(const std::string& program, const std::string& path, const Ext4& kind) {
  return {program, "-q", "-F", "-t", "ext4",        "-b", "4096",        "-I", "256",         "-i",
          "8192",  "-m", "0",  "-e", kind.on_error, "-O", kind.features, "-E", kind.extended, path};
}

/// Whoever makes one holds a lock on it.
bool given_up(const std::string& path) noexcept {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  return file && ::flock(file.get(), LOCK_EX | LOCK_NB) == 0;
}

/// With the folder's lock held. What was given up half made, those of earlier versions, and the oldest when
/// every create asks for another size.
void remove_old_blanks(const std::string& folder) noexcept {
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(::opendir(folder.c_str()), ::closedir);
  if (!stream) return;
  std::vector<std::pair<time_t, std::string>> blanks;
  while (const dirent* entry = ::readdir(stream.get())) {
    const std::string name = entry->d_name, path = folder + "/" + name;
    struct stat st {};
    if (name == "." || name == ".." || ::stat(path.c_str(), &st) != 0) continue;
    if (name.starts_with('.') && !given_up(path)) continue;
    if (name.starts_with(kBlankPrefix))
      blanks.emplace_back(st.st_mtime, path);
    else
      ::unlink(path.c_str());
  }
  std::ranges::sort(blanks);
  for (size_t i = 0; i + kMostBlanks < blanks.size(); ++i) ::unlink(blanks[i].second.c_str());
}

void format(const std::string& path, uint64_t bytes, const Ext4& kind) {
  const std::string program = find_program("mkfs.ext4");
  if (program.empty()) throw Error(Errc::unavailable, "mkfs.ext4 is not installed (package e2fsprogs)");
  const UniqueFd file = sys::open(path, O_RDWR | O_CREAT, 0600);
  if (::ftruncate(file.get(), static_cast<off_t>(bytes)) != 0) throw sys_error(errno, "truncate", path);
  sys::Pipe said = sys::pipe();
  // Where mke2fs.conf of the host has no say.
  Process mkfs = Process::spawn({.argv = mkfs_command(program, path, kind),
                                 .env = {"MKE2FS_CONFIG=/dev/null", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"},
                                 .stdio = {-1, -1, said.write_end.get()}});
  said.write_end.reset();
  const ExitStatus end = mkfs.wait(Clock::now() + 60s);
  if (!end.ok())
    throw Error(Errc::unavailable,
                fmt::format("mkfs.ext4 failed: {}", sys::read_all(said.read_end.get(), 64 << 10)));
}

/// The written parts alone, within the kernel: half the processor time of reading and writing them.
void copy_data(const UniqueFd& from, const UniqueFd& to, const std::string& path) {
  for (off_t at = 0, end = 0; (at = ::lseek(from.get(), at, SEEK_DATA)) >= 0; at = end) {
    end = ::lseek(from.get(), at, SEEK_HOLE);
    if (::lseek(to.get(), at, SEEK_SET) != at) throw sys_error(errno, "seek", path);
    while (at < end) {
      const ssize_t n = ::sendfile(to.get(), from.get(), &at, static_cast<size_t>(end - at));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) throw sys_error(n == 0 ? EIO : errno, "copy", path);
    }
  }
}

struct LoopDevice {
  uint32_t number = 0;
  UniqueFd fd;
};

std::string loop_path(uint32_t number) {
  return fmt::format("/dev/loop{}", number);
}

/// With its last user (AUTOCLEAR) the device is free again, whatever becomes of us.
LoopDevice attach_loop(const UniqueFd& image) {
  constexpr int kAttempts = 200;
  const UniqueFd control = sys::open("/dev/loop-control", O_RDWR);
  loop_config config{};
  config.fd = static_cast<uint32_t>(image.get());
  config.block_size = 4096;
  config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
  for (int i = 0; i < kAttempts; ++i) {
    const int number = ::ioctl(control.get(), LOOP_CTL_GET_FREE);
    if (number < 0) throw sys_error(errno, "LOOP_CTL_GET_FREE");
    LoopDevice device{static_cast<uint32_t>(number), {}};
    device.fd = sys::open(loop_path(device.number), O_RDWR);
    if (::ioctl(device.fd.get(), LOOP_CONFIGURE, &config) == 0) return device;
    // Others take free ones too.
    if (errno != EBUSY && errno != EINTR) throw sys_error(errno, "LOOP_CONFIGURE", loop_path(device.number));
  }
  throw Error(Errc::unavailable, "no loop device stays free long enough to be taken");
}

/// Where the device is mounted already, the flags are those of the first mount.
UniqueFd mount_ext4(const std::string& device, const Ext4& kind = throwaway()) {
  UniqueFd context(static_cast<int>(::syscall(SYS_fsopen, "ext4", FSOPEN_CLOEXEC)));
  if (!context) throw sys_error(errno, "fsopen", "ext4");
  const auto set = [&](unsigned command, const char* key, const char* value) {
    if (::syscall(SYS_fsconfig, context.get(), command, key, value, 0) != 0)
      throw sys_error(errno, "mount ext4", fmt::format("{} {}", device, key != nullptr ? key : ""));
  };
  set(FSCONFIG_SET_STRING, "source", device.c_str());
  for (const char* flag : kind.mount_flags) set(FSCONFIG_SET_FLAG, flag, nullptr);
  set(FSCONFIG_CMD_CREATE, nullptr, nullptr);
  UniqueFd mount(static_cast<int>(::syscall(SYS_fsmount, context.get(), FSMOUNT_CLOEXEC,
                                            MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOATIME)));
  if (!mount) throw sys_error(errno, "fsmount", device);
  return mount;
}

/// Whether the device still has the image.
bool has_image(const UniqueFd& device, const DiskId& id) {
  loop_info64 info{};
  return ::ioctl(device.get(), LOOP_GET_STATUS64, &info) == 0 && info.lo_device == id.image_device &&
         info.lo_inode == id.image_inode;
}

/// What is known of an image once its device is mounted.
DiskImage describe_image(UniqueFd mount, const LoopDevice& device, const UniqueFd& image,
                         const std::string& path) {
  DiskImage made{.mount = std::move(mount), .id = {}};
  struct stat st {};
  struct statfs fs {};
  if (::fstat(image.get(), &st) != 0 || ::fstatfs(made.mount.get(), &fs) != 0)
    throw sys_error(errno, "stat", path);
  if (::ioctl(device.fd.get(), BLKGETSIZE64, &made.bytes) != 0) throw sys_error(errno, "BLKGETSIZE64");
  made.id = {device.number, st.st_dev, st.st_ino};
  made.file_bytes = fs.f_blocks * static_cast<uint64_t>(fs.f_bsize);
  return made;
}

uint64_t free_bytes(int fd) {
  struct statfs fs {};
  if (::fstatfs(fd, &fs) != 0) throw sys_error(errno, "statfs");
  return fs.f_bfree * static_cast<uint64_t>(fs.f_bsize);
}

/// Returns the size of the filler.
uint64_t take_free_blocks(const UniqueFd& root, const UniqueFd& filler) {
  struct stat st {};
  if (::fstat(filler.get(), &st) != 0) throw sys_error(errno, "stat", kFiller);
  auto end = st.st_size;
  // What is free while we look may be taken while we ask: then for less, to the last block.
  for (uint64_t chunk = free_bytes(root.get()) & ~4095ull; chunk >= 4096;) {
    if (::fallocate(filler.get(), 0, end, static_cast<off_t>(chunk)) == 0)
      end += static_cast<off_t>(chunk);
    else if (errno == ENOSPC)
      chunk = chunk / 2 & ~4095ull;
    else if (errno != EINTR)
      throw sys_error(errno, "fallocate", kFiller);
  }
  if (::fstat(filler.get(), &st) != 0) throw sys_error(errno, "stat", kFiller);
  return static_cast<uint64_t>(st.st_blocks) * 512;
}

}  // namespace

UniqueFd blank_image(const std::string& data_folder, uint64_t bytes) {
  const std::string folder = data_folder + "/disks",
                    path = fmt::format("{}/{}{}", folder, kBlankPrefix, bytes);
  struct stat st {};
  UniqueFd blank = sys::open_if_exists(path, O_RDONLY);
  if (blank && ::fstat(blank.get(), &st) == 0 && static_cast<uint64_t>(st.st_size) == bytes) return blank;
  sys::make_dirs(folder, 0700);
  const std::string unfinished = fmt::format("{}/.{}", folder, sys::random_hex(6));
  UniqueFd making;
  {
    const UniqueFd turn = sys::lock_folder(folder);
    remove_old_blanks(folder);
    making = sys::open(unfinished, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (::flock(making.get(), LOCK_EX | LOCK_NB) != 0) throw sys_error(errno, "lock", unfinished);
  }
  try {
    format(unfinished, bytes, throwaway());
    blank = sys::open(unfinished, O_RDONLY);  // another server may remove it at any time
    if (::rename(unfinished.c_str(), path.c_str()) != 0) throw sys_error(errno, "rename", path);
  } catch (...) {
    ::unlink(unfinished.c_str());
    throw;
  }
  return blank;
}

DiskImage make_disk_image(const UniqueFd& blank, const std::string& path) {
  try {
    const UniqueFd image = sys::open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
    struct stat st {};
    if (::fstat(blank.get(), &st) != 0 || ::ftruncate(image.get(), st.st_size) != 0)
      throw sys_error(errno, "truncate", path);
    // By the device, whose cache then has all that mounting reads, and not before the device is there:
    // attaching it writes what is unwritten of its file to the disk (Linux 6.14).
    const LoopDevice device = attach_loop(image);
    copy_data(blank, device.fd, path);
    return describe_image(mount_ext4(loop_path(device.number)), device, image, path);
  } catch (...) {
    ::unlink(path.c_str());
    throw;
  }
}

void unmount_disk_image(DiskImage image) {
  constexpr auto kTimeout = 60s;
  image.mount.reset();
  // The kernel usually has done it by now.
  for (const auto deadline = Clock::now() + kTimeout; Clock::now() < deadline;
       std::this_thread::sleep_for(1ms))
    if (!has_image(sys::open(loop_path(image.id.loop), O_RDONLY), image.id)) return;
  throw Error(Errc::timeout, loop_path(image.id.loop) + " is not given back by the kernel");
}

void flush_disk_image(const DiskId& id) {
  const UniqueFd root = open_disk_image(id);
  if (::syncfs(root.get()) != 0) throw sys_error(errno, "syncfs", loop_path(id.loop));
}

ImageDevice::ImageDevice(const std::string& path) {
  LoopDevice device = attach_loop(sys::open(path, O_RDWR));
  device_ = std::move(device.fd);
  path_ = loop_path(device.number);
}

ImageDevice ImageDevice::copy(const std::string& from, const std::string& to) {
  const UniqueFd source = sys::open(from, O_RDONLY);
  const UniqueFd target = sys::open(to, O_RDWR | O_CREAT | O_EXCL, 0600);
  struct stat st {};
  if (::fstat(source.get(), &st) != 0 || ::ftruncate(target.get(), st.st_size) != 0)
    throw sys_error(errno, "truncate", to);
  LoopDevice device = attach_loop(target);
  if (::ioctl(target.get(), FICLONE, source.get()) != 0) copy_data(source, target, to);
  // What somebody may have read of the device before, such as udev.
  if (::ioctl(device.fd.get(), BLKFLSBUF, 0) != 0) throw sys_error(errno, "BLKFLSBUF", to);
  return {std::move(device.fd), loop_path(device.number)};
}

UniqueFd ImageDevice::mount(bool read_only) const {
  for (const auto deadline = Clock::now() + 10s;; std::this_thread::sleep_for(1ms)) {
    try {
      return mount_ext4(path_, read_only ? sealed() : throwaway());
    } catch (const Error& e) {
      if (e.os_error() != EBUSY || Clock::now() > deadline) throw;
    }
  }
}

void format_durable_image(const std::string& path, uint64_t bytes) {
  format(path, bytes, durable());
}

DiskImage mount_durable_image(const std::string& path, const std::optional<DiskId>& known,
                              const std::function<void(const DiskId&)>& note) {
  const UniqueFd image = sys::open(path, O_RDWR);
  struct stat st {};
  if (::fstat(image.get(), &st) != 0) throw sys_error(errno, "stat", path);
  DiskImage made{.mount = {}, .id = {0, st.st_dev, st.st_ino}, .bytes = static_cast<uint64_t>(st.st_size)};
  UniqueFd device;
  if (known && known->image_device == made.id.image_device && known->image_inode == made.id.image_inode) {
    device = sys::open_if_exists(loop_path(known->loop), O_RDWR);
    made.id.loop = known->loop;
  }
  if (!device || !has_image(device, made.id)) {
    LoopDevice attached = attach_loop(image);
    made.id.loop = attached.number;
    device = std::move(attached.fd);
    note(made.id);
  }
  made.mount = mount_ext4(loop_path(made.id.loop), durable());
  struct statfs fs {};
  if (::fstatfs(made.mount.get(), &fs) != 0) throw sys_error(errno, "statfs", path);
  made.file_bytes = fs.f_blocks * static_cast<uint64_t>(fs.f_bsize);
  return made;
}

bool is_attached(const DiskId& id) noexcept {
  const UniqueFd device(::open(loop_path(id.loop).c_str(), O_RDONLY | O_CLOEXEC));
  return device && has_image(device, id);
}

UniqueFd open_disk_image(const DiskId& id, DiskKind kind) {
  const std::string path = loop_path(id.loop);
  // Held, it cannot get another file.
  const UniqueFd device = sys::open(path, O_RDWR);
  if (!has_image(device, id)) throw Error(Errc::not_found, path + " is not the sandbox's disk any more");
  const UniqueFd mount = mount_ext4(path, kind == DiskKind::durable ? durable() : throwaway());
  UniqueFd root(::openat(mount.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!root) throw sys_error(errno, "open", path);
  return root;
}

uint64_t close_disk_image(const DiskId& id) {
  const UniqueFd root = open_disk_image(id);
  const UniqueFd filler(::openat(root.get(), kFiller, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!filler) throw sys_error(errno, "open", kFiller);
  return take_free_blocks(root, filler);
}

ClosedDisk hold_free_blocks(const DiskId& id) {
  const UniqueFd root = open_disk_image(id, DiskKind::durable);
  ClosedDisk closed{UniqueFd(::openat(root.get(), ".", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600)), 0};
  if (!closed.held) throw sys_error(errno, "open", kFiller);
  closed.bytes = take_free_blocks(root, closed.held);
  return closed;
}

void reopen_disk_image(const DiskId& id) {
  const UniqueFd root = open_disk_image(id);
  if (::unlinkat(root.get(), kFiller, 0) != 0 && errno != ENOENT) throw sys_error(errno, "unlink", kFiller);
}

void drop_unwritten(const DiskId& id) noexcept {
  try {
    constexpr unsigned long kShutdown = _IOR('X', 125, uint32_t);
    uint32_t without_flushing = 2;
    (void)::ioctl(open_disk_image(id).get(), kShutdown, &without_flushing);
  } catch (const std::exception& e) {
    log::info("unwritten data is not dropped: {}", e.what());
  }
}

}  // namespace hutch::runtime
