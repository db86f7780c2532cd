#include "agent/command_table.h"

#include <sys/wait.h>

#include <algorithm>

#include "agent/sys.h"

namespace hutch::agent {

const char* CommandTable::make_spare(Services& services) {
  spare_due_at_ms_ = 0;
  if (spare_.pid > 0) return nullptr;
  errno = EAGAIN;
  const Command* slot = commands_.find_free();
  if (slot == nullptr) return "512 commands at once";
  Spare spare;
  const char* failed = spare.make(commands_.index(*slot), services.poller, services.inherited);
  if (failed == nullptr) spare_ = std::move(spare);
  return failed;
}

void CommandTable::keep_spare(Services& services) {
  if (spare_due_at_ms_ == 0) return;
  const auto live = [](const Command& command) { return command.live(); };
  const bool busy = std::any_of(commands_.begin(), commands_.end(), live);
  if (!busy || now_ms() >= spare_due_at_ms_) (void)make_spare(services);  // if not, the next start() tries
}

void CommandTable::start(const wire::Exec& request, uint32_t stream, Services& services) {
  if (const char* failed = make_spare(services); failed != nullptr) {
    return services.channel.send_failed(stream, errno, failed);
  }
  commands_[spare_.index].start(request, stream, spare_, services);
  want_spare();
}

void CommandTable::want_spare() {
  // Before that only when nothing runs: it would take a processor from a command that has just begun, and a
  // process from its limit.
  constexpr uint64_t kPauseMs = 20;
  if (spare_.pid < 0 && spare_due_at_ms_ == 0) spare_due_at_ms_ = now_ms() + kPauseMs;
}

Command* CommandTable::find(uint32_t stream) {
  for (Command& command : commands_) {
    if (command.live() && command.stream() == stream) return &command;
  }
  return nullptr;
}

bool CommandTable::has_supervisor(pid_t pid) const {
  return pid == spare_.pid || std::any_of(commands_.begin(), commands_.end(), [pid](const Command& command) {
           return command.supervisor() == pid;
         });
}

bool CommandTable::on_reaped(pid_t pid, int status, Services& services) {
  const bool was_spare = pid == spare_.pid;
  if (was_spare) spare_ = Spare();
  want_spare();  // there is one process less, so that one may be made that could not before
  if (was_spare) return true;
  for (Command& command : commands_) {
    if (command.supervisor() != pid) continue;
    command.on_supervisor_gone(WIFSIGNALED(status), services);
    return true;
  }
  return false;
}

void CommandTable::on_stray_reaped(pid_t pid, int status) {
  for (Command& command : commands_) {
    if (command.live() && command.main() == pid && command.supervisor() < 0) command.on_main_reaped(status);
  }
}

void CommandTable::on_strays_gone(Services& services) {
  for (Command& command : commands_) command.on_strays_gone(services);
}

uint32_t CommandTable::count() const {
  return static_cast<uint32_t>(std::count_if(commands_.begin(), commands_.end(),
                                             [](const Command& command) { return command.live(); }));
}

void CommandTable::reattach(Services& services) {
  for (Command& command : commands_) command.reattach(services);
}

void CommandTable::end_overdue(uint64_t now_ms, Services& services) {
  for (Command& command : commands_) {
    if (command.deadline_ms() != 0 && command.deadline_ms() <= now_ms) command.on_deadline(services);
  }
}

uint64_t CommandTable::deadline_ms() const {
  uint64_t first = 0;
  for (const Command& command : commands_) {
    const uint64_t own = command.deadline_ms();
    if (own != 0 && (first == 0 || own < first)) first = own;
  }
  return first;
}

}  // namespace hutch::agent
