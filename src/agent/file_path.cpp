#include "agent/file_path.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cstring>

#include "agent/sys.h"

namespace hutch::agent {
namespace {

constexpr uint64_t kResolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
constexpr int kFolder = O_PATH | O_DIRECTORY | O_CLOEXEC;

struct PathText {
  char text[PATH_MAX] = {};
  size_t size = 0;

  int set(std::string_view path) {
    size = 0;
    if (path.empty() || path.front() != '/' || path.find('\0') != std::string_view::npos) return EINVAL;
    return append(path);
  }
  int append(std::string_view part) {
    if (part.size() >= sizeof text - size) return ENAMETOOLONG;
    part.copy(text + size, part.size());
    size += part.size();
    text[size] = '\0';
    return 0;
  }
  std::string_view view() const { return {text, size}; }
};

/// The user may put something else in its place before it is opened: see give_folder().
bool make_one(int above, const char* name, const User& owner) {
  if (mkdirat(above, name, 0755) != 0) return false;
  const UniqueFd made(openat(above, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (made) (void)give_folder(made.get(), owner);
  return true;
}

/// Each prefix of the path is resolved from the root, as the kernel will resolve the whole: walking with
/// folder descriptors instead would read ".." and links differently.
int make_folders(char* path, const User& owner) {
  UniqueFd above(openat2(kRootFd, "/", kFolder, 0, kResolve));
  for (char* name = path; above;) {
    name += std::strspn(name, "/");
    if (*name == '\0') return 0;
    char* end = name + std::strcspn(name, "/");
    const char kept = *end;
    *end = '\0';
    int fd = openat2(kRootFd, path, kFolder, 0, kResolve);
    if (fd < 0 && errno == ENOENT && (make_one(above.get(), name, owner) || errno == EEXIST)) {
      fd = openat2(kRootFd, path, kFolder, 0, kResolve);
    }
    above.reset(fd);
    *end = kept;
    name = end;
  }
  return errno;
}

/// Splits the last name off and opens what is before it.
int open_parent(PathText& path, const User* makes_parents, Place& place) {
  const size_t slash = path.view().rfind('/');
  const std::string_view name = path.view().substr(slash + 1);
  if (name.empty() || name == "." || name == "..") return EISDIR;
  if (name.size() > NAME_MAX) return ENAMETOOLONG;
  std::memcpy(place.name, name.data(), name.size() + 1);
  path.size = slash + 1;
  path.text[path.size] = '\0';
  if (makes_parents != nullptr) {
    if (const int error = make_folders(path.text, *makes_parents); error != 0) return error;
  }
  place.folder.reset(openat2(kRootFd, path.text, kFolder, 0, kResolve));
  return place.folder ? 0 : errno;
}

}  // namespace

int open_beneath(std::string_view path, uint64_t flags) {
  PathText text;
  if (const int error = text.set(path); error != 0) {
    errno = error;
    return -1;
  }
  return openat2(kRootFd, text.text, flags | O_CLOEXEC, 0, kResolve);
}

int find_place(std::string_view requested, const User* makes_parents, Place& place) {
  constexpr int kMostLinks = 40;  // as in the kernel
  PathText path;
  if (const int error = path.set(requested); error != 0) return error;
  for (int links = 0; links <= kMostLinks; ++links) {
    if (const int error = open_parent(path, makes_parents, place); error != 0) return error;
    char target[PATH_MAX];
    const ssize_t size = readlinkat(place.folder.get(), place.name, target, sizeof target);
    if (size < 0) return errno == EINVAL || errno == ENOENT ? 0 : errno;  // no link, or nothing there yet
    const std::string_view link(target, static_cast<size_t>(size));
    // A relative one is meant from the folder of the link, which is what `path` holds now.
    const int error = link.starts_with('/') ? path.set(link) : path.append(link);
    if (error != 0) return error;
  }
  return ELOOP;
}

int make_folder(std::string_view requested, const User& owner) {
  PathText path;
  if (const int error = path.set(requested); error != 0) return error;
  if (const int error = make_folders(path.text, owner); error != 0) return error;
  const UniqueFd folder(open_beneath(requested, O_RDONLY | O_DIRECTORY));
  return folder ? give_folder(folder.get(), owner) : errno;
}

}  // namespace hutch::agent
