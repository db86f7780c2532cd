#include "sandbox/sandbox.h"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

#include <thread>

#include "base/log.h"
#include "base/sys.h"
#include "runtime/layer.h"
#include "sandbox/output.h"
#include "sandbox/ping.h"
#include "schema/bytes.h"

namespace hutch::sandbox {

using namespace std::chrono_literals;

namespace {

constexpr auto kFileTimeout = 60s;

std::string log_path(uint32_t number) {
  return fmt::format("{}/{}.log", kLogFolder, number);
}

/// Whether the sizes of all of them hold.
runtime::Enforcement isolation_of(const std::vector<AttachedVolume>& volumes) {
  for (const auto& volume : volumes)
    if (!volume.not_limited.empty())
      return {false, fmt::format("the size of '{}' is not limited: {}", volume.name, volume.not_limited)};
  return {true, "each has a disk of its own size; its owners are those of this sandbox"};
}

runtime::Enforcement isolation_of_network(const std::vector<std::string>& allow) {
  std::string besides;
  for (const auto& range : allow) besides += (besides.empty() ? ", but for " : ", ") + range;
  return {true,
          "every public address, by pasta; refused are private, link-local and metadata addresses and "
          "those of this host" +
              besides};
}

}  // namespace

Sandbox::Sandbox(asio::io_context& io, CallGauge& calls, Body body)
    : body_(std::move(body)),
      calls_(calls),
      pidfd_watch_(io, sys::duplicate(body_.container.pidfd.get()).release()) {
  Description about;
  about.id = body_.id;
  about.runtime = body_.runtime;
  about.user = body_.user;
  about.limits = body_.limits;
  about.isolation = body_.container.isolation;
  describe(std::move(about));
}

/// Streams of the channel hold it: closed, it lets go of them, whoever saw the process end or not.
Sandbox::~Sandbox() {
  body_.channel->close();
}

std::shared_ptr<const Description> Sandbox::described() const {
  const std::lock_guard lock(mutex_);
  return about_;
}

void Sandbox::describe(Description description) {
  auto about = std::make_shared<const Description>(std::move(description));
  const std::lock_guard lock(mutex_);
  about_ = std::move(about);
}

runtime::Isolation Sandbox::change_limits(const runtime::Limits& from, const runtime::Limits& to,
                                          runtime::Isolation isolation) const {
  runtime::CgroupLimits changed;
  if (to.memory_bytes != from.memory_bytes) changed.memory_bytes = to.memory_bytes;
  if (to.cpus != from.cpus) changed.cpus = to.cpus;
  if (to.pids != from.pids) changed.pids = to.pids;
  for (auto& [name, result] : body_.cgroup.apply(changed)) {
    auto& item = isolation[name];
    if (item.enforced && !result.enforced)
      throw Error(Errc::unavailable,
                  fmt::format("the limit '{}' cannot be changed: {}", name, result.detail));
    if (item.enforced) item = std::move(result);  // what never held says why already
  }
  return isolation;
}

void Sandbox::set_lifetime(std::chrono::seconds left) {
  body_.channel->send(wire::Type::lifetime, 0, wire::Lifetime{static_cast<uint64_t>(left.count()) * 1000});
  const std::lock_guard lock(mutex_);
  lifetime_ends_at_.reset();
  if (left > 0s) lifetime_ends_at_ = Clock::now() + left;
}

void Sandbox::claim(Description description, Clock::time_point asked_at) {
  description.id = body_.id;
  description.runtime = body_.runtime;
  description.isolation = change_limits(body_.limits, description.limits, body_.container.isolation);
  if (description.network == "full")
    description.isolation["network"] = isolation_of_network(description.allow);
  if (!description.volumes.empty()) description.isolation["volumes"] = isolation_of(description.volumes);
  if (description.ttl > 0s) {
    set_lifetime(description.ttl);
    description.expires_at = WallClock::now() + description.ttl;
  }
  const auto now = Clock::now();
  description.create_time = std::chrono::duration_cast<std::chrono::microseconds>(now - asked_at);
  describe(std::move(description));
  const std::lock_guard lock(mutex_);
  last_used_ = now;
  last_used_wall_ = WallClock::now();
}

void Sandbox::update(const Changes& changes) {
  std::unique_lock limiting(limits_mutex_);
  Description about = *described();
  if (changes.network && *changes.network != about.network)
    throw Error(Errc::invalid_argument, "the kind of network of a running sandbox cannot be changed")
        .hint("make another one: sandbox_create with `network` and `allow`; files come along by a template");
  about.allow = changes.allow.value_or(about.allow);
  runtime::Limits limits = about.limits;
  limits.memory_bytes = changes.memory_bytes.value_or(limits.memory_bytes);
  limits.cpus = changes.cpus.value_or(limits.cpus);
  limits.pids = changes.pids.value_or(limits.pids);
  about.isolation = change_limits(about.limits, limits, about.isolation);
  about.limits = limits;
  about.idle_timeout = changes.idle_timeout.value_or(about.idle_timeout);
  if (changes.ttl) {
    set_lifetime(*changes.ttl);
    about.ttl = *changes.ttl;
    about.expires_at = about.ttl > 0s ? WallClock::now() + about.ttl : WallClock::time_point{};
  }
  if (changes.labels)
    for (const auto& [name, value] : *changes.labels) {
      if (value.empty())
        about.labels.erase(name);
      else
        about.labels[name] = value;
    }
  describe(std::move(about));
  limiting.unlock();
  {
    const std::lock_guard lock(mutex_);
    used_ = true;  // being changed is being used
    note_use();
  }
  if (!changes.paused) return;
  const std::lock_guard pausing(pause_mutex_);
  set_pause(*changes.paused ? Pause::by_owner : Pause::none);
}

/// With mutex_ held.
void Sandbox::note_use() {
  last_used_ = Clock::now();
  last_used_wall_ = WallClock::now();
  if (last_used_ - use_told_at_ < 1s || !hooks_.on_use) return;
  use_told_at_ = last_used_;
  hooks_.on_use();
}

void Sandbox::watch(Hooks hooks) {
  hooks_ = std::move(hooks);
  // A pidfd becomes readable when its process ends.
  pidfd_watch_.async_wait(asio::posix::stream_descriptor::wait_read,
                          [weak = weak_from_this()](asio::error_code err) {
                            const auto self = weak.lock();
                            if (!err && self) self->on_process_end();
                          });
}

/// For one that nobody has ended by end().
std::string Sandbox::cause_of_end() const {
  const auto about = described();
  const auto lifetime_ends_at = [&] {
    const std::lock_guard lock(mutex_);
    return lifetime_ends_at_;
  }();
  if (lifetime_ends_at && Clock::now() >= *lifetime_ends_at) return lifetime_was_over(*about);
  if (body_.cgroup.oom_kills() > 0)
    return fmt::format("its agent ended after the memory limit of {} was reached",
                       to_string(Bytes{about->limits.memory_bytes}));
  // An agent that was started by this server is its child, since it adopts orphans.
  siginfo_t info{};
  constexpr auto kPidfd = static_cast<idtype_t>(3);  // P_PIDFD, Linux 5.4
  const bool known = ::waitid(kPidfd, static_cast<id_t>(body_.container.pidfd.get()), &info,
                              WEXITED | WNOHANG | WNOWAIT) == 0 &&
                     info.si_pid != 0;
  if (known && info.si_code == CLD_EXITED && body_.cgroup.pids_refused() > 0)  // gVisor's kernel cannot go on
    return fmt::format("its agent ended after its limit of {} processes was reached", about->limits.pids);
  if (known && info.si_code == CLD_EXITED)
    return fmt::format("its agent could not go on (exit code {})", info.si_status);
  if (known && info.si_status != SIGKILL) return fmt::format("its agent crashed (signal {})", info.si_status);
  return "its agent was killed from outside";
}

void Sandbox::on_process_end() {
  const std::string cause = cause_of_end();
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    if (cause_.empty()) cause_ = cause;
  }
  log::info("{} ended: {}", body_.id, this->cause());
  body_.channel->close();
  if (hooks_.on_end) hooks_.on_end();
}

