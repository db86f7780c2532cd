#pragma once

#include "base/unique_fd.h"
#include "wire/messages.h"

/// Pseudo-terminals of the sandbox's own devpts, opened without a path that a command could have changed.
namespace hutch::agent {

struct Terminal {
  UniqueFd ours;    // does not block
  UniqueFd theirs;  // what the command gets as 0, 1 and 2

  /// nullptr, or with errno the step that failed.
  const char* open(const wire::WindowSize& size);
};

void resize_terminal(int ours, const wire::WindowSize& size);
/// To what runs in the foreground. False for a signal that no key stands for, or when there is nothing.
bool signal_foreground(int ours, int number);

}  // namespace hutch::agent
