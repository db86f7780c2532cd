#pragma once

#include <cstddef>
#include <new>

namespace hutch::agent {

/// Places for T that come into being when they are first used: those that never were cost neither memory nor
/// time. A place stays; whether it is taken is known to its T::free().
template <class T, size_t capacity>
class Slots {
 public:
  T* begin() { return at(0); }
  T* end() { return at(made_); }
  const T* begin() const { return const_cast<Slots*>(this)->begin(); }
  const T* end() const { return const_cast<Slots*>(this)->end(); }

  T& operator[](size_t index) { return *at(index); }
  size_t index(const T& slot) const { return static_cast<size_t>(&slot - begin()); }

  /// nullptr when all are taken.
  T* find_free() {
    for (T& slot : *this) {
      if (slot.free()) return &slot;
    }
    return made_ < capacity ? new (at(made_++)) T() : nullptr;
  }

 private:
  T* at(size_t index) { return std::launder(reinterpret_cast<T*>(bytes_) + index); }

  size_t made_ = 0;
  alignas(T) std::byte bytes_[capacity * sizeof(T)];
};

}  // namespace hutch::agent
