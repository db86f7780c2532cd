#include "runtime/unpack_tree.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/capability.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <vector>

#include "base/sys.h"
#include "runtime/beneath.h"
#include "runtime/pack_tree.h"
#include "runtime/tar.h"

namespace hutch::runtime {

namespace {

constexpr uint64_t kEntryBytes = 256;  // what one takes at least

/// `path` and its last name.
std::pair<std::string_view, std::string_view> split(std::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? std::pair{std::string_view(), path}
                                         : std::pair{path.substr(0, slash), path.substr(slash + 1)};
}

[[noreturn]] void refuse(const std::string& why) {
  throw Error(Errc::invalid_argument, why);
}

bool is_view_name(std::string_view name) {
  return name.starts_with("root") && !name.ends_with(".work") &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.%") ==
             std::string_view::npos;
}

class TreeUnpacker {
 public:
  TreeUnpacker(int in, int root, const UnpackRules& rules) : reader_(in), root_(root), rules_(rules) {}

  Unpacked run() {
    while (reader_.next_of_part()) {
      try {
        unpack(reader_.entry());
      } catch (Error& e) {
        e.during("unpacking " + shown_name(reader_.entry().name));
        throw;
      }
    }
    // What was made in them has changed them.
    for (auto it = folders_.rbegin(); it != folders_.rend(); ++it)
      set_times(open_folder_beneath(root_, it->first).get(), it->second);
    if (::syncfs(root_) != 0) throw sys_error(errno, "sync", "what was unpacked");
    return unpacked_;
  }

 private:
  void unpack(const TarEntry& entry) {
    ++unpacked_.entries;
    charge(kEntryBytes);
    const std::string path = checked_path(entry.name);
    const auto [folder, base] = split(path);
    if (folder.empty() && (entry.kind != TarEntry::Kind::folder || !is_view_name(base)))
      refuse("no such tree can be in a layer");
    enter(folder);
    const std::string name(base);
    switch (entry.kind) {
      case TarEntry::Kind::file:
        return make_file(entry, name);
      case TarEntry::Kind::folder:
        return make_folder(entry, name, path);
      case TarEntry::Kind::hard_link:
        return make_link(entry, name);
      case TarEntry::Kind::symlink:
        return make_symlink(entry, name);
      case TarEntry::Kind::character_device:
        if (entry.major != 0 || entry.minor != 0) break;
        return make_node(entry, name, S_IFCHR);
      case TarEntry::Kind::fifo:
        return make_node(entry, name, S_IFIFO);
      case TarEntry::Kind::socket:
        return make_node(entry, name, S_IFSOCK);
      case TarEntry::Kind::block_device:
        break;
    }
    refuse("it is a device");
  }

  std::string checked_path(const std::string& name) const {
    if (!name.starts_with(rules_.prefix)) refuse("it is outside of the layer");
    std::string path = name.substr(rules_.prefix.size());
    for (std::string_view rest = path;;) {
      const std::string_view part = rest.substr(0, rest.find('/'));
      if (part.empty() || part == "." || part == "..") refuse("its name is no path of plain names");
      if (part.size() == rest.size()) return path;
      rest.remove_prefix(part.size() + 1);
    }
  }

  void enter(std::string_view folder) {
    if (parent_ && folder == parent_path_) return;
    parent_ = open_folder_beneath(root_, folder);
    parent_path_ = folder;
  }

  void charge(uint64_t bytes) {
    if (bytes > rules_.max_bytes - std::min(used_, rules_.max_bytes))
      throw Error(Errc::limit_exceeded, "there is more in it than the archive says").with_os_error(ENOSPC);
    used_ += bytes;
  }

  static void done(int rc, const char* call) {
    if (rc == 0) return;
    if (errno == EEXIST) refuse("the name is in the archive twice");
    throw sys_error(errno, call);
  }

