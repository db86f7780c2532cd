#pragma once

#include <cstdint>
#include <string_view>

#include "agent/byte_ring.h"
#include "agent/command.h"

namespace hutch::agent {

/// A TCP connection in the sandbox as one stream: what the host sends goes to the socket through a ring of
/// kConnectionWindow bytes, what the socket has is sent as far as the host has given credit. Either direction
/// ends by itself.
class Connection {
 public:
  bool free() const { return stream_ == 0; }
  uint32_t stream() const { return stream_; }

  /// Answered by `ready`, or by `failed`: then the slot is free again.
  void connect(const wire::Connect& request, uint32_t stream, size_t index, Services& services);
  /// One that came to `listener`; the host is told by `accepted`.
  void accept(UniqueFd fd, uint32_t stream, uint32_t listener, size_t index, Services& services);

  void on_frame(const Frame& frame, Services& services);
  void on_event(uint32_t events, Services& services);
  /// At most one chunk.
  void take_turn(Services& services);
  /// Resets the connection without a word to the host.
  void drop();

 private:
  const char* open_next(Services& services);
  bool watch(Services& services);
  void on_connected(Services& services);
  void add_input(std::string_view bytes, Services& services);
  bool make_room(size_t bytes);
  void pump(Services& services);
  bool send_piece(Services& services);
  void fail(int error, const char* step, Services& services);
  void finish();
  void queue(Services& services) const;

  uint32_t stream_ = 0;  // 0: the slot is free
  size_t index_ = 0;
  UniqueFd fd_;
  uint16_t port_ = 0;
  int family_ = 0;  // that was tried last
  bool connected_ = false, tell_ready_ = false;
  int error_ = 0;  // it broke, at `step_`
  const char* step_ = "";

  uint32_t listener_ = 0;    // of which the host still has to be told; 0 = nothing to tell
  uint32_t credit_ = 0;      // of the host: what may be sent
  bool readable_ = false;    // there may be more to read
  bool peer_ended_ = false;  // the kernel said so: a short read is not the last one
  bool told_end_ = false;    // `done` was sent
  ByteRing<wire::kConnectionWindow> input_;
  char* memory_ = nullptr;  // of it, once there is something that the socket does not take
  uint32_t consumed_ = 0;   // credit that is not given back yet
  bool input_ended_ = false, shut_ = false;
};

}  // namespace hutch::agent
