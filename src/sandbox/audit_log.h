#pragma once

#include <mutex>
#include <string>

#include "base/unique_fd.h"
#include "net/egress.h"

namespace hutch::sandbox {

/// What sandboxes asked of the outside, who was kept out of them, and what came of it, one JSON object a
/// line, in `<home>/audit.jsonl`, mode 0600. Shared by all servers: each line is one append. At 16 MiB it
/// becomes `audit.1.jsonl`. Thread-safe.
class AuditLog {
 public:
  explicit AuditLog(std::string home);
  /// A disk that is full costs the line, with a warning, and nothing else.
  void write(const std::string& sandbox_id, const net::EgressEvent& event) noexcept;

 private:
  void rotate(const std::string& path);

  const std::string home_;
  std::mutex mutex_;
  UniqueFd file_;
  bool warned_ = false;
};

}  // namespace hutch::sandbox
