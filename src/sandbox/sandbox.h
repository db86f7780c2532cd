#pragma once

#include <asio/posix/stream_descriptor.hpp>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "net/egress.h"
#include "runtime/layer.h"
#include "sandbox/call_gauge.h"
#include "sandbox/channel.h"
#include "sandbox/connection.h"
#include "sandbox/description.h"
#include "sandbox/disk_guard.h"
#include "sandbox/exec.h"
#include "sandbox/files.h"
#include "sandbox/process_table.h"
#include "sandbox/sessions.h"
#include "sandbox/throttle.h"

namespace hutch::sandbox {

/// Inside, of what commands print.
inline constexpr std::string_view kLogFolder = "/var/log/hutch";

/// What a sandbox consists of when it has been built.
struct Body {
  std::string id, runtime, user;
  runtime::Limits limits;  // in force
  runtime::Container container;
  runtime::Cgroup cgroup;
  std::shared_ptr<Channel> channel;
  std::string folder;                              // its own, see SandboxSpec
  uint64_t log_max_bytes = 0, logs_max_bytes = 0;  // output kept of one command, of all
};

/// What its owner may change of it while it lives. What is left out stays.
struct Changes {
  std::optional<std::chrono::seconds> ttl, idle_timeout;  // ttl: from now on; 0 = none
  std::optional<uint64_t> memory_bytes;
  std::optional<double> cpus;
  std::optional<int64_t> pids;
  std::optional<std::map<std::string, std::string>> labels;  // an empty value removes the label
  std::optional<bool> paused;
  std::optional<std::string> network;
  std::optional<std::vector<std::string>> allow;
};

/// What a record says of a sandbox whose server has died.
struct Kept {
  Description description;
  WallClock::time_point last_used;
  std::vector<KeptProcess> processes;
};

struct Usage {
  runtime::CgroupUsage cgroup;
  uint64_t disk_bytes = 0;
};

/// One running sandbox: its agent's channel, its container, its limits. Nobody's at first, somebody's after
/// claim(). Thread-safe. It ends by end(), by its own death, or by its lifetime; `on_end` then hears of it
/// once, on the I/O thread or the caller's.
class Sandbox : public std::enable_shared_from_this<Sandbox> {
 public:
  Sandbox(asio::io_context& io, CallGauge& calls, Body body);
  ~Sandbox();

  struct Hooks {
    std::function<void()> on_end;               // once; must not block
    std::function<void()> on_use;               // it was used: once a second at most; must not block
    std::function<void()> on_processes_change;  // of kept_processes(); from calls, with no lock held
  };
  /// Begins to watch the container's process, and to tell what happens.
  void watch(Hooks hooks);

  /// Makes it what its first and only owner asked for: limits that differ from those in force are written and
  /// read back, its agent is told its lifetime. Throws unavailable when a limit does not take effect that did
  /// before. Once, and before anybody else can reach it.
  void claim(Description description, Clock::time_point asked_at);
  /// In place of claim(), with a channel that was taken over and is not connected yet: connects it, and goes
  /// on with the commands that the server before left. Calls that ended with it are ended, and so are
  /// interpreters that were at work or had none. Throws as Channel::connect() does.
  void restore(Kept kept, uint64_t orphan_ttl_ms, Clock::time_point deadline);
  /// Limits are written and read back, its agent is told its lifetime. Throws unavailable when a limit does
  /// not take effect; then nothing else is changed.
  void update(const Changes& changes);
  /// For a record: commands that outlived their calls.
  std::vector<KeptProcess> kept_processes() const;
  /// They are others now. With no lock held.
  void note_processes() const;
  /// Whether its agent answers.
  bool ping(Clock::time_point deadline);
  /// For commands to start in; parents too. It belongs to the sandbox's user, unless something is in it.
  void make_folder(const std::string& path);

  const std::string& id() const noexcept { return body_.id; }
  /// As it is now.
  Description about() const { return *described(); }
  /// `path` made absolute by the working folder.
  std::string absolute(const std::string& path) const;