void Sandbox::end(const std::string& cause) {
  bool first = false;
  {
    const std::lock_guard lock(mutex_);
    first = cause_.empty();
    if (first) cause_ = cause;
  }
  if (const auto& disk = body_.container.disk; disk && first && !wait_until_ended(Clock::now()))
    runtime::drop_layer(body_.folder, *disk, body_.container.pid);
  pidfd_signal(body_.container.pidfd.get(), SIGKILL);
  body_.cgroup.thaw();  // on v1 a frozen process does not end
}

std::string Sandbox::cause() const {
  const std::lock_guard lock(mutex_);
  return cause_;
}

bool Sandbox::wait_until_ended(Clock::time_point deadline) const noexcept {
  return wait_for_end(body_.container.pidfd.get(), deadline);
}

std::string Sandbox::absolute(const std::string& path) const {
  if (!path.empty() && path.front() == '/') return path;
  const auto about = described();
  return path.empty() ? about->workdir : about->workdir + "/" + path;
}

CommandSpec Sandbox::command_spec(const ExecSpec& spec, uint32_t number) const {
  CommandSpec command;
  command.argv = spec.argv;
  command.env = described()->env;
  if (spec.terminal) command.env["TERM"] = "xterm-256color";
  for (const auto& [name, value] : spec.env) command.env[name] = value;
  command.workdir = absolute(spec.workdir);
  command.user = described()->user;
  command.merge_output = spec.merge_output;
  command.terminal = spec.terminal.has_value();
  if (spec.terminal) command.size = *spec.terminal;
  command.timeout = spec.timeout;
  command.number = number;
  command.log_path = log_path(number);
  command.log_max_bytes = body_.log_max_bytes;
  command.logs_max_bytes = body_.logs_max_bytes;
  return command;
}

