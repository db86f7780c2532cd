#include "agent/file_list.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <cstring>

#include "agent/file_path.h"
#include "agent/sys.h"

namespace hutch::agent {
namespace {

constexpr size_t kLongestPath = 16 * 1024;  // so that a record always fits into one frame
constexpr uint32_t kDeepest = 512;          // a descriptor and a stack frame for each level

[[noreturn]] void stop(int error, std::string_view step) {
  char message[sizeof(char) + sizeof error + 512];
  message[0] = static_cast<char>(error == 0 ? ListTag::done : ListTag::failed);
  std::memcpy(message + 1, &error, sizeof error);
  const size_t text = step.copy(message + 1 + sizeof error, 512);
  (void)send(kControlFd, message, error == 0 ? 1 : 1 + sizeof error + text, MSG_NOSIGNAL);
  _exit(0);
}

/// Grows by doubling; the end of the worker frees everything that is still there.
template <class T>
class Buffer {
 public:
  ~Buffer() { free(data_); }
  T* add(size_t count) {
    if (size_ + count > capacity_) {
      capacity_ = std::max(2 * capacity_, size_ + count + 64);
      data_ = static_cast<T*>(realloc(data_, capacity_ * sizeof(T)));
      if (data_ == nullptr) stop(ENOMEM, "list");
    }
    size_ += count;
    return data_ + size_ - count;
  }
  T* data() { return data_; }
  size_t size() const { return size_; }

 private:
  T* data_ = nullptr;
  size_t size_ = 0, capacity_ = 0;
};

/// The names of one folder, sorted by their bytes.
class Names {
 public:
  bool read(int folder) {
    alignas(dirent64) char block[8192];
    for (;;) {
      const ssize_t size = getdents64(folder, block, sizeof block);
      if (size <= 0) return sort(), size == 0;
      for (ssize_t at = 0; at < size;) {
        const auto* entry = reinterpret_cast<const dirent64*>(block + at);
        at += entry->d_reclen;
        add(entry->d_name);
      }
    }
  }
  size_t size() const { return starts_.size(); }
  const char* at(size_t index) { return text_.data() + starts_.data()[index]; }

 private:
  void add(const char* name) {
    if (std::strcmp(name, ".") == 0 || std::strcmp(name, "..") == 0) return;
    *starts_.add(1) = text_.size();
    const size_t bytes = std::strlen(name) + 1;
    std::memcpy(text_.add(bytes), name, bytes);
  }
  void sort() {
    const char* text = text_.data();
    std::sort(starts_.data(), starts_.data() + starts_.size(),
              [text](size_t a, size_t b) { return std::strcmp(text + a, text + b) < 0; });
  }

  Buffer<char> text_;
  Buffer<size_t> starts_;
};

class Walk {
 public:
  void folder(int fd, uint32_t depth, size_t path_bytes);
  void flush();

 private:
  void entry(int folder, const char* name, uint32_t depth, size_t path_bytes);
  bool put(const wire::Entry& record);

  char path_[kLongestPath];
  char target_[PATH_MAX];  // not on the stack of each level
  char message_[1 + wire::kDataChunk];
  size_t used_ = 1;  // behind the tag
};

void Walk::folder(int fd, uint32_t depth, size_t path_bytes) {
  Names names;
  names.read(fd);  // a folder that vanishes half-way gives what was read
  for (size_t i = 0; i < names.size(); ++i) entry(fd, names.at(i), depth, path_bytes);
}

void Walk::entry(int folder, const char* name, uint32_t depth, size_t path_bytes) {
  const size_t name_bytes = std::strlen(name);
  struct stat status;
  if (path_bytes + name_bytes + 1 > sizeof path_) return;
  if (fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) != 0) return;  // gone meanwhile
  std::memcpy(path_ + path_bytes, name, name_bytes);
  const size_t size = path_bytes + name_bytes;

  wire::Entry record;
  record.path = {path_, size};
  record.mode = status.st_mode;
  record.size = static_cast<uint64_t>(status.st_size);
  record.mtime_s = status.st_mtim.tv_sec;
  if (S_ISLNK(status.st_mode)) {
    const ssize_t bytes = readlinkat(folder, name, target_, sizeof target_);
    if (bytes > 0) record.target = {target_, static_cast<size_t>(bytes)};
  }
  if (!put(record)) {
    flush();
    put(record);
  }
  if (!S_ISDIR(status.st_mode) || depth <= 1) return;
  UniqueFd below(openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!below) return;  // unreadable ones stay listed, without content
  path_[size] = '/';
  this->folder(below.get(), depth - 1, size + 1);
}

bool Walk::put(const wire::Entry& record) {
  wire::FixedEncoder encoder(message_ + used_, sizeof message_ - used_);
  const_cast<wire::Entry&>(record).fields(encoder);
  if (!encoder.ok()) return false;
  used_ += encoder.size();
  return true;
}

void Walk::flush() {
  if (used_ == 1) return;
  message_[0] = static_cast<char>(ListTag::data);
  if (retry_eintr([&] { return send(kControlFd, message_, used_, MSG_NOSIGNAL); }) < 0) _exit(0);
  used_ = 1;
}

}  // namespace

void run_list_worker(const wire::ListFiles& request) {
  static Walk walk;
  const UniqueFd folder(open_beneath(request.path, O_RDONLY | O_DIRECTORY));
  if (!folder) stop(errno, request.path);
  if (request.depth > 0) walk.folder(folder.get(), std::min(request.depth, kDeepest), 0);
  walk.flush();
  stop(0, {});
}

}  // namespace hutch::agent
