#include "sandbox/process_table.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "sandbox/output.h"

namespace hutch::sandbox {

using namespace std::chrono_literals;

BackgroundProcess::BackgroundProcess(uint32_t number, std::string title, std::shared_ptr<Process> process,
                                     std::optional<TerminalSize> terminal, uint64_t next_unread)
    : number_(number),
      process_(std::move(process)),
      size_(terminal),
      title_(std::move(title)),
      next_unread_(next_unread) {
  if (terminal) terminal_.emplace(terminal->rows, terminal->columns);
}

std::string BackgroundProcess::title() const {
  const std::lock_guard lock(mutex_);
  return title_;
}

void BackgroundProcess::set_title(std::string title) {
  const std::lock_guard lock(mutex_);
  title_ = std::move(title);
}

KeptProcess BackgroundProcess::kept() const {
  const auto age =
      std::chrono::duration_cast<std::chrono::system_clock::duration>(Clock::now() - process_->started_at());
  return {.stream = process_->stream(),
          .number = number_,
          .title = title(),
          .terminal = size_,
          .hidden = hidden,
          .counts_as_use = counts_as_use,
          .has_answers = has_answers,
          .was_cancelled = was_cancelled,
          .started_at = std::chrono::system_clock::now() - age,
          .oom_kills_before = oom_kills_before,
          .next_unread = next_unread(),
          .session = std::nullopt};
}

uint64_t BackgroundProcess::next_unread() const {
  const std::lock_guard lock(mutex_);
  return next_unread_;
}

void BackgroundProcess::set_next_unread(uint64_t place) {
  const std::lock_guard lock(mutex_);
  next_unread_ = place;
}

Process::Piece BackgroundProcess::read(std::optional<uint64_t> from, size_t max_bytes,
                                       Clock::time_point deadline) {
  const std::lock_guard one_at_a_time(read_mutex_);  // or two readers would get the same
  const bool ended = process_->state().tree_gone;
  Process::Piece piece = process_->read(from.value_or(next_unread()), max_bytes, deadline);
  const bool at_end = piece.first + piece.bytes.size() >= piece.printed;
  if (!at_end || !ended) {
    const size_t whole = whole_characters(piece.bytes);
    if (whole > 0)
      piece.bytes.resize(whole);
    else if (at_end)
      piece.bytes.clear();
  }
  set_next_unread(piece.first + piece.bytes.size());
  return piece;
}

/// A terminal takes some 10 MB/s, a program prints more. What comes while it takes is for the next time, and
/// of much it takes the first, in which a program sets its modes, and the last.
void BackgroundProcess::feed(Clock::time_point deadline) {
  constexpr size_t kPiece = 256 << 10;
  constexpr uint64_t kLast = 512 << 10;
  constexpr std::string_view kCancel = "\x18";  // of a control sequence that the gap cut
  const uint64_t printed = process_->read(UINT64_MAX, 1, deadline).printed;
  for (bool first = true; fed_ < printed; first = false) {
    const uint64_t from = first || printed - fed_ <= kLast ? fed_ : printed - kLast;
    const Process::Piece piece = process_->read(from, kPiece, deadline);
    if (piece.first > fed_) (void)terminal_->feed(kCancel);
    skipped_ += piece.first - fed_;
    const std::string answer = terminal_->feed(piece.bytes);
    fed_ = piece.first + piece.bytes.size();
    // A program that does not read its terminal misses the answer; it does not hold us up.
    if (!answer.empty() && !process_->state().exited) process_->write(answer, {}, Clock::now() + 100ms);
    if (piece.bytes.empty()) break;
  }
}

BackgroundProcess::View BackgroundProcess::view(Clock::time_point deadline) {
  const std::lock_guard lock(terminal_mutex_);
  feed(deadline);
  set_next_unread(fed_);
  return {terminal_->screen(), terminal_->take_scrolled(), std::exchange(skipped_, 0)};
}

std::string BackgroundProcess::keys(std::string_view text, Clock::time_point deadline) {
  const std::lock_guard lock(terminal_mutex_);
  feed(deadline);  // what a key sends depends on modes that the program sets
  return terminal_->keys(text);
}

std::string text_of(const BackgroundProcess::View& view) {
  std::string text;
  if (view.skipped_bytes > 0) text += fmt::format("[... {} bytes not shown ...]\n", view.skipped_bytes);
  if (view.scrolled.dropped > 0) text += fmt::format("[... {} lines above ...]\n", view.scrolled.dropped);
  for (const auto* lines : {&view.scrolled.lines, &view.screen.lines})
    for (const std::string& line : *lines) text += line + "\n";
  return text;
}

void ProcessTable::add(std::shared_ptr<BackgroundProcess> process) {
  const std::lock_guard lock(mutex_);
  const uint32_t number = process->number();
  entries_[number] = {std::move(process)};
}

std::shared_ptr<BackgroundProcess> ProcessTable::find(uint32_t number) const {
  const std::lock_guard lock(mutex_);
  if (const auto it = entries_.find(number); it != entries_.end()) return it->second.process;
  std::vector<uint32_t> numbers;
  for (const auto& [known, _] : entries_) numbers.push_back(known);
  throw Error(Errc::not_found, fmt::format("there is no process {}", number))
      .hint(numbers.empty()
                ? "no command of this sandbox runs in the background"
                : fmt::format("there are {}; action `list` tells more", fmt::join(numbers, ", ")));
}

std::vector<std::shared_ptr<BackgroundProcess>> ProcessTable::list() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<BackgroundProcess>> all;
  for (const auto& [_, entry] : entries_)
    if (!entry.process->hidden) all.push_back(entry.process);
  return all;
}

