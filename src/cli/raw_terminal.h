#pragma once

namespace hutch::cli {

/// A terminal in raw mode, in which every key is a byte and nothing else, for as long as this lives: one at a
/// time. It gets its former settings back however the process ends, short of SIGKILL.
class RawTerminal {
 public:
  explicit RawTerminal(int fd);
  ~RawTerminal();
  RawTerminal(const RawTerminal&) = delete;
  RawTerminal& operator=(const RawTerminal&) = delete;
};

}  // namespace hutch::cli