  ExecResult exec(const ExecSpec& spec);
  /// Starts a command for a caller that deals with the process itself, within during_call(). Of `spec` what
  /// it is to run, where, and in what terminal; nothing of what it prints is kept in the sandbox.
  std::shared_ptr<Process> start(const ExecSpec& spec, bool has_input, Process::Sink sink);
  /// Commands that outlived their calls.
  ProcessTable& processes() noexcept { return processes_; }
  /// Code in an interpreter, and the sessions that keep one.
  EvalResult eval(const EvalSpec& spec);
  Sessions& sessions() noexcept { return sessions_; }
  /// How such a one ended, when it has.
  ExecResult result_of(BackgroundProcess& process);
  /// Runs `fn` as one call: the sandbox is not idle meanwhile, and when it ends under the call its cause is
  /// the error.
  template <class Fn>
  auto during_call(Fn fn);

  FileInfo read_file(const std::string& path, uint64_t max_bytes,
                     const std::function<bool(std::string_view)>& sink, std::stop_token stop);
  FileInfo write_file(const std::string& path, std::string_view content, const WriteOptions& options,
                      std::stop_token stop);
  void list_files(const std::string& path, uint32_t depth, const std::function<bool(const FileEntry&)>& visit,
                  std::stop_token stop);
  Usage usage() const;

  /// A connection to a port inside, on the I/O thread. The sandbox is in use as long as it is open.
  asio::awaitable<std::unique_ptr<net::Duplex>> connect(uint16_t port);
  /// Has what is connected to a port of its loopback come to `accept`, which is called on the I/O thread, as
  /// long as the sandbox lives or until the next call for that port.
  void listen(uint16_t port, Listener::Accept accept);
  /// What it may reach and was refused; nullptr when it has no filtered network.
  std::shared_ptr<net::Egress> egress() const;
  /// `how`: what is said of it as its isolation.
  void set_egress(std::shared_ptr<net::Egress> egress, const std::string& how);
  /// Asks who runs code in it whether a connection may pass for which a rule is missing; called on the I/O
  /// thread, must not block, and calls `answer` once, on any thread, unless it returns false: nobody is
  /// asked.
  using Asker = std::function<bool(const net::Refusal&, const std::function<void(bool allowed)>& answer)>;
  /// For as long as the asker lives. Whose connection it is cannot be known: the latest that does ask has it.
  void add_asker(const std::shared_ptr<const Asker>& asker);
  bool ask(const net::Refusal& refusal, const std::function<void(bool allowed)>& answer);
  /// While it has open ports it is not paused on its own.
  void count_open_ports(int change) noexcept { open_ports_ += change; }
  asio::any_io_executor executor() { return pidfd_watch_.get_executor(); }

  bool running() const noexcept { return !ended_; }
  /// Somebody has called it since claim() or take_up().
  bool was_used() const noexcept { return used_; }
  WallClock::time_point last_used() const;
  /// The end of its last use, by a call or by what runs in the background: now while a call runs.
  Clock::time_point last_activity();
  std::optional<WallClock::time_point> expires_at() const;
  /// When its lifetime or its idle time is over, with what is known now; nothing while a call runs or when
  /// there is no end.
  std::optional<Clock::time_point> ends_at();

  /// Who had its processes frozen: its owner, until update() says otherwise, or hutch, until the next call.
  enum class Pause { none, by_owner, idle };
  Pause pause() const;
  /// Of one that has not ended: "running" or "paused".
  std::string_view state() const { return pause() == Pause::none ? "running" : "paused"; }
  /// Freezes it when no call and no command has run for `unused`. Returns how long it has still to wait, zero
  /// when it is frozen, nothing when it cannot be told yet.
  std::optional<Clock::duration> pause_when_idle(Clock::duration unused);
  /// Back from any pause.
  void resume();
  /// Back from one that the next call would have ended.
  void end_idle_pause();
  /// Holds everything inside still while `copy` reads what it has written; calls to it wait meanwhile. Throws
  /// conflict where this host can freeze nothing and something runs.
  void hold_still(const std::function<void(const runtime::WrittenFiles&)>& copy);
  /// Since when no call and no command runs; nothing while one does.
  std::optional<Clock::time_point> idle_since();
  /// What it gets while the host is short of memory; an empty one: what it asked for, also when it was
  /// throttled by a server before. Read back; returns what holds now. Throws unavailable when it cannot be
  /// given back.
  std::string squeeze(const Squeeze& squeeze);

