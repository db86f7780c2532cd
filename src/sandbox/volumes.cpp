#include "sandbox/volumes.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <linux/mount.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "base/log.h"
#include "base/sys.h"
#include "runtime/volume_target.h"
#include "sandbox/admission.h"
#include "sandbox/names.h"
#include "sandbox/store.h"

namespace hutch::sandbox {

using namespace std::chrono_literals;

namespace {

using nlohmann::json;

constexpr const char* kManifest = "/manifest.json";
constexpr const char* kDisk = "/disk";
constexpr const char* kFiles = "/files";
constexpr const char* kDevice = "/device";  // which one has the disk, or had it last
constexpr auto kUnmountPatience = 2s;       // the kernel takes a moment after a sandbox's end
constexpr size_t kDeviceBytes = 120;
constexpr size_t kMostOfOneSandbox = 16;
constexpr size_t kMostTargetBytes = 1024;

void sync_to_disk(const std::string& path) {
  const UniqueFd fd = sys::open(path, O_RDONLY);
  if (::fsync(fd.get()) != 0) throw sys_error(errno, "fsync", path);
}

Volume read_manifest(const std::string& folder) {
  try {
    const json manifest = json::parse(sys::read_file(folder + kManifest));
    return {.name = manifest.at("name"),
            .size_bytes = manifest.at("size"),
            .created_at = WallClock::from_time_t(manifest.at("created_at")),
            .made_by = manifest.at("hutch"),
            .not_limited = manifest.at("not_limited")};
  } catch (const json::exception& e) {
    throw Error(Errc::unavailable, fmt::format("{}{} cannot be read: {}", folder, kManifest, e.what()));
  }
}

void write_manifest(const std::string& folder, const Volume& volume) {
  const json manifest{{"name", volume.name},
                      {"size", volume.size_bytes},
                      {"created_at", WallClock::to_time_t(volume.created_at)},
                      {"hutch", volume.made_by},
                      {"kind", volume.not_limited.empty() ? "disk" : "files"},
                      {"not_limited", volume.not_limited}};
  sys::write_file(folder + kManifest, manifest.dump(2) + "\n", 0600);
  sync_to_disk(folder + kManifest);
}

std::optional<runtime::DiskId> known_device(const std::string& folder) {
  try {
    const json device = json::parse(sys::read_file(folder + kDevice));
    return runtime::DiskId{device.at("loop"), device.at("image_device"), device.at("image_inode")};
  } catch (const std::exception&) {
    return std::nullopt;  // it was never mounted
  }
}

/// In place, with a length that stays: ext4 writes a file that is cut or replaced out to the disk at once.
/// One that is half written names no device, and whoever died over it had not mounted any.
void note_device(const std::string& folder, const runtime::DiskId& id) {
  const json device{{"loop", id.loop}, {"image_device", id.image_device}, {"image_inode", id.image_inode}};
  const UniqueFd file = sys::open(folder + kDevice, O_WRONLY | O_CREAT, 0600);
  const std::string line = fmt::format("{:<{}}\n", device.dump(), kDeviceBytes);
  sys::write_all(file.get(), line);
  if (::ftruncate(file.get(), static_cast<off_t>(line.size())) != 0)
    throw sys_error(errno, "truncate", folder);
}

runtime::DiskImage mount_disk(const std::string& folder) {
  return runtime::mount_durable_image(folder + kDisk, known_device(folder),
                                      [&](const runtime::DiskId& id) { note_device(folder, id); });
}

/// Formatted, and mounted once: whether it can be is known from the start, and nobody finds a lost+found.
void make_disk(const std::string& folder, uint64_t bytes) {
  runtime::format_durable_image(folder + kDisk, bytes);
  {
    const runtime::DiskImage image = mount_disk(folder);
    if (::unlinkat(image.mount.get(), "lost+found", AT_REMOVEDIR) != 0)
      throw sys_error(errno, "rmdir", "lost+found");
  }
  sync_to_disk(folder + kDisk);
}

uint64_t used_of(const UniqueFd& mount) {
  struct statfs fs {};
  if (::fstatfs(mount.get(), &fs) != 0) throw sys_error(errno, "statfs");
  return (fs.f_blocks - fs.f_bfree) * static_cast<uint64_t>(fs.f_bsize);
}

/// What only looks like a reason for a plain folder: a want of room, which passes.
bool is_want_of_room(const Error& e) {
  const auto all = {ENOSPC, EDQUOT, EIO, EMFILE, ENFILE, ENOMEM, EINTR};
  return std::ranges::find(all, e.os_error()) != all.end();
}

/// The disk with a hard size, or the folder without one. Returns why it has none.
std::string make_place(const std::string& folder, uint64_t bytes) {
  std::string problem = "loop devices are for root";
  if (::geteuid() == 0) {
    try {
      make_disk(folder, bytes);
      return {};
    } catch (const Error& e) {
      if (is_want_of_room(e)) throw;
      problem = e.what();
    }
    ::unlink((folder + kDisk).c_str());
  }
  sys::make_dirs(folder + kFiles, 0755);
  return problem;
}

UniqueFd clone_mount(const std::string& path) {
  UniqueFd tree(static_cast<int>(
      ::syscall(SYS_open_tree, AT_FDCWD, path.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)));
  if (!tree) throw sys_error(errno, "open_tree", path);
  return tree;
}

bool is_same_folder(const UniqueFd& fd, const std::string& path) {
  struct stat held {
  }, there{};
  return ::fstat(fd.get(), &held) == 0 && ::stat(path.c_str(), &there) == 0 && held.st_ino == there.st_ino &&
         held.st_dev == there.st_dev;
}

std::vector<std::string> names_of_volumes(const std::string& folder, bool hidden) {
  std::vector<std::string> out = sys::list_folder(folder);
  std::erase_if(out, [&](const std::string& name) { return (name[0] == '.') != hidden; });
  return out;
}

/// With the lock of the folder of all volumes held, so that nobody is just making one.
void remove_abandoned(const std::string& folder) noexcept {
  for (const auto& name : names_of_volumes(folder, true)) {
    const std::string path = folder + "/" + name;
    const UniqueFd lock(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (lock && ::flock(lock.get(), LOCK_EX | LOCK_NB) == 0) sys::remove_tree(path);
  }
}

Error unknown_volume(const std::string& name) {
  return Error(Errc::not_found, fmt::format("there is no volume '{}'", name))
      .hint("hutch volume ls shows them");
}

/// Empty when the use is a good one.
std::string problem_of(const config::VolumeUse& use, const std::string& target) {
  if (!is_plain_name(use.name))
    return fmt::format("'{}' cannot be a volume's name ({})", use.name.substr(0, 80), kPlainNames);
  if (use.target.size() > kMostTargetBytes || target.empty() || target.find('\0') != target.npos)
    return fmt::format("volume '{}': the target must be an absolute path without '..', got '{}'", use.name,
                       use.target.substr(0, 80));
  if (const auto why = runtime::refused_target(target); !why.empty())
    return fmt::format("volume '{}' cannot be mounted at '{}': {}", use.name, target, why);
  return {};
}

}  // namespace

std::vector<AttachedVolume> wanted_volumes(const std::vector<config::VolumeUse>& of_profile,
                                           const std::vector<config::VolumeUse>& asked) {
  std::map<std::string, AttachedVolume> by_target;
  std::vector<std::string> problems;
  const auto add = [&](const config::VolumeUse& use, auto&& is_taken) {
    const std::string target = runtime::plain_target(use.target);
    std::string problem = problem_of(use, target);
    if (problem.empty() && is_taken(target))
      problem = fmt::format("two volumes have the target '{}'", target);
    if (!problem.empty()) return problems.push_back(std::move(problem));
    by_target[target] = {.name = use.name, .target = target, .read_only = use.read_only};
  };
  for (const auto& use : of_profile) add(use, [&](const auto& t) { return by_target.contains(t); });
  std::set<std::string> taken;
  for (const auto& use : asked) add(use, [&](const auto& t) { return !taken.insert(t).second; });
  if (by_target.size() > kMostOfOneSandbox)
    problems.push_back(fmt::format("{} volumes are more than the {} that one sandbox may have",
                                   by_target.size(), kMostOfOneSandbox));
  if (!problems.empty())
    throw Error(Errc::invalid_argument, fmt::format("{}", fmt::join(problems, "\n")))
        .hint("`volumes` is a list of {name, target, read_only}; the target is a folder such as /data");
  std::vector<AttachedVolume> out;
  for (auto& [_, volume] : by_target) out.push_back(std::move(volume));
  return out;
}

std::string VolumeStore::folder_of(const std::string& name) const {
  return home_ + "/volumes/" + name;
}

std::string VolumeStore::disk_file(const std::string& name) const {
  return folder_of(name) + kDisk;
}

/// A folder to make a volume in; whoever finds it unlocked may remove it.
std::string VolumeStore::hidden_folder(UniqueFd& lock) const {
  const std::string all = home_ + "/volumes", folder = fmt::format("{}/.{}", all, sys::random_hex(6));
  sys::make_dirs(home_, 0711);
  sys::make_dirs(all, 0700);
  const UniqueFd turn = sys::lock_folder(all);
  remove_abandoned(all);
  sys::make_dirs(folder, 0700);
  lock = sys::lock_folder(folder);
  return folder;
}

Volume VolumeStore::make(const std::string& name, uint64_t bytes) const {
  constexpr uint64_t kMiB = 1u << 20;
  const std::string all = home_ + "/volumes";
  UniqueFd lock;
  const std::string folder = hidden_folder(lock);
  try {
    Volume volume{.name = name,
                  .size_bytes = (bytes + kMiB - 1) / kMiB * kMiB,
                  .created_at = WallClock::now(),
                  .made_by = HUTCH_VERSION};
    volume.not_limited = make_place(folder, volume.size_bytes);
    write_manifest(folder, volume);
    sync_to_disk(folder);
    const UniqueFd turn = sys::lock_folder(all);
    if (names_of_volumes(all, false).size() >= static_cast<size_t>(settings_.max) &&
        !sys::exists(folder_of(name)))
      throw Error(Errc::limit_exceeded, fmt::format("there are {} volumes already", settings_.max))
          .hint("remove some with `hutch volume rm`, or raise volumes.max in the configuration");
    if (::renameat2(AT_FDCWD, folder.c_str(), AT_FDCWD, folder_of(name).c_str(), RENAME_NOREPLACE) != 0)
      throw errno == EEXIST ? Error(Errc::conflict, fmt::format("a volume '{}' exists already", name))
                                  .hint("hutch volume ls shows it")
                            : sys_error(errno, "rename", folder_of(name));
    sync_to_disk(all);
    return volume;
  } catch (Error& e) {
    sys::remove_tree(folder);
    e.during(fmt::format("making the volume '{}'", name));
    throw;
  }
}

Volume VolumeStore::create(const std::string& name, uint64_t bytes) const {
  check_name(name, "volume");
  return make(name, bytes != 0 ? bytes : settings_.default_size.value);
}

/// Empty when there is none of that name.
UniqueFd VolumeStore::lock(const std::string& name) const {
  for (;;) {
    UniqueFd fd = sys::open_if_exists(folder_of(name), O_RDONLY | O_DIRECTORY);
    if (!fd) return fd;
    if (sys::retry_eintr([&] { return ::flock(fd.get(), LOCK_EX); }) != 0)
      throw sys_error(errno, "lock", folder_of(name));
    if (is_same_folder(fd, folder_of(name))) return fd;  // otherwise it was removed while we waited
  }
}

VolumeStore::Held VolumeStore::hold(std::vector<AttachedVolume>& volumes) const {
  // By name, so that two who want the same never wait for each other.
  Held held;
  for (const auto& volume : volumes) held.try_emplace(volume.name);
  for (auto& [name, fd] : held)
    while (!(fd = lock(name))) {
      try {
        (void)make(name, settings_.default_size.value);
        log::info("made the volume {}", name);
      } catch (const Error& e) {
        if (e.code() != Errc::conflict) throw;  // another server was faster
      }
    }
  for (auto& volume : volumes) {
    const Volume known = read_manifest(folder_of(volume.name));
    volume.size_bytes = known.size_bytes;
    volume.not_limited = known.not_limited;
  }
  return held;
}

runtime::VolumeMount VolumeStore::open(const Held& held, AttachedVolume& volume, bool by_server) const {
  const std::string folder = folder_of(volume.name);
  if (!held.contains(volume.name)) throw Error(Errc::internal, "a volume is opened that is not held");
  try {
    runtime::VolumeMount out{
        .mount = {}, .folder = {}, .target = volume.target, .read_only = volume.read_only};
    if (volume.not_limited.empty()) {
      runtime::DiskImage image = mount_disk(folder);
      volume.disk = image.id;
      volume.used_bytes = used_of(image.mount);
      out.mount = std::move(image.mount);
    } else if (by_server) {
      out.mount = clone_mount(folder + kFiles);
    } else {
      out.folder = folder + kFiles;
    }
    return out;
  } catch (Error& e) {
    e.during(fmt::format("mounting the volume '{}'", volume.name));
    throw;
  }
}

std::vector<Volume> VolumeStore::list() const {
  std::vector<Volume> out;
  for (const auto& name : names_of_volumes(home_ + "/volumes", false)) {
    try {
      out.push_back(read_manifest(folder_of(name)));
    } catch (const std::exception& e) {  // removed meanwhile, or nobody's
      log::info("{} is no volume: {}", folder_of(name), e.what());
    }
  }
  return out;
}

uint64_t VolumeStore::used_bytes(const std::string& name) const noexcept {
  const std::string folder = folder_of(name);
  try {
    if (sys::exists(folder + kFiles)) return sys::tree_bytes(folder + kFiles);
    const auto device = known_device(folder);
    if (device && runtime::is_attached(*device))
      return used_of(runtime::open_disk_image(*device, runtime::DiskKind::durable));
  } catch (const std::exception&) {
    // It has just been given up by the last sandbox.
  }
  struct stat st {};
  return ::stat((folder + kDisk).c_str(), &st) == 0 ? static_cast<uint64_t>(st.st_blocks) * 512 : 0;
}

std::vector<std::string> VolumeStore::users_of(const std::string& name) const {
  std::vector<std::string> out;
  for (const Record& record : existing_sandboxes(home_))
    if (std::ranges::any_of(record.about.volumes, [&](const auto& v) { return v.name == name; }))
      out.push_back(record.about.name.empty() ? record.id
                                              : fmt::format("{} ({})", record.id, record.about.name));
  return out;
}

void VolumeStore::remove(const std::string& name) const {
  check_name(name, "volume");
  const UniqueFd held = lock(name);
  if (!held) throw unknown_volume(name);
  const std::string folder = folder_of(name), all = home_ + "/volumes";
  if (const auto users = users_of(name); !users.empty())
    throw Error(Errc::conflict, fmt::format("the volume '{}' is in use by {}", name, fmt::join(users, ", ")))
        .hint("end them first: sandbox_destroy, or `hutch rm`");
  const auto device = known_device(folder);
  for (const auto deadline = Clock::now() + kUnmountPatience; device && runtime::is_attached(*device);
       std::this_thread::sleep_for(5ms))
    if (Clock::now() > deadline)
      throw Error(Errc::conflict, fmt::format("the disk of the volume '{}' is in use", name))
          .hint(
              "a sandbox that had it may still be ending: try again; /proc/mounts shows who else mounted it");
  const std::string gone = fmt::format("{}/.{}", all, sys::random_hex(6));
  if (::rename(folder.c_str(), gone.c_str()) != 0) throw sys_error(errno, "rename", folder);
  if (!sys::remove_tree(gone))
    log::warning("something of the volume {} is still there: `hutch gc` removes it", name);
}

void VolumeStore::remove_unfinished() const noexcept {
  const std::string all = home_ + "/volumes";
  try {
    if (!sys::exists(all)) return;
    const UniqueFd turn = sys::lock_folder(all);
    remove_abandoned(all);
  } catch (const std::exception& e) {
    log::info("{}: {}", all, e.what());
  }
}

}  // namespace hutch::sandbox
