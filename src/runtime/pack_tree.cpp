#include "runtime/pack_tree.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/sys.h"
#include "runtime/beneath.h"
#include "runtime/tar.h"

namespace hutch::runtime {

namespace {

constexpr uint64_t kDiskBlock = 4096;
constexpr size_t kFlushBytes = 256u << 10, kSmallFile = 128u << 10;
constexpr size_t kMostHoles = 100'000;  // what follows the last one is written as it is
constexpr uint32_t kNobody = 65534;

/// Only the root of the namespace that it was set in gets a capability of a file: in the archive that is the
/// sandbox's, which needs no word. Empty: it is of another one.
std::string portable_capability(const std::string& value, uint32_t first_id) {
  vfs_ns_cap_data data{};
  if (value.size() == XATTR_CAPS_SZ_2) return value;
  if (value.size() != XATTR_CAPS_SZ_3) return {};
  std::memcpy(&data, value.data(), sizeof data);
  if (data.rootid != 0 && data.rootid != first_id) return {};
  data.magic_etc = (data.magic_etc & VFS_CAP_FLAGS_MASK) | VFS_CAP_REVISION_2;
  return {reinterpret_cast<const char*>(&data), XATTR_CAPS_SZ_2};
}

class TreePacker {
 public:
  TreePacker(int root, int out, const PackRules& rules) : root_(root), out_(out), rules_(rules) {}

  Packed run() {
    // Not by recursion: nobody knows how deep it is.
    std::vector<std::string> folders{""};
    while (!folders.empty()) {
      const std::string path = std::move(folders.back());
      folders.pop_back();
      const UniqueFd folder = open_folder_beneath(root_, path);
      const size_t first = folders.size();
      for (const auto& name : sys::list_folder(folder.get())) {
        std::string full = path.empty() ? name : path + "/" + name;
        try {
          if (pack(folder.get(), name, full)) folders.push_back(std::move(full));
        } catch (Error& e) {
          e.during("packing " + shown_name(full));
          throw;
        }
      }
      std::reverse(folders.begin() + static_cast<long>(first), folders.end());
    }
    flush();
    return packed_;
  }

