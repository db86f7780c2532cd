#include "sandbox/ledger.h"

#include <fmt/format.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <span>

#include "base/sys.h"

namespace hutch::sandbox {

struct Ledger::Line {
  char sandbox_id[24];
  char server_id[20];
  uint8_t warm;
  uint8_t used;  // last written when it is taken, first when it is given back
  uint8_t reserved[2];
  uint64_t memory_bytes, disk_bytes;
};

namespace {

constexpr size_t kLineBytes = 64;

template <size_t N>
void set_text(char (&field)[N], std::string_view text) {
  std::memset(field, 0, N);
  std::memcpy(field, text.data(), std::min(text.size(), N - 1));
}

template <size_t N>
std::string_view field_text(const char (&field)[N]) {
  return {field, ::strnlen(field, N)};
}

/// Other processes read what is written, in this order.
void set_used(uint8_t& used, bool value) {
  std::atomic_ref(used).store(value ? 1 : 0, std::memory_order_release);
}

std::string words(uint64_t bytes) {
  return bytes >> 30 != 0 ? fmt::format("{:.1f}g", static_cast<double>(bytes) / (1 << 30))
                          : fmt::format("{}m", bytes >> 20);
}

Error over_sandboxes(const Totals& now, int64_t most) {
  return Error(Errc::limit_exceeded,
               fmt::format(
                   "there are {} sandboxes on this data folder, {} of them warm: no more than {} may be "
                   "(limits.max_sandboxes)",
                   now.sandboxes, now.warm, most))
      .hint("end one with sandbox_destroy, or raise limits.max_sandboxes in the configuration");
}

Error over_bytes(const char* what, const char* setting, uint64_t wanted, uint64_t in_use, uint64_t most) {
  return Error(Errc::limit_exceeded,
               fmt::format("{} of {} cannot be promised: all sandboxes together may have {} ({}), {} is free",
                           what, words(wanted), words(most), setting, words(most - std::min(most, in_use))))
      .hint(
          fmt::format("ask for less {}, end a sandbox with sandbox_destroy, or raise {} in the configuration",
                      what, setting));
}

}  // namespace

/// Holds the lock of all threads and all servers.
class Ledger::Locked {
 public:
  explicit Locked(const Ledger& ledger) : in_process_(ledger.mutex_), fd_(ledger.file_.get()) {
    (void)sys::retry_eintr([&] { return ::flock(fd_, LOCK_EX); });
  }
  ~Locked() { ::flock(fd_, LOCK_UN); }
  Locked(const Locked&) = delete;
  Locked& operator=(const Locked&) = delete;

 private:
  const std::lock_guard<std::mutex> in_process_;
  int fd_;
};

Ledger::~Ledger() {
  if (lines_ != nullptr) ::munmap(lines_, kMaxLines * kLineBytes);
}

void Ledger::open(const std::string& data_folder) {
  static_assert(sizeof(Line) == kLineBytes);
  if (is_open()) return;
  // The number is that of the lines' layout: servers of different versions must not read each other's.
  const std::string path = data_folder + "/ledger.1";
  file_ = sys::open(path, O_RDWR | O_CREAT, 0600);
  if (::ftruncate(file_.get(), kMaxLines * kLineBytes) != 0) throw sys_error(errno, "ftruncate", path);
  // Written out now, so that a full disk is an error here and not a signal at a write through the mapping.
  if (const int err = ::posix_fallocate(file_.get(), 0, kMaxLines * kLineBytes); err != 0)
    throw sys_error(err, "fallocate", path);
  void* memory = ::mmap(nullptr, kMaxLines * kLineBytes, PROT_READ | PROT_WRITE, MAP_SHARED, file_.get(), 0);
  if (memory == MAP_FAILED) throw sys_error(errno, "mmap", path);
  lines_ = static_cast<Line*>(memory);
}

Ledger::Line* Ledger::find(std::string_view sandbox_id) const {
  const std::span all(lines_, kMaxLines);
  const auto it = std::ranges::find_if(
      all, [&](const Line& line) { return line.used != 0 && field_text(line.sandbox_id) == sandbox_id; });
  return it == all.end() ? nullptr : &*it;
}

Totals Ledger::sum() const {
  Totals sum;
  for (const Line& line : std::span(lines_, kMaxLines)) {
    if (line.used == 0) continue;
    ++sum.sandboxes;
    sum.warm += line.warm;
    sum.memory_bytes += line.memory_bytes;
    sum.disk_bytes += line.disk_bytes;
  }
  return sum;
}

Totals Ledger::totals() const {
  const Locked lock(*this);
  return sum();
}

void Ledger::charge(std::string_view server_id, std::string_view sandbox_id, const Charge& charge,
                    const HostTotals& host) {
  const Locked lock(*this);
  const Totals now = sum();
  Line* line = find(sandbox_id);
  const Charge had =
      line != nullptr ? Charge{line->memory_bytes, line->disk_bytes, line->warm != 0} : Charge{};
  if (line == nullptr && now.sandboxes >= std::min(host.sandboxes, kMaxLines))
    throw over_sandboxes(now, std::min(host.sandboxes, kMaxLines));
  const uint64_t memory = now.memory_bytes - had.memory_bytes, disk = now.disk_bytes - had.disk_bytes;
  if (charge.memory_bytes > had.memory_bytes && memory + charge.memory_bytes > host.memory_bytes)
    throw over_bytes("memory", "limits.memory_overcommit", charge.memory_bytes, memory, host.memory_bytes);
  if (charge.disk_bytes > had.disk_bytes && disk + charge.disk_bytes > host.disk_bytes)
    throw over_bytes("disk", "limits.disk_overcommit", charge.disk_bytes, disk, host.disk_bytes);
  if (line == nullptr) {
    const std::span all(lines_, kMaxLines);
    line = &*std::ranges::find_if(all, [](const Line& l) { return l.used == 0; });
    set_text(line->sandbox_id, sandbox_id);
  }
  set_text(line->server_id, server_id);
  line->memory_bytes = charge.memory_bytes;
  line->disk_bytes = charge.disk_bytes;
  line->warm = charge.warm ? 1 : 0;
  set_used(line->used, true);
}

void Ledger::release(std::string_view sandbox_id) noexcept {
  if (!is_open()) return;
  const Locked lock(*this);
  if (Line* line = find(sandbox_id)) set_used(line->used, false);
}

void Ledger::release_of(const std::function<bool(const std::string& server_id)>& gone) {
  const Locked lock(*this);
  for (Line& line : std::span(lines_, kMaxLines))
    if (line.used != 0 && gone(std::string(field_text(line.server_id)))) set_used(line.used, false);
}

}  // namespace hutch::sandbox
