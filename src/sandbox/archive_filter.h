#pragma once

#include <string>

#include "base/process.h"

namespace hutch::sandbox {

/// A program between us and a compressed file: zstd or gzip. One that is not needed does nothing.
class ArchiveFilter {
 public:
  /// Compresses to `file` when the name asks for it.
  static ArchiveFilter compress(const std::string& name, int file);
  /// Decompresses what begins as a compressed file does. What is no file is read as it is.
  static ArchiveFilter decompress(int file);

  /// What is written or read instead of the file.
  int stream() const noexcept { return pipe_ ? pipe_.get() : file_; }
  /// Throws when the program has failed. Its stream is over before.
  void finish();

 private:
  ArchiveFilter(const std::string& program, bool pack, int file);
  int file_;
  std::string program_;
  UniqueFd pipe_, said_;
  hutch::Process process_;
};

}  // namespace hutch::sandbox
