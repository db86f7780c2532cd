#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "sandbox/request.h"

namespace hutch::sandbox {

struct TerminalSize {
  int rows = 24, columns = 80;
};

/// A command line as the agent gets it.
struct CommandSpec {
  uint32_t number = 0;  // what a server that takes over is told; 0 = none
  std::vector<std::string> argv;
  std::map<std::string, std::string> env;  // the whole environment
  std::string workdir;
  std::string user;           // as in Description
  bool has_input = false;     // otherwise standard input is /dev/null
  bool merge_output = false;  // both streams in one pipe, in the order in which they were written
  bool terminal = false;      // a pseudo-terminal for all three; has input, and its output is one stream
  TerminalSize size;          // of that
  std::chrono::milliseconds timeout{0};  // after which its whole tree is ended; 0 = never
  std::string log_path;                  // inside; empty = no log
  uint64_t log_max_bytes = 64ull << 20, logs_max_bytes = 256ull << 20;  // of this one, of all
};

/// Throws invalid_argument for a name that is empty or holds "=", and for a NUL byte.
void check_environment(const std::map<std::string, std::string>& env);

/// One command in a sandbox, from its start until close(). Thread-safe.
///
/// What it prints is either relayed to a sink as it comes or only stored inside of the sandbox (the log, and
/// past its cap the last 64 KiB), from where it can be read at any place. Once it was not relayed, or when
/// its main process leaves others running, the agent keeps it until close().
class Process : public WaitedStream {
 public:
  /// With the lock held: 1 = standard output, 2 = standard error. Must not block.
  using Sink = std::function<void(int, std::string_view)>;
  /// When relayed output is done with: when the sink has returned, or, for a sink that only queues it, when
  /// consumed() says so. At most wire::kWindow bytes are under way, then the command waits.
  enum class Flow { by_sink, by_caller };

  /// Starts it; an empty sink means that its output is stored. Whether it could be started shows in wait().
  static std::shared_ptr<Process> start(std::shared_ptr<Channel> channel, const CommandSpec& spec, Sink sink,
                                        Flow flow = Flow::by_sink);
  /// One that another server started, at the time of its announcement (Channel::Claim). Its output is stored
  /// once end_relay() was called.
  static std::shared_ptr<Process> adopt(std::shared_ptr<Channel> channel, uint32_t stream,
                                        const wire::Started& started, Clock::time_point started_at);
  ~Process() override = default;
  /// The end of all dealings with it. A command that still runs goes on.
  void close();

  /// What is known of it. The agent's word: it comes out of the sandbox.
  struct State {
    uint32_t pid = 0;        // inside; 0 = not started yet
    bool exited = false;     // the main process; then `end` is set
    bool tree_gone = false;  // and all that it left running
    wire::Exited end;
    size_t input_room = wire::kInputWindow;  // bytes that write() takes without waiting
  };
  State state() const;
  bool running() const;

  /// Waits until `ready`, which runs with the lock held and gets the State. Returns whether it held before
  /// the deadline and the stop. Throws when the command could not be started or the sandbox has ended.
  template <class Ready>
  bool wait(std::stop_token stop, Clock::time_point deadline, Ready ready) {
    const bool held =
        wait_until(stop, deadline, [&] { return failed() || closed() || ready(std::as_const(state_)); });
    check();
    return held;
  }
  /// Runs `fn` with the lock held, under which the sink is called.
  template <class Fn>
  auto locked(Fn fn) const {
    const std::lock_guard lock(mutex_);
    return fn();
  }

  /// SIGTERM to all of it, SIGKILL after the grace; 0 = SIGKILL at once.
  void end_tree(std::chrono::milliseconds grace);
  /// To its process group, in a terminal to the foreground; when the main process has ended, to the rest.
  void signal(int number);
  void resize(const TerminalSize& size);

  /// Returns how many bytes were taken: fewer when the command or the time ended before it took them.
  size_t write(std::string_view input, std::stop_token stop, Clock::time_point deadline);
  void end_input();

  /// From now on output goes to the sink.
  void begin_relay(Sink sink);
  /// From now on output is stored only; the sink is not called any more. Returns relay_end().
  uint64_t end_relay();
  /// Where in the output the last relay began, and how far it came.
  uint64_t relay_begin() const;
  uint64_t relay_end() const;
  /// Flow::by_caller: this much of what the sink got is done with.
  void consumed(size_t bytes);

  struct Piece {
    uint64_t first = 0;    // where `bytes` begin; past what was asked for where that is not stored any more
    uint64_t printed = 0;  // all that was printed so far
    std::string bytes;
  };
  /// At most `max_bytes` of what was printed, from `from` on.
  Piece read(uint64_t from, size_t max_bytes, Clock::time_point deadline);
  /// True when more than `bytes` were printed; false when it has ended, the time is over, or a stop.
  bool wait_for_output(uint64_t bytes, std::stop_token stop, Clock::time_point deadline);

  uint32_t stream() const { return id(); }  // its number at the agent
  Clock::time_point started_at() const { return started_at_; }
  bool has_input() const { return has_input_; }
  /// end_input() was called.
  bool input_ended() const {
    return locked([&] { return input_ended_; });
  }

 private:
  Process(std::shared_ptr<Channel> channel, bool has_input, Sink sink, Flow flow,
          Clock::time_point started_at = Clock::now())
      : link_(std::move(channel)),
        has_input_(has_input),
        flow_(flow),
        started_at_(started_at),
        sink_(std::move(sink)),
        stored_(!sink_) {}
  void handle(const wire::Header& header, std::string_view payload) override;
  void on_output(uint8_t which, std::string_view bytes);
  void give_credit(size_t bytes);
  void check() const;

  const std::shared_ptr<Channel> link_;
  const bool has_input_;
  const Flow flow_;
  const Clock::time_point started_at_;
  State state_;
  Sink sink_;
  bool stored_ = false;         // was so at some time: the agent then keeps it until it is told to forget
  bool relay_answered_ = true;  // frames from before the answer belong to an earlier relay
  bool input_ended_ = false;
  uint64_t relay_begin_ = 0, received_ = 0;
  uint64_t printed_ = 0;  // how much there is, as far as is known
  uint32_t consumed_ = 0;
  std::mutex read_mutex_;  // the agent answers one at a time
};

}  // namespace hutch::sandbox
