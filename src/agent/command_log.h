#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/unique_fd.h"

namespace hutch::agent {

/// The log file of one command: made at the first byte, so that silent commands leave no file.
class CommandLog {
 public:
  /// False when the path is too long.
  bool set(std::string_view path, uint64_t max_bytes);
  /// A fault, such as a full disk, ends the logging and not the command.
  void append(std::string_view bytes);
  uint64_t bytes() const { return bytes_; }
  void close();

 private:
  static constexpr size_t kPathBytes = 256;

  void open();

  char path_[kPathBytes] = {};  // empty: no log, or no more
  uint64_t max_bytes_ = 0, bytes_ = 0;
  UniqueFd fd_;
};

}  // namespace hutch::agent