  /// Notes why, and ends everything inside. Does not wait.
  void end(const std::string& cause);
  /// Why it ended; empty while it runs.
  std::string cause() const;
  bool wait_until_ended(Clock::time_point deadline) const noexcept;
  const runtime::Cgroup& cgroup() const noexcept { return body_.cgroup; }
  const runtime::Container& container() const noexcept { return body_.container; }
  /// Where its files lie, for the guard of the host's disk.
  GuardedDisk disk() const;
  /// To be called when the host's disk has been full.
  void look_for_lost_writes() noexcept;
  /// What has been found: for people, that its files are not whole. Empty while they are.
  std::string damage() const;

 private:
  class Activity {  // while one of these lives, the sandbox is not idle
   public:
    explicit Activity(Sandbox& sandbox);
    /// Without waiting; throws as the other one does. Nothing while the sandbox is held still.
    static std::unique_ptr<Activity> try_begin(Sandbox& sandbox);
    ~Activity();
    Activity(const Activity&) = delete;
    Activity& operator=(const Activity&) = delete;

   private:
    Activity(Sandbox& sandbox, std::unique_lock<std::mutex> pausing);
    std::optional<CallGauge::Scope> running_;  // a call is; a connection that is only open is not
    Sandbox& sandbox_;
  };
  class UsedConnection;
  std::shared_ptr<const Description> described() const;
  void describe(Description description);
  runtime::Isolation change_limits(const runtime::Limits& from, const runtime::Limits& to,
                                   runtime::Isolation isolation) const;
  void set_lifetime(std::chrono::seconds left);
  void set_pause(Pause pause);
  void begin_stillness();
  void end_stillness();
  void note_use();
  std::string cause_of_end() const;
  [[noreturn]] void rethrow(const Error& error);
  CommandSpec command_spec(const ExecSpec& spec, uint32_t number) const;
  Started run_with_shell(const ExecSpec& spec, CommandSpec& command);
  void go_on(const ExecSpec& spec, uint32_t number, uint64_t oom_kills_before, Started started,
             ExecResult& result);
  void note_limits(uint64_t oom_kills_before, ExecResult& result);
  uint64_t oom_kills_of(BackgroundProcess& process);
  void settle();
  void count_log(uint32_t number, uint64_t bytes);
  void on_process_end();
  std::shared_ptr<Process> take_up(const std::map<uint32_t, KeptProcess>& known, uint32_t stream,
                                   const wire::Started& started, WallClock::time_point created_at);
  void restore_logs(Clock::time_point deadline);

  const Body body_;
  CallGauge& calls_;
  asio::posix::stream_descriptor pidfd_watch_;
  Hooks hooks_;

  std::atomic<bool> ended_{false}, no_bash_{false}, used_{false}, lost_writes_{false};
  std::atomic<int> open_ports_{0};
  std::atomic<uint32_t> next_command_{1};
  std::atomic<uint64_t> pids_refused_seen_{0};
  std::mutex limits_mutex_;         // held while limits are written, with what they are read from
  mutable std::mutex pause_mutex_;  // held while it is frozen or thawed; before mutex_
  Pause pause_ = Pause::none;
  enum class Stillness { none, held, broken };  // by hold_still(); broken: somebody let it go on
  Stillness stillness_ = Stillness::none;
  std::condition_variable stillness_over_;
  mutable std::mutex mutex_;
  std::shared_ptr<const Description> about_;  // replaced, never changed
  std::optional<Clock::time_point> lifetime_ends_at_;
  std::string cause_;
  int active_calls_ = 0;
  Clock::time_point last_used_ = Clock::now(), use_told_at_{};
  WallClock::time_point last_used_wall_ = WallClock::now();
  std::deque<std::pair<uint32_t, uint64_t>> logs_;  // number, bytes; oldest first
  uint64_t logs_bytes_ = 0;
  ProcessTable processes_;
  Sessions sessions_;
  std::map<uint16_t, std::unique_ptr<Listener>> listeners_;
  std::shared_ptr<net::Egress> egress_;
  std::vector<std::weak_ptr<const Asker>> askers_;  // latest first
};

template <class Fn>
auto Sandbox::during_call(Fn fn) {
  const Activity activity(*this);
  try {
    return fn();
  } catch (const Error& e) {
    rethrow(e);
  }
}

}  // namespace hutch::sandbox
