#include "base/sys.h"

#include <dirent.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <memory>

namespace hutch::sys {

UniqueFd open(const std::string& path, int flags, mode_t mode) {
  const int fd = retry_eintr([&] { return ::open(path.c_str(), flags | O_CLOEXEC, mode); });
  if (fd < 0) throw sys_error(errno, "open", path);
  return UniqueFd(fd);
}

UniqueFd open_if_exists(const std::string& path, int flags) {
  const int fd = retry_eintr([&] { return ::open(path.c_str(), flags | O_CLOEXEC); });
  if (fd < 0 && errno != ENOENT) throw sys_error(errno, "open", path);
  return UniqueFd(fd);
}

UniqueFd duplicate(int fd) {
  UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
  if (!copy) throw sys_error(errno, "dup");
  return copy;
}

UniqueFd lock_folder(const std::string& path) {
  UniqueFd fd = open(path, O_RDONLY | O_DIRECTORY);
  if (retry_eintr([&] { return ::flock(fd.get(), LOCK_EX); }) != 0) throw sys_error(errno, "lock", path);
  return fd;
}

Pipe pipe() {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) throw sys_error(errno, "pipe2");
  return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

void write_all(int fd, std::string_view data) {
  while (!data.empty()) {
    const ssize_t n = retry_eintr([&] { return ::write(fd, data.data(), data.size()); });
    if (n < 0) throw sys_error(errno, "write", fmt::format("fd {}", fd));
    data.remove_prefix(static_cast<size_t>(n));
  }
}

std::string read_all(int fd, size_t max_bytes) {
  std::string out;
  std::array<char, 16384> chunk;
  for (;;) {
    const ssize_t n = retry_eintr([&] { return ::read(fd, chunk.data(), chunk.size()); });
    if (n < 0) throw sys_error(errno, "read", fmt::format("fd {}", fd));
    if (n == 0) return out;
    out.append(chunk.data(), static_cast<size_t>(n));
    if (out.size() > max_bytes)
      throw Error(Errc::limit_exceeded, fmt::format("more than {} bytes", max_bytes));
  }
}

std::string read_file(const std::string& path, size_t max_bytes) {
  const UniqueFd fd = open(path, O_RDONLY);
  return during("reading " + path, [&] { return read_all(fd.get(), max_bytes); });
}

void write_file(const std::string& path, std::string_view data, mode_t mode) {
  const UniqueFd fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, mode);
  during("writing " + path, [&] { write_all(fd.get(), data); });
}

