#include <algorithm>
#include <charconv>
#include <set>

#include "base/log.h"
#include "sandbox/sandbox.h"

namespace hutch::sandbox {

using namespace std::chrono_literals;

namespace {

/// Above this a number is none that we gave: names of files inside are theirs.
constexpr uint32_t kMaxCommandNumber = 1'000'000'000;
constexpr size_t kMaxLogs = 100'000;
constexpr uint64_t kMaxAgeMs = 1'000'000'000'000;

/// 0 when it is no log of a command.
uint32_t number_of_log(std::string_view name) {
  constexpr std::string_view kEnding = ".log";
  if (!name.ends_with(kEnding)) return 0;
  name.remove_suffix(kEnding.size());
  uint32_t number = 0;
  const auto [end, err] = std::from_chars(name.data(), name.data() + name.size(), number);
  return err == std::errc() && end == name.data() + name.size() && number <= kMaxCommandNumber ? number : 0;
}

Clock::time_point steady(WallClock::time_point when) {
  return Clock::now() - std::max<WallClock::duration>(WallClock::now() - when, 0s);
}

}  // namespace

std::vector<KeptProcess> Sandbox::kept_processes() const {
  std::vector<KeptProcess> all;
  for (const auto& process : processes_.all()) {
    all.push_back(process->kept());
    sessions_.describe(all.back());
  }
  return all;
}

void Sandbox::note_processes() const {
  if (hooks_.on_processes_change) hooks_.on_processes_change();
}

void Sandbox::restore(Kept kept, uint64_t orphan_ttl_ms, Clock::time_point deadline) {
  wire::Hello hello{.orphan_ttl_ms = orphan_ttl_ms, .ends_in_ms = 0};
  {
    const auto expires_at = kept.description.expires_at;
    const std::lock_guard lock(mutex_);
    if (kept.description.has_end()) {
      const auto left =
          std::max(std::chrono::ceil<std::chrono::milliseconds>(expires_at - WallClock::now()), 1ms);
      hello.ends_in_ms = static_cast<uint64_t>(left.count());
      lifetime_ends_at_ = Clock::now() + left;
    }
    last_used_ = steady(kept.last_used);
    last_used_wall_ = kept.last_used;
  }
  const auto created_at = kept.description.created_at;
  describe(std::move(kept.description));
  pids_refused_seen_ = body_.cgroup.pids_refused();
  std::map<uint32_t, KeptProcess> known;
  for (auto& process : kept.processes) {
    next_command_ = std::max<uint32_t>(next_command_, process.number + 1);
    known.emplace(process.stream, std::move(process));
  }
  body_.channel->connect(hello, deadline, [&](uint32_t stream, const wire::Started& started) {
    return take_up(known, stream, started, created_at);
  });
  for (const auto& process : processes_.all()) process->process().end_relay();
  // Behind all that the agent has to tell of them.
  if (!ping(deadline)) throw Error(Errc::timeout, "the sandbox's agent does not answer");
  restore_logs(deadline);
}

/// What becomes of a command of the server before; nullptr when it is ended.
std::shared_ptr<Process> Sandbox::take_up(const std::map<uint32_t, KeptProcess>& known, uint32_t stream,
                                          const wire::Started& started, WallClock::time_point created_at) {
  using State = wire::Started;
  const auto has = [&](uint8_t state) { return (started.state & state) != 0; };
  const auto it = known.find(stream);
  const auto age = std::chrono::milliseconds(std::min(started.age_ms, kMaxAgeMs));
  // The server was killed before it could note it.
  KeptProcess kept{.stream = stream,
                   .number = started.number,
                   .title = "a command of the server before",
                   .started_at = std::max(WallClock::now() - age, created_at),
                   .oom_kills_before = body_.cgroup.oom_kills()};
  if (has(State::kTerminal)) kept.terminal.emplace();
  if (it != known.end()) kept = it->second;
  // An interpreter at work may have got a half of its code.
  const bool lost_interpreter = kept.hidden || (kept.session && has(State::kRelayed));
  if (!has(State::kKept) || lost_interpreter) {
    body_.channel->send(wire::Type::end_tree, stream, wire::EndTree{wire::kGraceMs});
    body_.channel->send_bytes(wire::Type::forget, stream);
    return nullptr;
  }
  const auto taken = processes_.all();
  const bool free =
      std::ranges::none_of(taken, [&](const auto& other) { return other->number() == kept.number; });
  if (!free || kept.number == 0 || kept.number > kMaxCommandNumber) kept.number = next_command_;
  next_command_ = std::max<uint32_t>(next_command_, kept.number + 1);
  auto process = Process::adopt(body_.channel, stream, started, steady(kept.started_at));
  const auto background =
      std::make_shared<BackgroundProcess>(kept.number, kept.title, process, kept.terminal, kept.next_unread);
  background->has_answers = kept.has_answers;
  background->was_cancelled = kept.was_cancelled;
  background->counts_as_use = kept.counts_as_use;
  background->oom_kills_before = kept.oom_kills_before;
  processes_.add(background);
  if (kept.session) sessions_.restore(*kept.session, background);
  return process;
}

/// Numbers go on above those that have a log already: a new one would not replace it.
void Sandbox::restore_logs(Clock::time_point deadline) {
  std::set<uint32_t> counted_later;  // at their end
  for (const auto& process : processes_.all()) counted_later.insert(process->number());
  std::map<uint32_t, uint64_t> logs;
  try {
    sandbox::list_files(*body_.channel, std::string(kLogFolder), 1,
                        [&](const FileEntry& entry) {
                          if (const uint32_t number = number_of_log(entry.path); number != 0)
                            logs[number] = std::min(entry.size, body_.log_max_bytes);
                          return logs.size() < kMaxLogs;
                        },
                        {deadline, {}});
  } catch (const Error& e) {
    if (e.os_error() == ENOENT) return;  // nothing was printed yet
    log::info("{}: old logs are not counted: {}", body_.id, e.what());
  }
  const std::lock_guard lock(mutex_);
  for (const auto& [number, bytes] : logs) {
    next_command_ = std::max<uint32_t>(next_command_, number + 1);
    if (counted_later.contains(number)) continue;
    logs_.emplace_back(number, bytes);
    logs_bytes_ += bytes;
  }
}

}  // namespace hutch::sandbox
