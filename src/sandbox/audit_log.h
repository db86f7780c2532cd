#pragma once

#include <mutex>
#include <string>

#include "base/unique_fd.h"

namespace hutch::sandbox {

/// What sandboxes asked of the outside and what came of it, one JSON object a line, in `<home>/audit.jsonl`,
/// mode 0600. Shared by all servers: each line is one append. At 16 MiB it becomes `audit.1.jsonl`.
/// Thread-safe.
class AuditLog {
 public:
  explicit AuditLog(std::string home);
  /// One line, without its end. A disk that is full costs the line, with a warning, and nothing else.
  void write(const std::string& line) noexcept;

 private:
  void rotate(const std::string& path);

  const std::string home_;
  std::mutex mutex_;
  UniqueFd file_;
  bool warned_ = false;
};

}  // namespace hutch::sandbox