void replace_file(const std::string& path, std::string_view data, mode_t mode) {
  const std::string temporary = fmt::format("{}.{}", path, random_hex(4));
  try {
    write_file(temporary, data, mode);
    if (::rename(temporary.c_str(), path.c_str()) != 0) throw sys_error(errno, "rename", path);
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
}

bool exists(const std::string& path) {
  return ::access(path.c_str(), F_OK) == 0;
}

void make_dirs(const std::string& path, mode_t mode) {
  if (::mkdir(path.c_str(), mode) == 0 || errno == EEXIST) return;
  for (size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    const std::string part = path.substr(0, end);
    if (!part.empty() && ::mkdir(part.c_str(), mode) != 0 && errno != EEXIST)
      throw sys_error(errno, "mkdir", part);
    if (end == std::string::npos) return;
  }
}

std::vector<std::string> list_folder(const std::string& path) {
  const UniqueFd folder(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return folder ? list_folder(folder.get()) : std::vector<std::string>();
}

std::vector<std::string> list_folder(int folder) {
  // By a descriptor of its own: the place in a folder is shared by all copies of one.
  UniqueFd own(::openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(own ? ::fdopendir(own.get()) : nullptr, ::closedir);
  if (!stream) throw sys_error(errno, "open", "a folder");
  (void)own.release();
  std::vector<std::string> names;
  for (errno = 0; const dirent* entry = ::readdir(stream.get()); errno = 0)
    if (const std::string_view name = entry->d_name; name != "." && name != "..") names.emplace_back(name);
  if (errno != 0) throw sys_error(errno, "readdir");
  std::ranges::sort(names);
  return names;
}

namespace {

class TreeRemover {
 public:
  TreeRemover(dev_t device, const RemoveBounds& bounds) : device_(device), bounds_(bounds) {}

  /// Takes the descriptor.
  bool empty(int dir_fd) const noexcept {
    DIR* stream = ::fdopendir(dir_fd);
    if (stream == nullptr) {
      (void)::close(dir_fd);
      return false;
    }
    const std::unique_ptr<DIR, int (*)(DIR*)> guard(stream, ::closedir);
    bool all_gone = true;
    while (const dirent* entry = ::readdir(stream)) {
      const std::string_view name = entry->d_name;
      if (std::chrono::steady_clock::now() > bounds_.deadline) return false;
      if (name != "." && name != "..") all_gone = remove(dir_fd, *entry) && all_gone;
    }
    return all_gone;
  }

 private:
  bool remove(int dir_fd, const dirent& entry) const noexcept {
    const char* name = entry.d_name;
    const bool any_size = bounds_.max_file_bytes == UINT64_MAX;
    if (entry.d_type != DT_DIR && entry.d_type != DT_UNKNOWN && (any_size || entry.d_type != DT_REG))
      return unlink(dir_fd, name, 0);
    if (entry.d_type == DT_DIR && ::unlinkat(dir_fd, name, AT_REMOVEDIR) == 0) return true;  // many are empty
    struct stat st {};
    if (::fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0) return errno == ENOENT;
    if (!S_ISDIR(st.st_mode)) {
      if (S_ISREG(st.st_mode) && static_cast<uint64_t>(st.st_blocks) * 512 > bounds_.max_file_bytes)
        return false;  // a sparse file costs what was written of it
      return unlink(dir_fd, name, 0);
    }
    if (st.st_dev != device_) return false;  // a mount: not ours to empty
    constexpr int kFlags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    int child = ::openat(dir_fd, name, kFlags);
    if (child < 0 && errno == EACCES && ::fchmodat(dir_fd, name, 0700, 0) == 0)
      child = ::openat(dir_fd, name, kFlags);
    if (child >= 0) (void)empty(child);
    return unlink(dir_fd, name, AT_REMOVEDIR);
  }

  /// Also from a folder that its owner may not write to, which stops everybody but root.
  static bool unlink(int dir_fd, const char* name, int flags) noexcept {
    if (::unlinkat(dir_fd, name, flags) == 0 || errno == ENOENT) return true;
    return errno == EACCES && ::fchmod(dir_fd, 0700) == 0 && ::unlinkat(dir_fd, name, flags) == 0;
  }

  dev_t device_;
  const RemoveBounds& bounds_;
};

}  // namespace

bool remove_tree(const std::string& path, const RemoveBounds& bounds) noexcept {
  const int dir = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (dir < 0) return errno == ENOENT || ::unlink(path.c_str()) == 0;
  struct stat st {};
  if (::fstat(dir, &st) != 0) {
    (void)::close(dir);
    return false;
  }
  const bool emptied = TreeRemover(st.st_dev, bounds).empty(dir);
  return (::rmdir(path.c_str()) == 0 || errno == ENOENT) && emptied;
}

uint64_t tree_bytes(const std::string& path) noexcept {
  static constexpr int kMaxEntries = 200'000;
  uint64_t bytes = 0;
  int entries = 0;
  std::error_code err;
  using std::filesystem::recursive_directory_iterator;
  for (recursive_directory_iterator it(path, std::filesystem::directory_options::skip_permission_denied, err),
       end;
       !err && it != end && ++entries < kMaxEntries; it.increment(err)) {
    struct stat st {};
    if (::lstat(it->path().c_str(), &st) == 0) bytes += static_cast<uint64_t>(st.st_blocks) * 512;
  }
  return bytes;
}

uint64_t available_memory() noexcept {
  try {
    const std::string text = read_file("/proc/meminfo");
    const size_t at = text.find("MemAvailable:");
    uint64_t kib = 0;
    if (at != std::string::npos) kib = std::stoull(text.substr(at + sizeof "MemAvailable:"));
    return kib * 1024;
  } catch (const std::exception&) {
    return 0;
  }
}

std::string random_hex(size_t bytes) {
  std::string raw(bytes, '\0');
  for (size_t done = 0; done < bytes;) {
    const ssize_t n = retry_eintr([&] { return ::getrandom(raw.data() + done, bytes - done, 0); });
    if (n < 0) throw sys_error(errno, "getrandom");
    done += static_cast<size_t>(n);
  }
  std::string out;
  for (const char c : raw) fmt::format_to(std::back_inserter(out), "{:02x}", static_cast<unsigned char>(c));
  return out;
}

}  // namespace hutch::sys
