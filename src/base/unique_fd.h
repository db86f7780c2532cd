#pragma once

#include <unistd.h>

#include <utility>

namespace hutch {

/// Owns one file descriptor. -1 means empty. Never copied, never dup'ed implicitly.
class [[nodiscard]] UniqueFd {
 public:
  UniqueFd() noexcept = default;
  explicit UniqueFd(int fd) noexcept : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(other.release()) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) reset(other.release());
    return *this;
  }
  ~UniqueFd() { reset(); }

  int get() const noexcept { return fd_; }
  explicit operator bool() const noexcept { return fd_ >= 0; }
  [[nodiscard]] int release() noexcept { return std::exchange(fd_, -1); }

  void reset(int fd = -1) noexcept {
    // Not retried on EINTR: on Linux the number is already free, and a second close() could hit a
    // descriptor that another thread has just opened.
    if (const int old = std::exchange(fd_, fd); old >= 0) (void)::close(old);
  }

 private:
  int fd_ = -1;
};

}  // namespace hutch
