#pragma once

#include "agent/channel.h"
#include "agent/command_table.h"
#include "agent/event_loop.h"
#include "agent/file_service.h"
#include "agent/network_service.h"
#include "agent/strays.h"

namespace hutch::agent {

/// PID 1 of a sandbox: one loop over the host's frames, the streams, the children and one timer.
/// In whole pages, because forks do not inherit it: what it holds is of no use to them, and every page of it
/// that is written after a fork would have to be copied.
class alignas(4096) Agent final : private KnownChildren {
 public:
  /// False when it cannot wait for events. Takes the channel on descriptors 0 and 1.
  bool open(const Inherited& inherited);
  /// Returns when the sandbox has to end.
  void run();

 private:
  static constexpr uint64_t kLookMs = 1000;
  static constexpr uint64_t kFirstOrphanTtlMs = 60'000;  // until the first hello says otherwise

  bool knows(pid_t pid) const override;

  void on_event(const epoll_event& event);
  void reap_children();
  bool on_time();
  void arm_timer();
  bool work_left() const;

  void serve_host();
  void serve_streams();
  void on_frame(const Frame& frame);
  void on_request(const Frame& frame);
  void read_output(const wire::ReadOutput& request, uint32_t stream);
  void on_command_frame(const Frame& frame, Command& command);
  void on_hello(const Frame& frame);
  void on_host_lost();
  void wait_for_host();
  void set_lifetime(uint64_t ends_in_ms);

  Channel channel_;
  Poller poller_;
  TurnQueue turns_;
  Services services_{channel_, poller_, turns_, {}, {}};
  CommandTable commands_;
  FileService files_;
  NetworkService network_;
  StrayHunt strays_;

  int signal_fd_ = -1, timer_fd_ = -1;
  bool host_present_ = false, host_readable_ = true, child_ended_ = true;
  uint64_t orphan_ttl_ms_ = kFirstOrphanTtlMs;
  uint64_t orphan_at_ms_ = 0, ends_at_ms_ = 0;  // 0 = never
  uint64_t look_at_ms_ = 0;                     // without a host: whether one can still come
  uint64_t armed_for_ms_ = 0;
};

}  // namespace hutch::agent
