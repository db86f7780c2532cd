#pragma once

#include <sys/types.h>

#include "agent/channel.h"
#include "agent/event_loop.h"
#include "agent/input_buffer.h"
#include "agent/output_store.h"
#include "agent/spare.h"
#include "agent/supervisor.h"
#include "base/unique_fd.h"

/// One `exec` stream: the supervisor's socket, the pipes or the terminal of the main process, what it
/// printed, and what the host was told.
namespace hutch::agent {

/// What all streams use; lives as long as the agent.
struct Services {
  Channel& channel;
  Poller& poller;
  TurnQueue& turns;
  Inherited inherited;
  LogBudget logs;
};

class Command {
 public:
  /// The stream is known to the host.
  bool live() const { return phase_ != Phase::free && phase_ != Phase::over; }
  bool free() const { return phase_ == Phase::free; }
  /// Its output needs no host.
  bool stored() const { return live() && !relay_; }
  uint32_t stream() const { return stream_; }
  pid_t supervisor() const { return supervisor_; }
  pid_t main() const { return main_; }

  /// Takes the spare and has it start the command, or sends `failed`; slot and spare stay free then.
  void start(const wire::Exec& request, uint32_t stream, Spare& spare, Services& services);

  void on_event(Source source, Services& services);
  /// PID 1 reaped the supervisor; `killed`: before its work was done. What it still said is in the socket.
  void on_supervisor_gone(bool killed, Services& services);
  /// PID 1 reaped the main process itself, because there is no supervisor any more.
  void on_main_reaped(int status);
  /// Nothing is left of what killed supervisors watched.
  void on_strays_gone(Services& services);

  /// Says what there is to say, then at most one chunk of output. Frees the slot after the last word.
  void take_turn(Services& services);
  /// A new host: it is told about this command, and gets a full window.
  void reattach(Services& services);

  void add_input(std::string_view bytes, Services& services);
  void end_input(Services& services);
  void add_credit(uint32_t bytes, Services& services);
  void end_tree(uint32_t grace_ms);
  void signal(uint32_t number);
  void resize(const wire::WindowSize& size);

  /// Whether output is sent as it comes.
  void set_relay(bool on, Services& services);
  /// Has `printed` sent once there is more than `bytes`.
  void watch(uint64_t bytes, Services& services);
  /// Answered on `stream`, one request at a time.
  void read_output(const wire::ReadOutput& request, uint32_t stream, Services& services);
  /// The host will not ask for it any more.
  void forget(Services& services);

  /// When on_deadline() has to be called; 0 = never.
  uint64_t deadline_ms() const;
  void on_deadline(Services& services);

 private:
  // exited: the main process has. kept: nothing is left, but the host may ask what was printed. over: the
  // supervisor is still to be reaped.
  enum class Phase { free, starting, running, exited, kept, over };

  struct Output {
    UniqueFd fd;
    bool ready = false;
    size_t owed = 0;  // after the end of the main process: bytes that belong to the answer
  };

  bool accepts(const wire::Exec& request, User& user, Services& services);
  const char* take(Spare spare, Services& services);
  const char* open_terminal(UniqueFd& theirs, Services& services);
  void fail_to_start(const char* step, Services& services);
  bool can_start_again() const;
  void start_again(Services& services);
  void read_reports(Services& services);
  void on_report(const Report& report, std::string_view text, Services& services);
  void finish_lost();
  void begin_drain();
  bool sends() const { return relay_ && phase_ != Phase::exited; }
  bool relay(Output& output, Services& services);
  bool can_relay(const Output& output) const;
  bool drained() const { return outputs_[0].owed == 0 && outputs_[1].owed == 0; }
  void send_credit(Services& services);
  void send_announcement(Services& services);
  bool send_piece(Services& services);
  void send_printed(Services& services);
  void send_exited(Services& services);
  void order(Order::Kind kind, uint32_t value, int with_fd = -1);
  void close_streams();
  void release();

  Phase phase_ = Phase::free;
  uint32_t stream_ = 0;
  size_t index_ = 0;
  pid_t supervisor_ = -1, main_ = -1;
  UniqueFd control_;
  HandoverMemory handover_;  // until the command runs
  UniqueFd input_pipe_;      // until the command runs: then the buffer has it
  uint8_t options_ = 0;
  uint32_t number_ = 0;
  wire::WindowSize size_;  // of the terminal when it is opened
  bool ordered_ = false;   // was told more than to start
  Output outputs_[2];
  size_t next_output_ = 0;
  uint32_t credit_ = 0;
  InputBuffer input_;
  OutputStore store_;
  Report ended_{};
  uint64_t started_at_ms_ = 0, ran_ms_ = 0;
  uint64_t timeout_at_ms_ = 0;  // 0 = none
  uint64_t kill_at_ms_ = 0;     // when the supervisor has had its time to end the tree; 0 = none
  bool timed_out_ = false;
  bool relay_ = true, keep_ = false, forgotten_ = false;
  bool watching_ = false;
  uint64_t watched_ = 0;
  uint32_t reader_ = 0;  // stream of who asked for what was printed; 0 = nobody
  wire::ReadOutput wanted_;
  bool control_ready_ = false, announce_ = false;
  bool main_ended_ = false, tree_gone_ = false;
  bool lost_ = false, strays_gone_ = false;
};

}  // namespace hutch::agent
