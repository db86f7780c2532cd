#pragma once

#include <sys/epoll.h>

#include <bitset>
#include <cstddef>
#include <cstdint>

#include "wire/frame.h"

/// What the parts of the agent share to wait and to take turns.
namespace hutch::agent {

inline constexpr size_t kMaxCommands = wire::kMaxCommands;
inline constexpr size_t kMaxFileStreams = 32;
inline constexpr size_t kMaxConnections = wire::kMaxConnections;

enum class Source : uint32_t {
  host_in,
  host_out,
  signals,
  timer,
  control,
  out,
  err,
  input,
  file,
  connection,
  listener
};

/// epoll, edge-triggered: every handler works until EAGAIN or remembers that there is more. A handler must
/// bear an event for a descriptor that was closed in the same round.
class Poller {
 public:
  bool open() { return (fd_ = epoll_create1(EPOLL_CLOEXEC)) >= 0; }
  bool watch(int fd, uint32_t events, Source source, size_t index = 0) const {
    epoll_event event{};
    event.events = events | EPOLLET;
    event.data.u64 = static_cast<uint64_t>(source) << 32 | index;
    return epoll_ctl(fd_, EPOLL_CTL_ADD, fd, &event) == 0;
  }
  int wait(epoll_event* events, int capacity, bool block) const {
    return epoll_wait(fd_, events, capacity, block ? -1 : 0);
  }
  static Source source(const epoll_event& event) { return static_cast<Source>(event.data.u64 >> 32); }
  static size_t index(const epoll_event& event) { return static_cast<uint32_t>(event.data.u64); }

 private:
  int fd_ = -1;
};

/// Round robin over everything that has something to say to the host, one chunk a turn: a flood on one
/// stream delays another by one chunk and not more.
class TurnQueue {
 public:
  static constexpr size_t kParties = kMaxCommands + kMaxFileStreams + kMaxConnections;

  void add(size_t party) {
    if (waiting_[party]) return;
    waiting_[party] = true;
    ring_[(first_ + count_++) % kParties] = static_cast<uint16_t>(party);
  }
  bool empty() const { return count_ == 0; }
  size_t take() {
    const size_t party = ring_[first_];
    first_ = (first_ + 1) % kParties;
    --count_;
    waiting_[party] = false;
    return party;
  }

 private:
  std::bitset<kParties> waiting_;
  uint16_t ring_[kParties] = {};
  size_t first_ = 0, count_ = 0;
};

}  // namespace hutch::agent