/// bash where the sandbox has it, else sh: found out by the first command.
Started Sandbox::run_with_shell(const ExecSpec& spec, CommandSpec& command) {
  if (!no_bash_) {
    command.argv = {"/bin/bash", "-c", spec.command};
    try {
      return run_command(body_.channel, command, spec);
    } catch (const Error& e) {
      // ENOENT of the shell itself, not of the working folder.
      if (e.os_error() != ENOENT || std::string_view(e.what()).find("/bin/bash") == std::string_view::npos)
        throw;
      no_bash_ = true;
    }
  }
  command.argv = {"/bin/sh", "-c", spec.command};
  return run_command(body_.channel, command, spec);
}

/// Tells a command's own failure from the end of the sandbox under it, which then is named with its cause.
void Sandbox::rethrow(const Error& error) {
  if (error.os_error() == EAGAIN && std::string_view(error.what()).find("at once") != std::string_view::npos)
    throw Error(Errc::limit_exceeded, fmt::format("sandbox {} has 512 commands", id()))
        .hint("end some with sandbox_process");
  if (error.os_error() == EAGAIN)  // not even its supervisor could be started
    throw Error(Errc::limit_exceeded, fmt::format("sandbox {} is at its limit of {} processes (pids)", id(),
                                                  described()->limits.pids))
        .hint("sandbox_destroy ends it; sandbox_create with `pids` makes one with more");
  // The channel closes a moment before or after the end of the process is noticed.
  if (error.code() != Errc::unavailable || !wait_until_ended(Clock::now() + 1s)) throw;
  for (const auto deadline = Clock::now() + 1s; running() && Clock::now() < deadline;)
    std::this_thread::sleep_for(1ms);
  throw Error(Errc::unavailable, fmt::format("sandbox {} ended meanwhile: {}", id(), this->cause()))
      .hint("make a new one with sandbox_create, or leave sandbox_id out to use the default sandbox");
}

/// Which limits a command that failed ran into. The kernel counts per sandbox: what it killed while the
/// command ran, and what it refused since the last look, is put down to this command.
void Sandbox::note_limits(uint64_t oom_kills_before, ExecResult& result) {
  if (result.exit_code == 0) return;
  const uint64_t refused = body_.cgroup.pids_refused();
  result.oom_kills = body_.cgroup.oom_kills() - oom_kills_before;
  result.pids_refused = refused - pids_refused_seen_.exchange(refused);
  const bool was_killed = result.signal == SIGKILL || result.exit_code == 128 + SIGKILL;
  if (was_killed && result.oom_kills > 0 && result.end != End::timed_out && result.end != End::cancelled)
    result.end = End::oom_killed;
}

