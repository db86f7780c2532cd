#include "runtime/layer.h"

#include <fmt/format.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

#include "base/sys.h"
#include "runtime/shared_blocks.h"

namespace hutch::runtime {

namespace {

constexpr uint64_t kMiB = 1u << 20;
constexpr uint64_t kDropBytes = 16 * kMiB;
constexpr uint64_t kInodeBytes = 256;  // on a disk image; they are no part of what is in use there

uint64_t bytes_in_use(const struct statfs& fs) {
  return (fs.f_blocks - fs.f_bfree) * static_cast<uint64_t>(fs.f_bsize);
}

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
          .memory = {},
          .disk = image.id,
          .size = {true, fmt::format("{}, {} of them for files", image.bytes, image.file_bytes)}};
}

UniqueFd open_folder(int at, const char* name, uint64_t resolve = 0) {
  open_how how{};
  how.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
  how.resolve = resolve;
  return UniqueFd(static_cast<int>(::syscall(SYS_openat2, at, name, &how, sizeof how)));
}

UniqueFd mount_tmpfs(uint64_t bytes, uint64_t files) {
  UniqueFd context(static_cast<int>(::syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC)));
  if (!context) throw sys_error(errno, "fsopen", "tmpfs");
  const auto set = [&](unsigned command, const char* key, const char* value) {
    if (::syscall(SYS_fsconfig, context.get(), command, key, value, 0) != 0)
      throw sys_error(errno, "mount tmpfs", key != nullptr ? key : "");
  };
  set(FSCONFIG_SET_STRING, "mode", "0700");
  set(FSCONFIG_SET_STRING, "size", std::to_string(bytes).c_str());
  set(FSCONFIG_SET_STRING, "nr_inodes", std::to_string(files).c_str());
  set(FSCONFIG_CMD_CREATE, nullptr, nullptr);
  UniqueFd mount(static_cast<int>(
      ::syscall(SYS_fsmount, context.get(), FSMOUNT_CLOEXEC, MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID)));
  if (!mount) throw sys_error(errno, "fsmount", "tmpfs");
  return mount;
}

/// As many files as on an image of that size.
Layer memory_layer(const SandboxSpec& spec, const std::string& why) {
  const uint64_t bytes = spec.limits.disk_bytes, files = std::max<uint64_t>(bytes / 8192, 1024);
  Layer layer{.kind = Layer::Kind::memory,
              .source = {},
              .options = fmt::format("mode=0700,size={},nr_inodes={}", bytes, files),
              .mount = {},
              .memory = {},
              .disk = {},
              .size = {true, fmt::format("{}, counted as memory{}", spec.limits.disk_bytes, why)}};
  if (::geteuid() != 0) return layer;  // the stage makes it, in its user namespace
  layer.mount = mount_tmpfs(bytes, files);
  layer.memory = open_folder(layer.mount.get(), ".");
  return layer;
}

bool is_view(const std::string& name) {
  return name.starts_with("root") && !name.ends_with(".work");
}

/// The sandbox may have put links anywhere in its trees.
void remove_logs(int files) {
  const UniqueFd logs =
      open_folder(files, "root/var/log", RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);
  if (logs) sys::remove_tree(fmt::format("/proc/self/fd/{}/hutch", logs.get()));
}

std::vector<std::string> tidy_files(int files) {
  std::vector<std::string> views;
  for (const auto& name : sys::list_folder(files)) {
    if (is_view(name))
      views.push_back(name);
    else
      sys::remove_tree(fmt::format("/proc/self/fd/{}/{}", files, name));
  }
  remove_logs(files);
  return views;
}

/// By cp(1): it knows holes, links, attributes and shared blocks.
void copy_files(UniqueFd from, const std::string& to, StageProcess& stage, const std::string& data_folder,
                Clock::time_point deadline) {
  std::vector<std::string> command{find_program("cp"), "-dR", "--reflink=auto",
                                   "--preserve=mode,ownership,timestamps,links,xattr", "--"};
  if (command[0].empty()) throw Error(Errc::unavailable, "cp is not installed (package coreutils)");
  for (const auto& name : sys::list_folder(from.get()))
    if (is_view(name)) command.push_back(name);
  command.push_back(to);
  sys::make_dirs(to, 0755);  // what shifts owners has no power over this one; its parent is closed
  StagePlan plan;
  if (::geteuid() != 0) plan.enter_user_namespace();
  plan.private_mounts();
  plan.change_dir(std::move(from));
  plan.exec(command);
  (void)stage.run(plan, data_folder, deadline);
}

}  // namespace

