#pragma once

#include <sys/types.h>

#include <atomic>

#include "agent/event_loop.h"
#include "agent/spawn.h"
#include "base/unique_fd.h"
#include "wire/frame.h"

/// The supervisor of the next command, forked before that is known: starting a command is then one message.
namespace hutch::agent {

/// Memory that PID 1 and one supervisor share. A message over the socket would have a limit and could block.
struct Handover {
  std::atomic<bool> taken;  // set by the supervisor before it starts the command: from then on never again
  uint32_t request_bytes;
  User user;
  char request[wire::kMaxPayload];  // a wire::Exec
};

/// Owns a mapping of a Handover that later forks do not inherit; untouched pages cost nothing.
class HandoverMemory {
 public:
  HandoverMemory() = default;
  HandoverMemory(HandoverMemory&& other) noexcept : memory_(std::exchange(other.memory_, nullptr)) {}
  HandoverMemory& operator=(HandoverMemory&& other) noexcept;
  ~HandoverMemory() { reset(); }

  bool map();
  /// After the one fork that shall inherit it.
  void keep_from_forks() const;
  void reset();

  Handover* operator->() const { return memory_; }
  Handover* get() const { return memory_; }

 private:
  Handover* memory_ = nullptr;
};

/// PID 1's side of a supervisor. It is made with all that a command can need; the rest is closed then.
struct Spare {
  pid_t pid = -1;
  size_t index = 0;  // the command's place, as the poller tells it
  UniqueFd control, in, out, err;
  HandoverMemory handover;

  /// nullptr, or with errno the step that failed.
  const char* make(size_t command_index, const Poller& poller, const Inherited& inherited);
};

}  // namespace hutch::agent
