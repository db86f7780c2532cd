#include "sandbox/audit_log.h"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "base/log.h"
#include "base/sys.h"

namespace hutch::sandbox {

namespace {

constexpr off_t kMaxAuditBytes = 16 << 20;

std::string audit_line(const std::string& sandbox_id, const net::EgressEvent& event) {
  nlohmann::ordered_json line{{"time", fmt::format("{:%FT%TZ}", fmt::gmtime(std::time(nullptr)))},
                              {"sandbox_id", sandbox_id},
                              {"allowed", event.allowed},
                              {"protocol", event.protocol},
                              {"host", event.host},
                              {"port", event.port}};
  if (!event.address.empty()) line["address"] = event.address;
  if (!event.why.empty()) line["why"] = event.why;
  return line.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
}

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

void AuditLog::write(const std::string& sandbox_id, const net::EgressEvent& event) noexcept {
  const std::lock_guard lock(mutex_);
  try {
    rotate(home_ + "/audit.jsonl");
    sys::write_all(file_.get(), audit_line(sandbox_id, event) + "\n");
    warned_ = false;
  } catch (const std::exception& e) {
    if (!std::exchange(warned_, true)) log::warning("the audit log misses lines: {}", e.what());
  }
}

}  // namespace hutch::sandbox
