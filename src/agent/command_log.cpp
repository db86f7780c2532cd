#include "agent/command_log.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>

#include "agent/sys.h"

namespace hutch::agent {
namespace {

// The folder is one that commands can write to: no link of theirs may lead the log anywhere else.
constexpr uint64_t kResolve = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS;

/// `path` is changed while it works and is itself again afterwards.
void make_parents(char* path) {
  UniqueFd folder(openat2(kRootFd, "/", O_PATH | O_DIRECTORY | O_CLOEXEC, 0, kResolve));
  char* name = path + std::strspn(path, "/");
  for (char* slash; folder && (slash = std::strchr(name, '/')) != nullptr; name = slash + 1) {
    *slash = '\0';
    if (*name != '\0') {
      (void)mkdirat(folder.get(), name, 0755);  // EEXIST is the usual case
      folder.reset(openat2(folder.get(), name, O_PATH | O_DIRECTORY | O_CLOEXEC, 0, kResolve));
    }
    *slash = '/';
  }
}

}  // namespace

bool CommandLog::set(std::string_view path, uint64_t max_bytes) {
  if (path.size() >= kPathBytes || path.find('\0') != std::string_view::npos) return false;
  max_bytes_ = max_bytes;
  bytes_ = 0;
  *std::copy(path.begin(), path.end(), path_) = '\0';
  return true;
}

void CommandLog::open() {
  constexpr uint64_t kFlags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_APPEND | O_CLOEXEC;
  make_parents(path_);
  fd_.reset(openat2(kRootFd, path_, kFlags, 0644, kResolve));
  if (!fd_) close();
}

void CommandLog::append(std::string_view bytes) {
  if (*path_ == '\0' || bytes.empty() || bytes_ >= max_bytes_) return;
  if (!fd_) open();
  bytes = bytes.substr(0, max_bytes_ - bytes_);
  while (fd_ && !bytes.empty()) {
    const ssize_t count = retry_eintr([&] { return write(fd_.get(), bytes.data(), bytes.size()); });
    if (count <= 0) return close();
    bytes_ += static_cast<uint64_t>(count);
    bytes.remove_prefix(static_cast<size_t>(count));
  }
}

void CommandLog::close() {
  fd_.reset();
  *path_ = '\0';
}

}  // namespace hutch::agent
