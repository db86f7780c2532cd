#include "sandbox/manager.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"

/// What becomes of sandboxes without a call: ends, pauses, the guard of the disk.
namespace hutch::sandbox {

using namespace std::chrono_literals;

namespace {

constexpr auto kDiskInterval = 1s;  // a disk fills at some GB/s

}  // namespace

/// Ends what is over its time and returns when to look again. Without the lock: an end drops what is not
/// written yet.
Clock::time_point Manager::end_overdue(const std::vector<std::shared_ptr<Sandbox>>& sandboxes) {
  auto next = Clock::now() + 1h;
  for (const auto& sandbox : sandboxes) {
    if (!sandbox->running()) continue;
    const auto end = sandbox->ends_at();
    if (end && *end <= Clock::now()) {
      const Description about = sandbox->about();
      sandbox->end(about.is_over() ? lifetime_was_over(about)
                                   : fmt::format("it was not used for {} s", about.idle_timeout.count()));
    } else if (end) {
      next = std::min(next, *end);
    }
  }
  return next;
}

/// Freezes those that nobody has used for as long as they say, and returns when to look again. Without the
/// lock: the kernel may take a while.
Clock::time_point Manager::pause_idle(const std::vector<std::shared_ptr<Sandbox>>& sandboxes) {
  constexpr auto kBusyAgain = 1s;  // a look at one that runs something costs little
  auto next = Clock::now() + 1h;
  for (const auto& sandbox : sandboxes) {
    const auto pause_after = sandbox->about().pause_after;
    if (pause_after == 0s || !sandbox->running()) continue;
    try {
      const auto left = sandbox->pause_when_idle(pause_after);
      if (left != Clock::duration::zero()) next = std::min(next, Clock::now() + left.value_or(kBusyAgain));
    } catch (const Error& e) {
      log::warning("{} cannot be paused: {}", sandbox->id(), e.what());
      next = std::min(next, Clock::now() + pause_after);
    }
  }
  return next;
}

/// Without the lock: it opens file systems.
void Manager::guard_disk(const std::vector<std::shared_ptr<Sandbox>>& sandboxes) {
  std::vector<GuardedDisk> disks;
  std::map<std::string, GuardedDisk> volumes;
  for (const auto& sandbox : sandboxes) {
    if (!sandbox->running()) continue;
    disks.push_back(sandbox->disk());
    for (const auto& volume : sandbox->about().volumes)
      if (volume.disk)
        volumes[volume.name] = {.id = "volume " + volume.name,
                                .disk = volume.disk,
                                .image = builder_.volumes().disk_file(volume.name),
                                .is_volume = true};
  }
  for (auto& [_, volume] : volumes) disks.push_back(std::move(volume));
  const bool was_closed = disk_guard_.closed();
  try {
    if (disk_guard_.look(disks).closed || was_closed)
      for (const auto& sandbox : sandboxes) sandbox->look_for_lost_writes();
  } catch (const Error& e) {
    log::warning("the disk cannot be watched: {}", e.what());
  }
}

void Manager::housekeep(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    look_again_ = false;
    next_look_ = Clock::time_point::max();  // while it looks, whoever comes has it look once more
    while (!to_remove_.empty()) {
      const std::string id = std::move(to_remove_.front());
      to_remove_.pop_front();
      lock.unlock();
      remove(id);
      lock.lock();
    }
    if (collect_) {
      lock.unlock();
      collect_layers();
      lock.lock();
    }
    std::vector<std::shared_ptr<Sandbox>> whole, claimed;
    for (const auto& [_, entry] : entries_) {
      auto sandbox = entry->whole();
      if (!sandbox) continue;
      if (entry->published) claimed.push_back(sandbox);
      whole.push_back(std::move(sandbox));
    }
    auto next = Clock::now() + 1h;
    if (!whole.empty() || disk_guard_.closed()) {
      lock.unlock();
      next = std::min({end_overdue(claimed), pause_idle(claimed), Clock::now() + kDiskInterval});
      guard_disk(whole);
      reap_orphans();  // a runtime's helper that ended after its sandbox had answered
      whole.clear();
      claimed.clear();
      lock.lock();
    }
    next_look_ = next;
    changed_.wait_until(lock, stop, next_look_, [&] { return look_again_ || !to_remove_.empty(); });
  }
}

}  // namespace hutch::sandbox