ExecResult Sandbox::exec(const ExecSpec& spec) {
  return during_call([&] {
    const uint32_t number = next_command_++;
    CommandSpec command = command_spec(spec, number);
    const uint64_t oom_kills_before = body_.cgroup.oom_kills();
    Started started =
        spec.argv.empty() ? run_with_shell(spec, command) : run_command(body_.channel, command, spec);
    ExecResult result = std::move(started.result);
    if (result.end != End::running) note_limits(oom_kills_before, result);
    if (result.log_bytes > 0 || started.process) result.log = command.log_path;
    if (started.process)
      go_on(spec, number, oom_kills_before, std::move(started), result);
    else
      count_log(number, result.log_bytes);
    settle();
    return result;
  });
}

EvalResult Sandbox::eval(const EvalSpec& spec) {
  return during_call([&] { return sessions_.eval(*this, spec); });
}

std::shared_ptr<Process> Sandbox::start(const ExecSpec& spec, bool has_input, Process::Sink sink) {
  CommandSpec command = command_spec(spec, 0);
  command.log_path.clear();
  command.has_input = has_input;
  command.timeout = 0ms;  // it ends with its client
  return Process::start(body_.channel, command, std::move(sink), Process::Flow::by_caller);
}

/// With what outlives its call, or ran in a terminal, whose screen is the output.
void Sandbox::go_on(const ExecSpec& spec, uint32_t number, uint64_t oom_kills_before, Started started,
                    ExecResult& result) {
  std::string title = spec.title.empty() ? spec.command : spec.title;
  if (title.empty())
    for (const auto& word : spec.argv) title += (title.empty() ? "" : " ") + word;
  const auto process = std::make_shared<BackgroundProcess>(number, std::move(title), started.process,
                                                           spec.terminal, started.next_unread);
  process->oom_kills_before = oom_kills_before;
  process->hidden = spec.hidden;
  process->counts_as_use = !spec.hidden;
  process->was_cancelled = result.end == End::cancelled;
  process->has_answers = spec.has_answers;
  const bool runs = result.end == End::running || result.left_running > 0;
  if (runs) result.process_id = number;
  const bool listed = runs || process->was_cancelled;
  if (listed) {
    processes_.add(process);
    note_processes();
  }
  try {
    if (spec.terminal && !spec.background && !process->was_cancelled) {
      BoundedOutput screen(spec.output_limit);
      screen.append(text_of(process->view(Clock::now() + kFileTimeout)));
      result.out = screen.text(result.log);
      result.truncated = screen.truncated();
    }
  } catch (...) {
    if (!listed) process->process().close();
    throw;
  }
  if (listed) return;
  process->process().close();
  count_log(number, result.log_bytes);
}

/// Counted when its end is first looked at: what the limit costs later is not its own.
uint64_t Sandbox::oom_kills_of(BackgroundProcess& process) {
  uint64_t unknown = BackgroundProcess::kUnknown;
  process.oom_kills_after.compare_exchange_strong(unknown, body_.cgroup.oom_kills());
  const uint64_t after = process.oom_kills_after;
  return after - std::min(after, process.oom_kills_before);
}

ExecResult Sandbox::result_of(BackgroundProcess& process) {
  const Process::State state = process.process().state();
  ExecResult result;
  result.log = log_path(process.number());
  if (!state.tree_gone) result.process_id = process.number();
  if (!state.exited) {
    result.end = End::running;
    result.duration =
        std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - process.process().started_at());
    return result;
  }
  note_end(state.end, result);
  if (process.was_cancelled) result.end = End::cancelled;
  if (state.tree_gone) result.left_running = 0;
  result.duration = std::chrono::milliseconds(state.end.ran_ms);
  const bool was_killed = result.signal == SIGKILL || result.exit_code == 128 + SIGKILL;
  const uint64_t oom_kills = oom_kills_of(process);
  const bool by_us = result.end == End::timed_out || process.was_signalled || process.was_cancelled;
  if (!by_us && was_killed && oom_kills > 0) {
    result.end = End::oom_killed;
    result.oom_kills = oom_kills;
  }
  return result;
}

/// After every call: what ended meanwhile in the background.
void Sandbox::settle() {
  if (processes_.empty()) return;
  const auto ended = processes_.take_ended();
  for (const auto& [process, log_bytes] : ended) {
    (void)oom_kills_of(*process);
    count_log(process->number(), log_bytes);
  }
  if (!ended.empty()) note_processes();  // older ones may have been forgotten
}