 private:
  /// True for a folder.
  bool pack(int folder, const std::string& name, const std::string& full) {
    struct stat st {};
    if (::fstatat(folder, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) throw sys_error(errno, "stat");
    TarEntry entry{.name = rules_.prefix + full,
                   .mode = st.st_mode & 07777,
                   .uid = owner(st.st_uid),
                   .gid = owner(st.st_gid),
                   .mtime = st.st_mtim};
    if (!set_kind(entry, st)) {
      ++packed_.left_out;
      return false;
    }
    ++packed_.entries;
    packed_.bytes += taken(st);
    if (out_ >= 0) put(folder, name, st, entry);
    return S_ISDIR(st.st_mode);
  }

  void put(int folder, const std::string& name, const struct stat& st, TarEntry& entry) {
    if (is_link_to_known(st, entry)) return put(tar_header(entry));
    if (S_ISLNK(st.st_mode)) read_link(folder, name, st, entry);
    UniqueFd file;
    if (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) {
      file = open_quietly(folder, name, S_ISDIR(st.st_mode));
      read_attributes(file, entry);
    }
    if (S_ISREG(st.st_mode))
      put_file(file, st, entry);
    else
      put(tar_header(entry));
  }

  static bool set_kind(TarEntry& entry, const struct stat& st) {
    switch (st.st_mode & S_IFMT) {
      case S_IFREG:
        entry.kind = TarEntry::Kind::file;
        break;
      case S_IFDIR:
        entry.kind = TarEntry::Kind::folder;
        break;
      case S_IFLNK:
        entry.kind = TarEntry::Kind::symlink;
        break;
      case S_IFIFO:
        entry.kind = TarEntry::Kind::fifo;
        break;
      case S_IFSOCK:
        entry.kind = TarEntry::Kind::socket;
        break;
      case S_IFCHR:
        entry.kind = TarEntry::Kind::character_device;
        break;
      default:
        return false;
    }
    return !S_ISCHR(st.st_mode) || st.st_rdev == makedev(0, 0);  // a deletion
  }

  uint64_t owner(uint32_t id) const {
    return id >= rules_.first_id && id - rules_.first_id < LayerMarks::kIds ? id - rules_.first_id : kNobody;
  }

  uint64_t taken(const struct stat& st) const {
    if (S_ISDIR(st.st_mode)) return std::max<uint64_t>(static_cast<uint64_t>(st.st_size), kDiskBlock);
    if (!S_ISREG(st.st_mode)) return st.st_size >= 60 ? kDiskBlock : 0;  // ext4 has short links in the inode
    const auto size = (static_cast<uint64_t>(st.st_size) + kDiskBlock - 1) / kDiskBlock * kDiskBlock;
    const auto blocks = static_cast<uint64_t>(st.st_blocks) * 512;
    const uint64_t all = has_holes(st) ? blocks + kDiskBlock : size;
    return st.st_nlink > 1 ? all / st.st_nlink + 1 : all;
  }

  static bool has_holes(const struct stat& st) {
    return static_cast<uint64_t>(st.st_blocks) * 512 + kDiskBlock <= static_cast<uint64_t>(st.st_size);
  }

  /// Deletions may share an inode, which means nothing.
  bool is_link_to_known(const struct stat& st, TarEntry& entry) {
    if (st.st_nlink < 2 || S_ISDIR(st.st_mode) || S_ISCHR(st.st_mode)) return false;
    const auto [found, added] = links_.try_emplace(st.st_ino, entry.name);
    if (added) return false;
    entry.kind = TarEntry::Kind::hard_link;
    entry.link = found->second;
    return true;
  }

  static void read_link(int folder, const std::string& name, const struct stat& st, TarEntry& entry) {
    entry.link.resize(static_cast<size_t>(st.st_size) + 1);
    const ssize_t n = ::readlinkat(folder, name.c_str(), entry.link.data(), entry.link.size());
    if (n < 0 || n > st.st_size) throw sys_error(n < 0 ? errno : EIO, "readlink");
    entry.link.resize(static_cast<size_t>(n));
  }

  static UniqueFd open_quietly(int folder, const std::string& name, bool is_folder) {
    const int flags = O_RDONLY | O_NOFOLLOW | O_CLOEXEC | (is_folder ? O_DIRECTORY : 0);
    UniqueFd fd(::openat(folder, name.c_str(), flags | O_NOATIME | O_CLOEXEC));
    if (!fd && errno == EPERM) fd.reset(::openat(folder, name.c_str(), flags | O_CLOEXEC));
    if (!fd) throw sys_error(errno, "open");
    return fd;
  }

  void read_attributes(const UniqueFd& file, TarEntry& entry) {
    names_.resize(64u << 10);
    const ssize_t all = ::flistxattr(file.get(), names_.data(), names_.size());
    if (all < 0 && errno != ENOTSUP) throw sys_error(errno, "listxattr");
    for (ssize_t at = 0; at < all;) {
      const std::string name = names_.data() + at;
      at += static_cast<ssize_t>(name.size()) + 1;
      if (!LayerMarks::is_attribute(name, rules_.trusted_marks)) continue;
      std::string value(64u << 10, '\0');
      const ssize_t size = ::fgetxattr(file.get(), name.c_str(), value.data(), value.size());
      if (size < 0) throw sys_error(errno, "getxattr", name);
      value.resize(static_cast<size_t>(size));
      add_attribute(name, value, entry);
    }
  }

  void add_attribute(const std::string& name, const std::string& value, TarEntry& entry) const {
    const bool opaque = name == LayerMarks::kOpaque || name == LayerMarks::kOpaqueInNamespace;
    if (opaque) {
      if (value == "y") entry.attributes[LayerMarks::kOpaque] = value;
    } else if (name != LayerMarks::kCapability) {
      entry.attributes[name] = value;
    } else if (std::string capability = portable_capability(value, rules_.first_id); !capability.empty()) {
      entry.attributes[name] = std::move(capability);
    }
  }

  static TarMap map_of(const UniqueFd& file, off_t size) {
    TarMap map;
    off_t at = 0, end = 0;
    while ((at = ::lseek(file.get(), end, SEEK_DATA)) >= 0) {
      end = map.pieces.size() == kMostHoles ? size : ::lseek(file.get(), at, SEEK_HOLE);
      if (end < 0) throw sys_error(errno, "lseek");
      map.pieces.push_back({static_cast<uint64_t>(at), static_cast<uint64_t>(end - at)});
    }
    if (errno != ENXIO) throw sys_error(errno, "lseek");
    if (end < size) map.pieces.push_back({static_cast<uint64_t>(size), 0});  // as GNU tar does
    return map;
  }

  void put_file(const UniqueFd& file, const struct stat& st, TarEntry& entry) {
    entry.size = entry.stored = static_cast<uint64_t>(st.st_size);
    TarMap map{{{0, entry.size}}};
    std::string encoded;
    if (has_holes(st)) {
      map = map_of(file, st.st_size);
      entry.sparse = true;
      encoded = map.encoded();
      entry.stored = encoded.size();
      for (const auto& piece : map.pieces) entry.stored += piece.length;
    }
    put(tar_header(entry));
    put(encoded);
    for (const auto& piece : map.pieces) put_data(file, piece);
    put(tar_padding(entry.stored));
  }

  void put_data(const UniqueFd& file, const TarMap::Piece& piece) {
    auto at = static_cast<off_t>(piece.at);
    uint64_t left = piece.length;
    const bool small = left <= kSmallFile;
    if (!small) flush();
    while (left > 0) {
      const ssize_t n = small ? append(file, at, static_cast<size_t>(left))
                              : ::sendfile(out_, file.get(), &at, std::min<uint64_t>(left, 1u << 30));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) throw sys_error(errno, "copy");
      if (n == 0) throw Error(Errc::conflict, "the file has become shorter");
      if (small) at += n;
      left -= static_cast<uint64_t>(n);
    }
  }

