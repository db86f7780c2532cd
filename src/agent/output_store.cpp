#include "agent/output_store.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>

#include "agent/event_loop.h"
#include "agent/sys.h"

namespace hutch::agent {
namespace {

// The folder is one that commands can write to: no link of theirs may lead the log anywhere else.
constexpr uint64_t kResolve = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS;

/// `path` is changed while it works and is itself again afterwards.
void make_parents(char* path) {
  UniqueFd folder(openat2(kRootFd, "/", O_PATH | O_DIRECTORY | O_CLOEXEC, 0, kResolve));
  char* name = path + std::strspn(path, "/");
  for (char* slash; folder && (slash = std::strchr(name, '/')) != nullptr; name = slash + 1) {
    *slash = '\0';
    if (*name != '\0') {
      (void)mkdirat(folder.get(), name, 0755);  // EEXIST is the usual case
      folder.reset(openat2(folder.get(), name, O_PATH | O_DIRECTORY | O_CLOEXEC, 0, kResolve));
    }
    *slash = '/';
  }
}

}  // namespace

/// Untouched pages take no memory, and used ones are given back in close().
OutputStore::Tail* OutputStore::tails() {
  alignas(4096) static Tail all[kMaxCommands];
  return all;
}

void OutputStore::keep_from_forks() {
  (void)madvise(tails(), kMaxCommands * sizeof(Tail), MADV_DONTFORK);
}

bool OutputStore::open(size_t slot, std::string_view log_path, const Limits& limits, LogBudget& budget) {
  if (log_path.size() >= kPathBytes || log_path.find('\0') != std::string_view::npos) return false;
  limits_ = limits;
  budget_ = &budget;
  tail_ = tails()[slot];
  *std::copy(log_path.begin(), log_path.end(), path_) = '\0';
  return true;
}

void OutputStore::open_log() {
  // For reading too: what it holds is then found whatever becomes of the name.
  constexpr uint64_t kFlags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_APPEND | O_CLOEXEC;
  make_parents(path_);
  fd_.reset(openat2(kRootFd, path_, kFlags, 0644, kResolve));
}

/// How much of it went to the log. Once that is not all, nothing goes there any more.
size_t OutputStore::log(std::string_view bytes) {
  if (*path_ == '\0') return 0;
  if (!fd_) open_log();
  const uint64_t room = std::min(limits_.log_bytes - std::min(log_bytes_, limits_.log_bytes),
                                 limits_.logs_bytes - std::min(budget_->used_bytes, limits_.logs_bytes));
  size_t written = 0;
  while (fd_ && written < std::min<uint64_t>(bytes.size(), room)) {
    const size_t left = std::min<uint64_t>(bytes.size(), room) - written;
    const ssize_t count = retry_eintr([&] { return write(fd_.get(), bytes.data() + written, left); });
    if (count <= 0) break;
    written += static_cast<size_t>(count);
  }
  log_bytes_ += written;
  budget_->used_bytes += written;
  if (written < bytes.size()) *path_ = '\0';
  return written;
}

void OutputStore::append(std::string_view bytes) {
  if (bytes.empty()) return;
  const size_t logged = log(bytes);
  printed_bytes_ += logged;
  keep_tail(bytes.substr(logged));
}

/// A ring: the byte at position p of the output lies at p modulo its size.
void OutputStore::keep_tail(std::string_view bytes) {
  if (bytes.size() > kTailBytes) {
    printed_bytes_ += bytes.size() - kTailBytes;
    bytes.remove_prefix(bytes.size() - kTailBytes);
  }
  while (!bytes.empty()) {
    const size_t at = printed_bytes_ % kTailBytes;
    const size_t piece = bytes.copy(tail_ + at, kTailBytes - at);
    bytes.remove_prefix(piece);
    printed_bytes_ += piece;
  }
}

uint64_t OutputStore::tail_first() const {
  return printed_bytes_ - log_bytes_ > kTailBytes ? printed_bytes_ - kTailBytes : log_bytes_;
}

size_t OutputStore::read(uint64_t& first, char* to, size_t max_bytes) const {
  if (first < log_bytes_ && fd_) {
    const size_t wanted = std::min<uint64_t>(max_bytes, log_bytes_ - first);
    const ssize_t count =
        retry_eintr([&] { return pread(fd_.get(), to, wanted, static_cast<off_t>(first)); });
    if (count > 0) return static_cast<size_t>(count);
  }
  // Past the log, or it was cut short from inside: it is theirs.
  first = std::clamp(first, tail_first(), printed_bytes_);
  const size_t at = first % kTailBytes;
  const size_t wanted = std::min<uint64_t>({max_bytes, printed_bytes_ - first, kTailBytes - at});
  if (wanted > 0) std::memcpy(to, tail_ + at, wanted);
  return wanted;
}

void OutputStore::close() {
  if (budget_ != nullptr) budget_->used_bytes -= std::min(budget_->used_bytes, log_bytes_);
  if (tail_ != nullptr && printed_bytes_ > log_bytes_) (void)madvise(tail_, kTailBytes, MADV_DONTNEED);
  *this = OutputStore();
}

}  // namespace hutch::agent