void Sandbox::count_log(uint32_t number, uint64_t bytes) {
  std::vector<std::string> too_old{"rm", "-f", "--"};
  {
    const std::lock_guard lock(mutex_);
    if (bytes == 0) return;
    logs_.emplace_back(number, bytes);
    constexpr size_t kMostAtOnce = 1000;  // names in one command; the rest has its turn after the next one
    for (logs_bytes_ += bytes;
         logs_bytes_ > body_.logs_max_bytes && logs_.size() > 1 && too_old.size() < kMostAtOnce;
         logs_.pop_front()) {
      logs_bytes_ -= logs_.front().second;
      too_old.push_back(log_path(logs_.front().first));
    }
  }
  if (too_old.size() == 3) return;
  CommandSpec remove;
  remove.argv = std::move(too_old);
  remove.env = described()->env;
  remove.workdir = "/";
  ExecSpec call;
  call.timeout = remove.timeout = 10s;
  try {
    (void)run_command(body_.channel, remove, call);
  } catch (const Error& e) {
    log::info("{}: old logs are not removed: {}", body_.id,
              e.what());  // the call that is told now is another
  }
}

bool Sandbox::ping(Clock::time_point deadline) {
  return sandbox::ping(*body_.channel, deadline);
}

void Sandbox::make_folder(const std::string& path) {
  during_call([&] {
    hutch::during(fmt::format("making the working folder {}", path), [&] {
      sandbox::make_folder(*body_.channel, path, described()->user, {Clock::now() + kFileTimeout, {}});
    });
  });
}

FileInfo Sandbox::read_file(const std::string& path, uint64_t max_bytes,
                            const std::function<bool(std::string_view)>& sink, std::stop_token stop) {
  return during_call([&] {
    return sandbox::read_file(*body_.channel, absolute(path), max_bytes, sink,
                              {Clock::now() + kFileTimeout, stop});
  });
}

FileInfo Sandbox::write_file(const std::string& path, std::string_view content, const WriteOptions& options,
                             std::stop_token stop) {
  return during_call([&] {
    WriteOptions owned = options;
    owned.user = described()->user;
    return sandbox::write_file(*body_.channel, absolute(path), content, owned,
                               {Clock::now() + kFileTimeout, stop});
  });
}

void Sandbox::list_files(const std::string& path, uint32_t depth,
                         const std::function<bool(const FileEntry&)>& visit, std::stop_token stop) {
  during_call([&] {
    sandbox::list_files(*body_.channel, absolute(path), depth, visit, {Clock::now() + kFileTimeout, stop});
  });
}

Usage Sandbox::usage() const {
  return {body_.cgroup.usage(),
          runtime::layer_bytes(body_.folder, body_.container.pid, body_.container.disk)};
}

GuardedDisk Sandbox::disk() const {
  return {.id = body_.id,
          .disk = body_.container.disk,
          .agent = body_.container.pid,
          .image = runtime::layer_image(body_.folder)};
}

void Sandbox::look_for_lost_writes() noexcept {
  if (body_.container.disk && !lost_writes_ && runtime::has_lost_writes(body_.container.pid))
    lost_writes_ = true;
}

std::string Sandbox::damage() const {
  if (!lost_writes_) return {};
  return fmt::format(
      "the host's disk was full: some of what was written in sandbox {} is lost, and reads as zeros", id());
}

WallClock::time_point Sandbox::last_used() const {
  const std::lock_guard lock(mutex_);
  return last_used_wall_;
}

std::optional<WallClock::time_point> Sandbox::expires_at() const {
  const auto about = described();
  return about->has_end() ? std::optional(about->expires_at) : std::nullopt;
}

Clock::time_point Sandbox::last_activity() {
  const auto about = described();
  Clock::time_point in_background{};
  if (!processes_.empty()) {
    body_.channel->drain();  // nobody may have read that they have ended
    in_background = processes_.last_activity(about->background_keeps_alive);
  }
  const std::lock_guard lock(mutex_);
  return active_calls_ > 0 ? Clock::now() : std::max(last_used_, in_background);
}

std::optional<Clock::time_point> Sandbox::ends_at() {
  const auto about = described();
  std::optional<Clock::time_point> when;
  {
    const std::lock_guard lock(mutex_);
    when = lifetime_ends_at_;
  }
  if (about->idle_timeout > 0s) {
    const auto idle_end = last_activity() + about->idle_timeout;
    if (!when || idle_end < *when) when = idle_end;
  }
  return when;
}

}  // namespace hutch::sandbox
