#include "agent/command_table.h"

#include <sys/wait.h>

#include <algorithm>

namespace hutch::agent {

void CommandTable::start(const wire::Exec& request, uint32_t stream, Services& services) {
  Command* slot = commands_.find_free();
  if (slot == nullptr) return services.channel.send_failed(stream, EAGAIN, "512 commands at once");
  slot->start(request, stream, commands_.index(*slot), services);
}

Command* CommandTable::find(uint32_t stream) {
  for (Command& command : commands_) {
    if (command.live() && command.stream() == stream) return &command;
  }
  return nullptr;
}

bool CommandTable::has_supervisor(pid_t pid) const {
  return std::any_of(commands_.begin(), commands_.end(),
                     [pid](const Command& command) { return command.supervisor() == pid; });
}

bool CommandTable::on_reaped(pid_t pid, int status, Services& services) {
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

void CommandTable::end_overdue(uint64_t now_ms) {
  for (Command& command : commands_) {
    if (command.deadline_ms() != 0 && command.deadline_ms() <= now_ms) command.on_deadline();
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
