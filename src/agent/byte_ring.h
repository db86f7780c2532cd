#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <string_view>

namespace hutch::agent {

/// Bytes that wait, in memory of the caller: whole pages that take no memory until they are touched.
template <size_t capacity>
class ByteRing {
 public:
  void open(char* memory) { *this = ByteRing(), memory_ = memory; }
  /// What was used of the memory goes back to the kernel.
  void close() {
    if (touched_) (void)madvise(memory_, capacity, MADV_DONTNEED);
    *this = ByteRing();
  }

  bool is_open() const { return memory_ != nullptr; }
  bool empty() const { return count_ == 0; }
  size_t room() const { return capacity - count_; }

  /// At most room().
  void add(std::string_view bytes) {
    touched_ = touched_ || !bytes.empty();
    for (size_t at = (first_ + count_) % capacity; !bytes.empty(); at = 0) {
      const size_t piece = bytes.copy(memory_ + at, capacity - at);
      bytes.remove_prefix(piece);
      count_ += piece;
    }
  }
  /// The oldest that lie side by side.
  std::string_view front() const { return {memory_ + first_, std::min(count_, capacity - first_)}; }
  void drop(size_t bytes) {
    first_ = (first_ + bytes) % capacity;
    count_ -= bytes;
  }
  void drop_all() { drop(count_); }
  size_t size() const { return count_; }

 private:
  char* memory_ = nullptr;
  size_t first_ = 0, count_ = 0;
  bool touched_ = false;
};

}  // namespace hutch::agent
