#pragma once

#include "agent/command.h"
#include "agent/slots.h"

namespace hutch::agent {

/// The slots of all commands, and the supervisor of the next one.
class CommandTable {
 public:
  /// Makes a spare if one is due. To be called when nothing else waits.
  void keep_spare(Services& services);
  void want_spare();
  /// When keep_spare() has to be called; 0 = there is one, or no process for it.
  uint64_t spare_due_at_ms() const { return spare_due_at_ms_; }

  void start(const wire::Exec& request, uint32_t stream, Services& services);
  /// nullptr when the host speaks of a stream that is no command, or no more.
  Command* find(uint32_t stream);
  Command& at(size_t index) { return commands_[index]; }

  bool has_supervisor(pid_t pid) const;
  /// A child of PID 1 ended. False when it was no supervisor.
  bool on_reaped(pid_t pid, int status, Services& services);
  /// The same for one that nobody knows: it may be the main process of a killed supervisor.
  void on_stray_reaped(pid_t pid, int status);
  void on_strays_gone(Services& services);

  uint32_t count() const;
  void reattach(Services& services);

  /// Kills supervisors that did not end their tree in time.
  void end_overdue(uint64_t now_ms, Services& services);
  /// When end_overdue() has to be called; 0 = never.
  uint64_t deadline_ms() const;

 private:
  const char* make_spare(Services& services);

  Slots<Command, kMaxCommands> commands_;
  Spare spare_;
  uint64_t spare_due_at_ms_ = 0;
};

}  // namespace hutch::agent
