#include "mcp/tasks.h"

#include <algorithm>
#include <charconv>

#include "base/sys.h"

namespace hutch::mcp {

namespace {

constexpr size_t kIdBytes = 16;
constexpr size_t kPage = 100;

std::chrono::milliseconds since(Tasks::Clock::time_point start, Tasks::Clock::time_point end) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(end - start);
}

size_t bytes_of(const Answer& outcome) {
  const auto* result = std::get_if<ordered_json>(&outcome);
  return result == nullptr ? 0 : rpc::to_line(*result).size();
}

}  // namespace

Task Tasks::add(Revision revision, std::optional<std::chrono::milliseconds> ttl) {
  const auto time = std::chrono::system_clock::now();
  Entry entry;
  entry.task = {.id = sys::random_hex(kIdBytes),
                .revision = revision,
                .message = {},
                .questions = {},
                .created = time,
                .updated = time,
                .ttl = {},
                .outcome = {}};
  entry.keep = std::min(ttl.value_or(limits_.default_ttl), limits_.max_ttl);
  const std::lock_guard lock(mutex_);
  forget_expired();
  entry.created = now_();
  entry.serial = ++last_serial_;
  const std::string id = entry.task.id;
  return snapshot(entries_.emplace(id, std::move(entry)).first->second);
}

void Tasks::note(std::string_view id, std::string_view message) {
  const std::lock_guard lock(mutex_);
  Entry* entry = entry_of(id);
  if (entry == nullptr || entry->ended || entry->task.cancelled) return;
  entry->task.message = message;
  entry->task.updated = std::chrono::system_clock::now();
}

void Tasks::asking(std::string_view id, const std::string& question, ordered_json elicitation) {
  const std::lock_guard lock(mutex_);
  Entry* entry = entry_of(id);
  if (entry == nullptr || entry->ended || entry->task.cancelled) return;
  entry->task.questions.emplace(question, std::move(elicitation));
  entry->task.updated = std::chrono::system_clock::now();
}

void Tasks::answered(std::string_view id, const std::string& question) {
  const std::lock_guard lock(mutex_);
  Entry* entry = entry_of(id);
  if (entry == nullptr || entry->task.questions.erase(question) == 0 || entry->task.cancelled) return;
  entry->task.updated = std::chrono::system_clock::now();
}

void Tasks::finish(std::string_view id, Answer outcome) {
  const size_t bytes = bytes_of(outcome);
  auto kept = std::make_shared<const Answer>(std::move(outcome));
  std::vector<Waiting> waiters;
  std::optional<Task> task;
  {
    const std::lock_guard lock(mutex_);
    Entry* entry = entry_of(id);
    if (entry == nullptr || entry->ended) return;
    entry->ended = now_();
    entry->bytes = bytes;
    entry->task.outcome = std::move(kept);
    if (!entry->task.cancelled) entry->task.updated = std::chrono::system_clock::now();
    task = snapshot(*entry);
    waiters = take_waiters(id);
    make_room(*entry);
  }
  for (const Waiting& waiting : waiters) waiting.waiter(*task);
}

std::optional<Task> Tasks::find(Revision revision, std::string_view id) {
  const std::lock_guard lock(mutex_);
  forget_expired();
  const Entry* entry = entry_of(revision, id);
  return entry == nullptr ? std::nullopt : std::optional(snapshot(*entry));
}

void Tasks::delivered(std::string_view id) {
  const std::lock_guard lock(mutex_);
  if (Entry* entry = entry_of(id)) entry->delivered = true;
}

std::optional<Tasks::Cancelled> Tasks::cancel(Revision revision, std::string_view id) {
  const std::lock_guard lock(mutex_);
  forget_expired();
  Entry* entry = entry_of(revision, id);
  if (entry == nullptr) return std::nullopt;
  const bool worked = !entry->ended && !entry->task.cancelled;
  if (worked) {
    entry->task.cancelled = true;
    entry->task.updated = std::chrono::system_clock::now();
  }
  return Cancelled{snapshot(*entry), worked};
}

