#pragma once

#include "base/unique_fd.h"

namespace hutch::rpc {

/// A flag that poll(2) can wait for. Once set it stays set.
class Wakeup {
 public:
  Wakeup();

  /// From any thread, and from a signal handler.
  void set() noexcept;
  bool is_set() const noexcept;
  int fd() const noexcept { return fd_.get(); }

 private:
  UniqueFd fd_;
};

}  // namespace hutch::rpc