  void make_file(const TarEntry& entry, const std::string& name) {
    UniqueFd file(
        ::openat(parent_.get(), name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    done(file ? 0 : -1, "create");
    if (!entry.sparse) {
      write_content(file);
    } else {
      for (const TarMap::Piece& piece : reader_.map().pieces) write_piece(file, piece);
      if (::ftruncate(file.get(), static_cast<off_t>(entry.size)) != 0) throw sys_error(errno, "truncate");
    }
    set_all(file.get(), entry);
    set_times(file.get(), entry.mtime);
  }

  void write_content(const UniqueFd& file) {
    for (std::string_view piece; !(piece = reader_.content()).empty();) {
      charge(piece.size());
      sys::write_all(file.get(), piece);
    }
  }

  void write_piece(const UniqueFd& file, TarMap::Piece piece) {
    if (::lseek(file.get(), static_cast<off_t>(piece.at), SEEK_SET) < 0) throw sys_error(errno, "seek");
    while (piece.length > 0) {
      const std::string_view bytes = reader_.content(piece.length);
      if (bytes.empty()) refuse("its data is shorter than its map");
      charge(bytes.size());
      sys::write_all(file.get(), bytes);
      piece.length -= bytes.size();
    }
  }

  void make_folder(const TarEntry& entry, const std::string& name, const std::string& path) {
    done(::mkdirat(parent_.get(), name.c_str(), 0700), "mkdir");
    const UniqueFd folder = open_folder_beneath(parent_.get(), name);
    set_all(folder.get(), entry);
    folders_.emplace_back(path, entry.mtime);
  }

  void make_link(const TarEntry& entry, const std::string& name) {
    const std::string target = checked_path(entry.link);
    const auto [folder, base] = split(target);
    const UniqueFd from = open_folder_beneath(root_, folder);
    done(::linkat(from.get(), std::string(base).c_str(), parent_.get(), name.c_str(), 0), "link");
  }

  void make_symlink(const TarEntry& entry, const std::string& name) {
    done(::symlinkat(entry.link.c_str(), parent_.get(), name.c_str()), "symlink");
    set_node(entry, name);
  }

  void make_node(const TarEntry& entry, const std::string& name, mode_t kind) {
    done(::mknodat(parent_.get(), name.c_str(), kind | 0600, makedev(0, 0)), "mknod");
    set_node(entry, name);
  }

  /// Of what cannot be opened. It has just been made by us, in a folder that nobody else can reach.
  void set_node(const TarEntry& entry, const std::string& name) {
    unpacked_.attributes_dropped += entry.attributes.size();
    if (owner_can_be(entry) &&
        ::fchownat(parent_.get(), name.c_str(), id(entry.uid), id(entry.gid), AT_SYMLINK_NOFOLLOW) != 0)
      throw sys_error(errno, "chown");
    if (entry.kind != TarEntry::Kind::symlink && ::fchmodat(parent_.get(), name.c_str(), entry.mode, 0) != 0)
      throw sys_error(errno, "chmod");
    const timespec times[] = {entry.mtime, entry.mtime};
    if (::utimensat(parent_.get(), name.c_str(), times, AT_SYMLINK_NOFOLLOW) != 0)
      throw sys_error(errno, "utimensat");
  }

  /// Each step may undo what a later one sets: a new owner takes setuid bits and capabilities away.
  void set_all(int fd, const TarEntry& entry) {
    if (owner_can_be(entry) && ::fchown(fd, id(entry.uid), id(entry.gid)) != 0)
      throw sys_error(errno, "chown");
    if (::fchmod(fd, entry.mode) != 0) throw sys_error(errno, "chmod");
    for (const auto& [name, value] : entry.attributes)
      if (name != LayerMarks::kCapability) set_attribute(fd, entry, name, value);
    if (const auto found = entry.attributes.find(LayerMarks::kCapability); found != entry.attributes.end())
      set_attribute(fd, entry, found->first, found->second);
  }

  void set_attribute(int fd, const TarEntry& entry, const std::string& name, const std::string& value) {
    const bool is_opaque = name == LayerMarks::kOpaque;
    const bool wrong = is_opaque ? value != "y" || entry.kind != TarEntry::Kind::folder
                                 : name == LayerMarks::kCapability && value.size() != XATTR_CAPS_SZ_2;
    // In archives all marks are root's.
    if (wrong || !LayerMarks::is_attribute(name, true)) {
      ++unpacked_.attributes_dropped;
      return;
    }
    charge(name.size() + value.size());
    const char* real = is_opaque && !rules_.trusted_marks ? LayerMarks::kOpaqueInNamespace : name.c_str();
    if (::fsetxattr(fd, real, value.data(), value.size(), XATTR_CREATE) != 0)
      throw sys_error(errno, "setxattr", shown_name(name));
  }

  bool owner_can_be(const TarEntry& entry) {
    if (entry.uid >= LayerMarks::kIds || entry.gid >= LayerMarks::kIds)
      refuse(fmt::format("its owner {}:{} does not exist in sandboxes", entry.uid, entry.gid));
    if (rules_.keep_owners) return true;
    if (entry.uid != 0 || entry.gid != 0) ++unpacked_.owners_lost;
    return false;
  }

  static uint32_t id(uint64_t value) { return static_cast<uint32_t>(value); }

  static void set_times(int fd, const timespec& time) {
    const timespec times[] = {time, time};
    if (::futimens(fd, times) != 0) throw sys_error(errno, "utimensat");
  }

  TarReader reader_;
  const int root_;
  const UnpackRules& rules_;
  UniqueFd parent_;
  std::string parent_path_;
  std::vector<std::pair<std::string, timespec>> folders_;
  uint64_t used_ = 0;
  Unpacked unpacked_;
};

}  // namespace

Unpacked unpack_tree(int in, int root, const UnpackRules& rules) {
  return TreeUnpacker(in, root, rules).run();
}

}  // namespace hutch::runtime