std::vector<std::shared_ptr<BackgroundProcess>> ProcessTable::all() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<BackgroundProcess>> all;
  for (const auto& [_, entry] : entries_) all.push_back(entry.process);
  return all;
}

bool ProcessTable::empty() const {
  const std::lock_guard lock(mutex_);
  return entries_.empty();
}

bool ProcessTable::any_running() const {
  const std::lock_guard lock(mutex_);
  return std::ranges::any_of(entries_, [](const auto& entry) {
    BackgroundProcess& process = *entry.second.process;
    return process.counts_as_use && process.process().running();
  });
}

std::vector<std::pair<std::shared_ptr<BackgroundProcess>, uint64_t>> ProcessTable::take_ended() {
  std::vector<std::pair<std::shared_ptr<BackgroundProcess>, uint64_t>> told;
  std::vector<std::shared_ptr<BackgroundProcess>> forgotten;
  {
    const std::lock_guard lock(mutex_);
    size_t ended = 0;
    for (auto& [number, entry] : entries_) {
      const Process::State state = entry.process->process().state();
      if (!state.tree_gone) continue;
      ++ended;
      if (std::exchange(entry.end_told, true)) continue;
      told.emplace_back(entry.process, state.end.log_bytes);
    }
    for (auto it = entries_.begin(); ended > kMaxEnded && it != entries_.end();) {
      if (!it->second.end_told) {
        ++it;
        continue;
      }
      forgotten.push_back(std::move(it->second.process));
      it = entries_.erase(it);
      --ended;
    }
  }
  for (const auto& process : forgotten) process->process().close();
  return told;
}

Clock::time_point ProcessTable::last_activity(Clock::duration keeps_alive) const {
  const std::lock_guard lock(mutex_);
  Clock::time_point last{};
  for (const auto& [_, entry] : entries_) {
    if (!entry.process->counts_as_use) continue;
    const Process& process = entry.process->process();
    const Process::State state = process.state();
    auto end = std::min<Clock::time_point>(Clock::now(), process.started_at() + keeps_alive);
    if (state.tree_gone) end = process.started_at() + std::chrono::milliseconds(state.end.ran_ms);
    last = std::max(last, end);
  }
  return last;
}

}  // namespace hutch::sandbox