bool Tasks::when_ended(Revision revision, std::string_view id, const void* key, Waiter waiter) {
  std::optional<Task> ended;
  {
    const std::lock_guard lock(mutex_);
    forget_expired();
    const Entry* entry = entry_of(revision, id);
    if (entry == nullptr) return false;
    if (entry->ended)
      ended = snapshot(*entry);
    else
      waiting_.push_back({std::string(id), key, std::move(waiter)});
  }
  if (ended) waiter(*ended);
  return true;
}

bool Tasks::stop_waiting(const void* key) {
  const std::lock_guard lock(mutex_);
  return std::erase_if(waiting_, [&](const Waiting& waiting) { return waiting.key == key; }) > 0;
}

std::optional<Tasks::Page> Tasks::list(Revision revision, std::string_view cursor) {
  uint64_t after = 0;
  const auto parsed = std::from_chars(cursor.data(), cursor.data() + cursor.size(), after);
  const bool whole = parsed.ec == std::errc() && parsed.ptr == cursor.data() + cursor.size();
  if (!cursor.empty() && !whole) return std::nullopt;
  const std::lock_guard lock(mutex_);
  if (after > last_serial_) return std::nullopt;
  forget_expired();
  std::vector<const Entry*> found;
  for (const auto& [id, entry] : entries_)
    if (entry.task.revision == revision && entry.serial > after) found.push_back(&entry);
  std::sort(found.begin(), found.end(), [](const Entry* a, const Entry* b) { return a->serial < b->serial; });
  Page page;
  if (found.size() > kPage) {
    found.resize(kPage);
    page.next = std::to_string(found.back()->serial);
  }
  for (const Entry* entry : found) page.tasks.push_back(snapshot(*entry));
  return page;
}

Tasks::Entry* Tasks::entry_of(std::string_view id) {
  const auto it = entries_.find(id);
  return it == entries_.end() ? nullptr : &it->second;
}

Tasks::Entry* Tasks::entry_of(Revision revision, std::string_view id) {
  Entry* entry = entry_of(id);
  return entry != nullptr && entry->task.revision == revision ? entry : nullptr;
}

Task Tasks::snapshot(const Entry& entry) const {
  Task out = entry.task;
  // Both revisions count from the creation, and both let the value grow.
  out.ttl = since(entry.created, entry.ended.value_or(now_())) + entry.keep;
  return out;
}

void Tasks::forget_expired() {
  const auto now = now_();
  std::erase_if(entries_, [&](const auto& item) {
    const Entry& entry = item.second;
    return entry.ended && now - *entry.ended >= entry.keep;
  });
}

void Tasks::make_room(const Entry& newest) {
  for (;;) {
    size_t count = 0, bytes = 0;
    auto first = entries_.end();
    for (auto it = entries_.begin(); it != entries_.end(); ++it) {
      const Entry& entry = it->second;
      if (!entry.ended) continue;
      ++count;
      bytes += entry.bytes;
      if (&entry == &newest) continue;
      const auto rank = [](const Entry& e) { return std::pair(!e.delivered, *e.ended); };
      if (first == entries_.end() || rank(entry) < rank(first->second)) first = it;
    }
    if ((count <= limits_.kept && bytes <= limits_.kept_bytes) || first == entries_.end()) return;
    entries_.erase(first);
  }
}

std::vector<Tasks::Waiting> Tasks::take_waiters(std::string_view id) {
  const auto split = std::stable_partition(waiting_.begin(), waiting_.end(),
                                           [&](const Waiting& waiting) { return waiting.id != id; });
  std::vector<Waiting> out(std::make_move_iterator(split), std::make_move_iterator(waiting_.end()));
  waiting_.erase(split, waiting_.end());
  return out;
}

}  // namespace hutch::mcp
