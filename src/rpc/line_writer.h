#pragma once

#include <atomic>
#include <mutex>
#include <string_view>

#include "rpc/message.h"
#include "rpc/wakeup.h"

namespace hutch::rpc {

/// The one writer of the protocol stream. Thread-safe; messages are serialised outside the lock and never
/// mixed.
///
/// There is no queue: while the peer does not read, send() waits, and with it whoever produces
/// answers, so memory stays bounded and no answer is lost; notifications are dropped.
class LineWriter {
 public:
  enum class Outcome { sent, dropped, peer_gone, abandoned };

  /// `fd` stays the caller's. SIGPIPE must be ignored by the process.
  explicit LineWriter(int fd) : fd_(fd) {}

  /// For answers: returns when all of it is written, the peer is gone, or abandon() was called.
  Outcome send(const ordered_json& message);
  /// For what may be lost: dropped when it cannot be written at once.
  Outcome try_send(const ordered_json& message);
  /// From now on nothing waits for the peer: what finds no room is lost, and everything after it. From any
  /// thread, and from a signal handler.
  void abandon() noexcept { abandoned_.set(); }
  bool peer_gone() const noexcept { return peer_gone_; }

 private:
  Outcome write_line(std::string_view line);
  /// Waits for room; never writes more than the room there is, so no write(2) blocks.
  Outcome write_some(std::string_view& rest);

  int fd_;
  Wakeup abandoned_;
  std::mutex mutex_;
  std::atomic<bool> peer_gone_ = false;
  bool cut_ = false;  // a line was left half-written: nothing may follow it
};

}  // namespace hutch::rpc
