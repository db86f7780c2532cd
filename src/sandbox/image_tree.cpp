#include "sandbox/image_tree.h"

#include <dirent.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <string_view>

#include "base/sys.h"
#include "runtime/rootfs.h"

namespace hutch::sandbox {

namespace {

constexpr int kDeepest = 1000;  // folders in folders, which a path can have at most 2,048 of

struct Needed {
  const char* name;
  mode_t mode;
  bool mounted_on;  // OCI runtimes refuse a link there
};
constexpr Needed kNeeded[] = {{"proc", 0555, true}, {"sys", 0555, true},   {"dev", 0755, true},
                              {"run", 0755, true},  {"tmp", 01777, false}, {"workspace", 0755, false},
                              {"etc", 0755, false}};

/// Folders that the server's user may not write to, where that user is not root: for a moment it may.
class Opened {
 public:
  explicit Opened(int folder) : folder_(folder) {
    struct stat st {};
    if (::geteuid() == 0 || ::fstat(folder, &st) != 0 || (st.st_mode & 0700) == 0700) return;
    mode_ = st.st_mode & 07777;
    changed_ = ::fchmod(folder, mode_ | 0700) == 0;
  }
  ~Opened() {
    if (changed_) (void)::fchmod(folder_, mode_);
  }
  Opened(const Opened&) = delete;
  Opened& operator=(const Opened&) = delete;

 private:
  int folder_;
  mode_t mode_ = 0;
  bool changed_ = false;
};

/// Only in the folder itself, whatever the name is.
bool entry_status(int folder, const char* name, struct stat& st) {
  return ::fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

/// An image could declare one of its folders opaque, or as one that lies elsewhere.
void remove_overlay_attributes(const std::string& path) {
  char names[65536];
  const ssize_t size = ::llistxattr(path.c_str(), names, sizeof names);
  for (ssize_t at = 0; at < size;) {
    const std::string_view name = names + at;
    if ((name.starts_with("trusted.overlay.") || name.starts_with("user.overlay.")) &&
        ::lremovexattr(path.c_str(), name.data()) != 0)
      throw sys_error(errno, "remove attribute", name);
    at += static_cast<ssize_t>(name.size()) + 1;
  }
}

void clean_tree(int folder, int depth) {
  if (depth > kDeepest)
    throw Error(Errc::limit_exceeded, fmt::format("the image has folders {} deep", kDeepest));
  remove_overlay_attributes(fmt::format("/proc/self/fd/{}/.", folder));
  const int copy = ::openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(copy < 0 ? nullptr : ::fdopendir(copy), ::closedir);
  if (!stream) throw sys_error(errno, "opendir", "the image's files");
  while (const dirent* entry = ::readdir(stream.get())) {
    const std::string name = entry->d_name;
    struct stat st {};
    if (name == "." || name == ".." || !entry_status(folder, name.c_str(), st)) continue;
    if (S_ISDIR(st.st_mode)) {
      const UniqueFd inner(::openat(folder, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
      if (inner)
        clean_tree(inner.get(), depth + 1);
      else if (errno != EACCES)
        throw sys_error(errno, "open", name);
    } else if ((S_ISCHR(st.st_mode) && st.st_rdev != 0) || S_ISBLK(st.st_mode)) {
      if (::unlinkat(folder, name.c_str(), 0) != 0) throw sys_error(errno, "unlink", name);
    } else if (S_ISREG(st.st_mode)) {
      remove_overlay_attributes(fmt::format("/proc/self/fd/{}/{}", folder, name));
    }
  }
}

void need_folder(int root, const Needed& needed) {
  struct stat st {};
  const bool there = entry_status(root, needed.name, st);
  if (there && (S_ISDIR(st.st_mode) || !needed.mounted_on)) return;
  if (there && ::unlinkat(root, needed.name, 0) != 0) throw sys_error(errno, "unlink", needed.name);
  if (::mkdirat(root, needed.name, 0700) != 0 || ::fchmodat(root, needed.name, needed.mode, 0) != 0)
    throw sys_error(errno, "mkdir", needed.name);
}

/// `path` has a folder in it, which may be a link to elsewhere in the image.
void write_name_file(int root, std::string_view path, std::string_view text) {
  const size_t slash = path.rfind('/');
  const std::string parent(path.substr(0, slash)), name(path.substr(slash + 1));
  open_how how{};
  how.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  const UniqueFd folder(static_cast<int>(::syscall(SYS_openat2, root, parent.c_str(), &how, sizeof how)));
  if (!folder) return;  // the image has no /etc that is a folder
  const Opened opened(folder.get());
  if (::unlinkat(folder.get(), name.c_str(), 0) != 0 && errno != ENOENT) {
    if (errno == EISDIR || errno == EPERM) return;
    throw sys_error(errno, "unlink", path);
  }
  const UniqueFd file(
      ::openat(folder.get(), name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file) throw sys_error(errno, "create", path);
  sys::write_all(file.get(), text);
  if (::fchmod(file.get(), 0644) != 0) throw sys_error(errno, "chmod", path);
}

}  // namespace

void prepare_image_tree(int root) {
  const Opened opened(root);
  clean_tree(root, 0);
  for (const auto& needed : kNeeded) need_folder(root, needed);
  for (const auto& file : runtime::name_files()) write_name_file(root, file.path, file.text);
}

}  // namespace hutch::sandbox