  ssize_t append(const UniqueFd& file, off_t at, size_t size) {
    const size_t before = buffer_.size();
    buffer_.resize(before + size);
    const ssize_t n = ::pread(file.get(), buffer_.data() + before, size, at);
    buffer_.resize(before + static_cast<size_t>(std::max<ssize_t>(n, 0)));
    return n;
  }

  void put(std::string_view bytes) {
    buffer_.append(bytes);
    if (buffer_.size() >= kFlushBytes) flush();
  }

  void flush() {
    if (out_ >= 0) sys::write_all(out_, buffer_);
    buffer_.clear();
  }

  const int root_, out_;
  const PackRules& rules_;
  std::map<ino_t, std::string> links_;
  std::string buffer_, names_;
  Packed packed_;
};

}  // namespace

bool LayerMarks::are_trusted() {
  return ::geteuid() == 0 && sys::read_file("/proc/self/uid_map").find("4294967295") != std::string::npos;
}

bool LayerMarks::is_attribute(std::string_view name, bool trusted) {
  if (name == kCapability || name == (trusted ? kOpaque : kOpaqueInNamespace)) return true;
  // What else overlays understand moves files to where they are not (redirect) or shows those of other layers
  // (metacopy, origin). In some sandboxes' overlays these are marks, in others files of the user have them.
  return name.starts_with("user.") && !name.starts_with("user.overlay.");
}

Packed pack_tree(int root, int out, const PackRules& rules) {
  return TreePacker(root, out, rules).run();
}

}  // namespace hutch::runtime
