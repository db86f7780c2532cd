#pragma once

#include "agent/connection.h"
#include "agent/slots.h"

namespace hutch::agent {

/// The streams of connect, and what the host listens for inside. They end with their host.
class NetworkService {
 public:
  bool has(uint32_t stream) { return find(stream) != nullptr || listener_of(stream) != nullptr; }
  void connect(const wire::Connect& request, uint32_t stream, Services& services);
  void listen(const wire::Listen& request, uint32_t stream, Services& services);
  /// A frame for a stream that has() knows.
  void on_frame(const Frame& frame, Services& services);

  void on_event(Source source, size_t index, uint32_t events, Services& services);
  void take_turn(size_t index, Services& services);
  /// When accept_again() has something to do; 0 = never.
  uint64_t due_at_ms() const { return due_at_ms_; }
  /// For those that have waited since there was no descriptor, or no memory, for them.
  void accept_again(Services& services);
  void drop_all();

 private:
  struct Listener {
    UniqueFd fd;
    uint32_t stream = 0;
    bool free() const { return stream == 0; }
  };
  static constexpr size_t kMaxListeners = 8;

  Connection* find(uint32_t stream);
  Listener* listener_of(uint32_t stream);
  void accept_all(Listener& listener, Services& services);

  Slots<Connection, kMaxConnections> connections_;
  Slots<Listener, kMaxListeners> listeners_;
  uint32_t accepted_ = 0;  // counts, for the ids of our streams
  uint64_t due_at_ms_ = 0;
};

}  // namespace hutch::agent
