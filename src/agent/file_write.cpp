#include <fcntl.h>
#include <sys/random.h>

#include <charconv>
#include <cstdio>
#include <cstring>

#include "agent/file_stream.h"
#include "agent/sys.h"

namespace hutch::agent {
namespace {

constexpr mode_t kModeBits = 07777;
constexpr mode_t kReadBits = 0444;

mode_t with_execute(mode_t mode) {
  return mode | (mode & kReadBits) >> 2;
}

}  // namespace

void FileStream::start_write(const wire::WriteFile& request, Services& services) {
  using Write = wire::WriteFile;
  options_ = request.options;
  expected_ = request.expected;
  User owner;
  if (const char* problem = find_user(request.user, owner); problem != nullptr)
    return fail(errno, problem, {}, services);
  const bool make_parents = (options_ & Write::kMakeParents) != 0;
  int error = find_place(request.path, make_parents ? &owner : nullptr, place_);
  if (error != 0) return fail(error, "write ", request.path, services);

  struct stat status;
  const bool exists = fstatat(place_.folder.get(), place_.name, &status, AT_SYMLINK_NOFOLLOW) == 0;
  if (!exists && errno != ENOENT) return fail(errno, "stat ", request.path, services);
  created_ = !exists;
  if (exists && (options_ & Write::kCreateNew) != 0) return fail(EEXIST, "create ", request.path, services);
  if (exists && !S_ISREG(status.st_mode)) {
    return fail(S_ISDIR(status.st_mode) ? EISDIR : EINVAL, "write (not a file) ", request.path, services);
  }
  if (!is_expected()) return fail(ESTALE, "write ", request.path, services);
  mode_ = (exists ? status.st_mode : request.mode) & kModeBits;
  if ((options_ & Write::kExecutable) != 0) mode_ = with_execute(mode_);

  const bool append = (options_ & Write::kAppend) != 0;
  error = append ? open_for_append(request, exists) : make_temporary();
  if (!exists) status.st_uid = owner.uid, status.st_gid = owner.gid;
  const bool changes_owner = exists ? !append : !owner.is_root();
  if (error == 0 && changes_owner && fchown(fd_.get(), status.st_uid, status.st_gid) != 0) error = errno;
  kind_ = append ? Kind::append : Kind::write;  // from here on drop() removes the temporary file
  if (error != 0) return fail(error, "write ", request.path, services);
  services.channel.send(wire::Type::ready, stream_);
}

int FileStream::open_for_append(const wire::WriteFile& request, bool exists) {
  constexpr int kFlags = O_WRONLY | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
  const int creation = exists ? 0 : O_CREAT | O_EXCL;
  fd_.reset(openat(place_.folder.get(), place_.name, kFlags | creation, request.mode & kModeBits));
  struct stat status;
  if (!fd_ || fstat(fd_.get(), &status) != 0) return errno;
  return S_ISREG(status.st_mode) ? 0 : EINVAL;
}

/// In the same folder, so that the rename cannot cross a file system.
int FileStream::make_temporary() {
  constexpr int kFlags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
  uint64_t random = 0;
  (void)!getrandom(&random, sizeof random, 0);
  constexpr std::string_view kPrefix = ".hutch-";
  kPrefix.copy(temporary_, kPrefix.size());
  *std::to_chars(temporary_ + kPrefix.size(), temporary_ + sizeof temporary_ - 1, random, 36).ptr = '\0';
  fd_.reset(openat(place_.folder.get(), temporary_, kFlags, 0600));
  if (fd_) return 0;
  *temporary_ = '\0';
  return errno;
}

bool FileStream::is_expected() const {
  if ((options_ & wire::WriteFile::kExpect) == 0) return true;
  struct stat status;
  return fstatat(place_.folder.get(), place_.name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
         state_of(status) == expected_;
}

void FileStream::add_data(std::string_view bytes, Services& services) {
  consumed_ += static_cast<uint32_t>(bytes.size());
  while (!bytes.empty()) {
    const ssize_t count = retry_eintr([&] { return write(fd_.get(), bytes.data(), bytes.size()); });
    if (count < 0) return fail(errno, "write", {}, services);
    bytes.remove_prefix(static_cast<size_t>(count));
  }
  if (consumed_ < wire::kWindow / 4) return;
  services.channel.send(wire::Type::credit, stream_, wire::Credit{consumed_});
  consumed_ = 0;
}

int FileStream::put_in_place() {
  if (fchmod(fd_.get(), mode_) != 0) return errno;
  if (!is_expected()) return ESTALE;
  const int folder = place_.folder.get();
  if ((options_ & wire::WriteFile::kCreateNew) == 0) {
    return renameat(folder, temporary_, folder, place_.name) == 0 ? 0 : errno;
  }
  // A link never replaces anything, on every file system; RENAME_NOREPLACE is not implemented by some.
  if (linkat(folder, temporary_, folder, place_.name, 0) != 0) return errno;
  return unlinkat(folder, temporary_, 0) == 0 ? 0 : errno;
}

void FileStream::commit(Services& services) {
  int error = 0;
  if (kind_ == Kind::write)
    error = put_in_place();
  else if ((options_ & wire::WriteFile::kExecutable) != 0 && fchmod(fd_.get(), mode_) != 0)
    error = errno;
  if (error != 0) return fail(error, "commit ", place_.name, services);
  *temporary_ = '\0';
  struct stat status;
  if (fstat(fd_.get(), &status) != 0) return fail(errno, "stat ", place_.name, services);
  services.channel.send(wire::Type::file_info, stream_, info(status));
  drop();
}

}  // namespace hutch::agent
