#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "agent/byte_ring.h"
#include "base/unique_fd.h"
#include "wire/frame.h"

namespace hutch::agent {

/// Standard input of one command on its way from the host: a ring of kInputWindow bytes in front of a pipe
/// that may never be read. What leaves the ring is credit for the host.
class InputBuffer {
 public:
  /// `slot` picks the ring: one for every command the table can hold.
  void open(size_t slot);
  /// Until then everything waits in the ring.
  void connect(UniqueFd pipe);
  void close();

  /// Bytes past the window are dropped together with the pipe: the host broke the rule of credit.
  void add(std::string_view bytes);
  void end() { ended_ = true, pump(); }
  bool ended() const { return ended_; }
  /// Writes what the pipe takes.
  void pump();

  /// Credit to send now, in pieces that are worth a frame; 0 = none yet.
  uint32_t take_credit();
  /// For a new host, which starts at nothing: everything that fits.
  void restart_credit();

 private:
  void consume(size_t bytes);

  UniqueFd pipe_;
  ByteRing<wire::kInputWindow> ring_;  // not open: the command has no input
  uint32_t credit_ = 0;
  bool connected_ = false, ended_ = false;
};

}  // namespace hutch::agent
