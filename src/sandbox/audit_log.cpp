#include "sandbox/audit_log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/sys.h"

namespace hutch::sandbox {

namespace {

constexpr off_t kMaxAuditBytes = 16 << 20;

}  // namespace

AuditLog::AuditLog(std::string home) : home_(std::move(home)) {}

/// With mutex_ held. Also when another server has done it.
void AuditLog::rotate(const std::string& path) {
  struct stat mine {
  }, named{};
  const bool same = file_ && ::fstat(file_.get(), &mine) == 0 && ::stat(path.c_str(), &named) == 0 &&
                    mine.st_ino == named.st_ino && mine.st_dev == named.st_dev;
  if (same && mine.st_size < kMaxAuditBytes) return;
  if (same) (void)::rename(path.c_str(), (home_ + "/audit.1.jsonl").c_str());
  file_ = sys::open(path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW, 0600);
}

void AuditLog::write(const std::string& line) noexcept {
  const std::lock_guard lock(mutex_);
  try {
    rotate(home_ + "/audit.jsonl");
    sys::write_all(file_.get(), line + "\n");
    warned_ = false;
  } catch (const std::exception& e) {
    if (!std::exchange(warned_, true)) log::warning("the audit log misses lines: {}", e.what());
  }
}

}  // namespace hutch::sandbox
