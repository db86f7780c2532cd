#pragma once

#include <chrono>
#include <string>
#include <string_view>

namespace hutch::rpc {

/// Splits what comes from a descriptor into lines. Bounded: a line beyond `max_bytes` is thrown away while it
/// is read and reported once. Not thread-safe.
class LineReader {
 public:
  using Clock = std::chrono::steady_clock;
  enum class Event { line, too_long, eof, stopped, timeout };

  /// Both descriptors stay the caller's. The reader ends with `stopped` once `stop_fd` is readable.
  LineReader(int fd, int stop_fd, size_t max_bytes) : fd_(fd), stop_fd_(stop_fd), max_bytes_(max_bytes) {}

  /// Blocks for the next line that is not empty, without its "\n" or "\r\n"; a last line without an end
  /// counts too. `line` is valid until the next call. `timeout` when nothing came until the deadline. Throws
  /// Error when reading fails.
  Event next(std::string_view& line, Clock::time_point deadline = Clock::time_point::max());

 private:
  enum class Input { data, eof, stopped, timeout };

  Input fill(Clock::time_point deadline);
  bool take_line(std::string_view& line);
  /// Forgets the lines that were handed out, and gives back the memory of a huge one.
  void compact();

  int fd_;
  int stop_fd_;
  size_t max_bytes_;
  std::string buffer_;
  size_t start_ = 0;    // of the line that is being collected
  size_t scanned_ = 0;  // no newline between start_ and here
  bool discarding_ = false;
  bool at_eof_ = false;
};

}  // namespace hutch::rpc
