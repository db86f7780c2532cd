#pragma once

#include "agent/spare.h"

/// The process between the agent and a command: it adopts whatever the command leaves behind, and ends the
/// tree when asked. One a command, so that ending a command touches nothing else in the sandbox.
namespace hutch::agent {

/// One message over the control socket (SOCK_SEQPACKET, so messages keep their borders); after `failed`
/// the text of the step follows.
struct Report {
  enum class Kind : int32_t { started, failed, ended, gone };
  Kind kind{};
  int32_t value = 0;          // started: pid of the main process; failed: errno; ended: wait status
  uint32_t left_running = 0;  // ended: descendants that live on
  bool last = false;          // ended: nothing of the tree is left, and no `gone` follows
  uint64_t cpu_us = 0, max_rss_kib = 0;
  uint64_t at_ms = 0;  // ended: when; it is read later while there is no host
};
inline constexpr size_t kMaxReportText = 1024;

/// From the agent to the supervisor. The first is `start`: the request lies in the Handover; the descriptor
/// of a terminal comes with it.
struct Order {
  enum class Kind : int32_t { start, end_tree, signal };
  Kind kind{};
  uint32_t value = 0;  // end_tree: grace in ms; signal: its number
};

/// Descriptors of a supervisor that is being made.
struct SupervisorEnds {
  int in = -1, out = -1, err = -1;  // what the command gets as 0, 1 and 2
  int control = -1;
};

/// The body of a fresh fork of the agent: waits for the order to start a command, and ends when nothing of
/// that is left. What it is given lies outside of the memory that forks do not inherit.
[[noreturn]] void run_supervisor(const SupervisorEnds& ends, Handover& handover, const Inherited& inherited);

}  // namespace hutch::agent
