#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/unique_fd.h"

namespace hutch::agent {

/// Bytes in the logs of all commands together.
struct LogBudget {
  uint64_t used_bytes = 0;
};

/// What one command has printed: a log file up to its cap, and the last 64 KiB of what did not go there. The
/// file is made at the first byte, so that silent commands leave none.
class OutputStore {
 public:
  struct Limits {
    uint64_t log_bytes = 0;   // of this log
    uint64_t logs_bytes = 0;  // of all
  };

  /// `slot` picks the memory. False when the path is too long; an empty one means no log.
  bool open(size_t slot, std::string_view log_path, const Limits& limits, LogBudget& budget);
  /// A fault, such as a full disk, ends the logging and not the command.
  void append(std::string_view bytes);
  /// Copies what was printed from `first` on; moves `first` to where something is still stored.
  size_t read(uint64_t& first, char* to, size_t max_bytes) const;
  void close();

  uint64_t printed_bytes() const { return printed_bytes_; }
  uint64_t log_bytes() const { return log_bytes_; }

  /// Before the first fork: supervisors have no use for any of it.
  static void keep_from_forks();

 private:
  static constexpr size_t kPathBytes = 256;
  static constexpr size_t kTailBytes = 64 * 1024;
  using Tail = char[kTailBytes];

  static Tail* tails();
  void open_log();
  size_t log(std::string_view bytes);
  void keep_tail(std::string_view bytes);
  uint64_t tail_first() const;

  char path_[kPathBytes] = {};  // empty: no log, or no more of it
  Limits limits_;
  LogBudget* budget_ = nullptr;
  UniqueFd fd_;
  char* tail_ = nullptr;
  // The log has the first `log_bytes_`, the tail the last of what came afterwards.
  uint64_t log_bytes_ = 0, printed_bytes_ = 0;
};

}  // namespace hutch::agent