std::vector<std::string> tidy_layer(const std::string& folder, const ImageDevice* device) {
  if (device == nullptr) return tidy_files(sys::open(sealed_files(folder), O_RDONLY | O_DIRECTORY).get());
  const UniqueFd mount = device->mount(false), root = open_folder(mount.get(), ".");
  auto views = tidy_files(root.get());
  // The unmount would not say what it could not write.
  if (::syncfs(root.get()) != 0) throw sys_error(errno, "syncfs", sealed_disk(folder));
  return views;
}

uint64_t bytes_to_copy(const WrittenFiles& from, const std::string& folder) {
  struct statfs fs {};
  if (from.memory >= 0 && ::fstatfs(from.memory, &fs) == 0) return bytes_in_use(fs);
  if (!from.disk) return 0;
  const std::string image = layer_image(from.sandbox_folder);
  struct stat st {};
  if (::stat(image.c_str(), &st) != 0 || ::fstatfs(open_disk_image(*from.disk).get(), &fs) != 0)
    throw sys_error(errno, "stat", image);
  const uint64_t used = bytes_in_use(fs) + (fs.f_files - fs.f_ffree) * kInodeBytes,
                 written = static_cast<uint64_t>(st.st_blocks) * 512,
                 own = written - std::min(written, shared_bytes(image));
  const uint64_t unwritten = used - std::min(used, own);
  return unwritten + (can_share_blocks(image, folder) ? 0 : std::max(used, written));
}

std::optional<ImageDevice> copy_written(const WrittenFiles& from, const std::string& folder,
                                        StageProcess& stage, const std::string& data_folder,
                                        Clock::time_point deadline) {
  if (from.disk) {
    flush_disk_image(*from.disk);
    return ImageDevice::copy(layer_image(from.sandbox_folder), sealed_disk(folder));
  }
  UniqueFd files;
  if (from.memory >= 0)
    files = open_folder(from.memory, ".");
  else if (sys::exists(layer_folder(from.sandbox_folder)))
    files = sys::open(layer_folder(from.sandbox_folder), O_RDONLY | O_DIRECTORY);
  if (!files)
    throw Error(Errc::unavailable,
                "the sandbox's files are in memory that only the server before could reach");
  copy_files(std::move(files), sealed_files(folder), stage, data_folder, deadline);
  return std::nullopt;
}

std::string layer_image(const std::string& sandbox_folder) {
  return sandbox_folder + "/disk";
}

std::string layer_folder(const std::string& sandbox_folder) {
  return sandbox_folder + "/layer";
}

Layer make_layer(const SandboxSpec& spec) {
  if (spec.files_in_memory) return memory_layer(spec, "");
  std::string problem;
  try {
    return image_layer(spec);
  } catch (Error& e) {
    e.during("making the sandbox's disk");
    if (passes(e.os_error())) throw;
    problem = e.what();
  }
  if (!can_be_upper(spec.folder)) return memory_layer(spec, ": " + problem);
  Layer layer;
  layer.source = layer_folder(spec.folder);
  sys::make_dirs(layer.source, 0700);
  layer.size = {false, "the size of its files is not limited: " + problem};
  return layer;
}

void drop_layer(const std::string& sandbox_folder, const DiskId& disk, pid_t pid) noexcept {
  struct stat st {};
  if (::stat(layer_image(sandbox_folder).c_str(), &st) != 0) return;
  if (layer_bytes(sandbox_folder, pid, disk) > static_cast<uint64_t>(st.st_blocks) * 512 + kDropBytes)
    drop_unwritten(disk);
}

uint64_t used_bytes(pid_t pid, const std::optional<DiskId>& disk) noexcept {
  struct statfs fs {};  // an overlay tells of its upper layer
  if (::statfs(fmt::format("/proc/{}/root/", pid).c_str(), &fs) != 0) return 0;
  if (static_cast<unsigned long>(fs.f_type) != OVERLAYFS_SUPER_MAGIC) {
    try {
      if (!disk || ::fstatfs(open_disk_image(*disk).get(), &fs) != 0) return 0;
    } catch (const Error&) {
      return 0;
    }
  }
  return bytes_in_use(fs);
}

/// A volatile overlay writes nothing when it is asked to, and remembers what went wrong below it
/// (Linux 5.12).
bool has_lost_writes(pid_t pid) noexcept {
  const UniqueFd root(::open(fmt::format("/proc/{}/root/", pid).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  struct statfs fs {};
  return root && ::fstatfs(root.get(), &fs) == 0 &&
         static_cast<unsigned long>(fs.f_type) == OVERLAYFS_SUPER_MAGIC && ::syncfs(root.get()) != 0 &&
         errno == EIO;
}

uint64_t layer_bytes(const std::string& sandbox_folder, pid_t pid,
                     const std::optional<DiskId>& disk) noexcept {
  if (sys::exists(layer_folder(sandbox_folder))) return sys::tree_bytes(layer_folder(sandbox_folder));
  return used_bytes(pid, disk);
}

}  // namespace hutch::runtime
