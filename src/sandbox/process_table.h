#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "sandbox/process.h"
#include "sandbox/terminal.h"

namespace hutch::sandbox {

struct KeptSession {
  std::string language, name;
  bool split = false;
};

/// What another server must know to take up a command that outlived its call; the rest its agent tells.
struct KeptProcess {
  uint32_t stream = 0, number = 0;  // at the agent; of ours
  std::string title;
  std::optional<TerminalSize> terminal;
  bool hidden = false, counts_as_use = true, has_answers = false, was_cancelled = false;
  std::chrono::system_clock::time_point started_at;
  uint64_t oom_kills_before = 0, next_unread = 0;
  std::optional<KeptSession> session;  // of which it is the interpreter
};

/// A command that outlived its call: who it is, and how far its output was read.
class BackgroundProcess {
 public:
  BackgroundProcess(uint32_t number, std::string title, std::shared_ptr<Process> process,
                    std::optional<TerminalSize> terminal, uint64_t next_unread = 0);

  uint32_t number() const { return number_; }
  std::string title() const;
  void set_title(std::string title);
  Process& process() { return *process_; }
  bool has_terminal() const { return terminal_.has_value(); }
  KeptProcess kept() const;

  std::atomic<bool> was_signalled{false};  // by a caller
  bool has_answers = false;                // of an interpreter, in what it prints
  bool was_cancelled = false;              // its call was, and it with that
  std::atomic<bool> hidden{false};         // not in lists
  bool counts_as_use = true;               // while it runs, the sandbox is not idle
  static constexpr uint64_t kUnknown = UINT64_MAX;
  uint64_t oom_kills_before = 0;                    // of the sandbox, when it was started
  std::atomic<uint64_t> oom_kills_after{kUnknown};  // and when it was first seen to have ended

  /// Where the next read without a place begins.
  uint64_t next_unread() const;
  /// At most `max_bytes` from `from` on, without it from where the last read ended. While it runs, a
  /// character of which only a part is there is left for the next time.
  Process::Piece read(std::optional<uint64_t> from, size_t max_bytes, Clock::time_point deadline);

  /// The terminal with all that was printed so far, and what scrolled off its top since the last call.
  struct View {
    Screen screen;
    Scrolled scrolled;
    uint64_t skipped_bytes = 0;  // of much output, since the last call
  };
  View view(Clock::time_point deadline);
  /// What its keyboard sends for these keys.
  std::string keys(std::string_view text, Clock::time_point deadline);

 private:
  void set_next_unread(uint64_t place);
  void feed(Clock::time_point deadline);  // with terminal_mutex_ held

  const uint32_t number_;
  const std::shared_ptr<Process> process_;
  const std::optional<TerminalSize> size_;  // of its terminal, at the start
  mutable std::mutex mutex_;
  std::string title_;
  uint64_t next_unread_;
  std::mutex read_mutex_, terminal_mutex_;
  std::optional<Terminal> terminal_;
  uint64_t fed_ = 0, skipped_ = 0;  // bytes that the terminal has seen, has missed since the last view
};

/// The lines that scrolled off and those of the screen.
std::string text_of(const BackgroundProcess::View& view);

/// The commands of a sandbox that outlived their calls. Thread-safe. Of those that have ended the latest are
/// kept.
class ProcessTable {
 public:
  static constexpr size_t kMaxEnded = 64;

  void add(std::shared_ptr<BackgroundProcess> process);
  /// Throws not_found, which names those there are.
  std::shared_ptr<BackgroundProcess> find(uint32_t number) const;
  /// Those that are not hidden.
  std::vector<std::shared_ptr<BackgroundProcess>> list() const;
  std::vector<std::shared_ptr<BackgroundProcess>> all() const;
  bool empty() const;
  /// One whose running counts as use of the sandbox.
  bool any_running() const;

  /// Those whose end was not told before, with the bytes of their logs. Forgets the oldest that have ended.
  std::vector<std::pair<std::shared_ptr<BackgroundProcess>, uint64_t>> take_ended();
  /// When the last one ended, as far as is known: now while one runs that was started less than this ago.
  Clock::time_point last_activity(Clock::duration keeps_alive) const;

 private:
  struct Entry {
    std::shared_ptr<BackgroundProcess> process;
    bool end_told = false;
  };
  mutable std::mutex mutex_;
  std::map<uint32_t, Entry> entries_;
};

}  // namespace hutch::sandbox
