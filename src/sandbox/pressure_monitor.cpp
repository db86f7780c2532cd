#include "sandbox/pressure_monitor.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "base/log.h"

namespace hutch::sandbox {

using namespace std::chrono_literals;

namespace {

/// What the kernel frees of a sandbox that was ended shows a moment later.
constexpr int kTicksBetweenEnds = 3;

}  // namespace

std::optional<std::string> PressureStatus::done_to(const std::string& id) const {
  const auto done = sandboxes.find(id);
  if (done == sandboxes.end()) return std::nullopt;
  return fmt::format("memory pressure is {}, {}: throttled to {}{}", name_of(level), figures.text(),
                     done->second.text, done->second.frozen ? "; frozen until its next call" : "");
}

PressureSettings pressure_settings(const config::Pressure& pressure) {
  const auto band = [](const config::PressureEdges& level) {
    return PressureBand{level.enter, level.leave, level.psi};
  };
  return {.enabled = pressure.enabled,
          .bands = {.warning = band(pressure.warning),
                    .high = band(pressure.high),
                    .critical = band(pressure.critical),
                    .emergency = band(pressure.emergency),
                    .min_stay = std::chrono::seconds(pressure.min_stay_s)},
          .floor_bytes = pressure.floor.value,
          .interval = std::chrono::milliseconds(pressure.interval_ms)};
}

PressureMonitor::PressureMonitor(PressureSettings settings, PressureHooks hooks)
    : settings_(std::move(settings)), hooks_(std::move(hooks)), gauge_(settings_.bands) {
  status_.since = Clock::now();
}

void PressureMonitor::wake() {
  if (!settings_.enabled) return;
  const std::lock_guard lock(mutex_);
  if (woken_up_ || stopped_) return;
  woken_up_ = true;
  if (!watcher_.joinable()) watcher_ = std::jthread([this](const std::stop_token& stop) { watch(stop); });
  changed_.notify_all();
}

void PressureMonitor::stop() noexcept {
  const std::lock_guard lock(mutex_);
  stopped_ = true;
  watcher_.request_stop();
}

PressureStatus PressureMonitor::status() const {
  const std::lock_guard lock(mutex_);
  return status_;
}

void PressureMonitor::note(std::string action) {
  log::info("memory pressure: {}", action);
  const std::lock_guard lock(mutex_);
  status_.last_action = std::move(action);
}

/// Reads the figures and notes what they mean.
PressureLevel PressureMonitor::look() {
  const PressureFigures figures = hooks_.figures();
  const std::lock_guard lock(mutex_);
  looked_at_ = Clock::now();
  status_.figures = figures;
  const PressureLevel before = status_.level;
  status_.level = gauge_.next(figures, looked_at_);
  if (status_.level == before) return before;
  status_.since = looked_at_;
  log::warning("memory pressure is {} after {}: {}", name_of(status_.level), name_of(before), figures.text());
  return status_.level;
}

void PressureMonitor::admit() {
  if (!settings_.enabled) return;
  {
    const std::lock_guard lock(mutex_);
    if (status_.level < PressureLevel::critical && Clock::now() - looked_at_ < 2 * settings_.interval) return;
  }
  // Nobody looks while there is no sandbox, and what refuses must be true now.
  if (look() < PressureLevel::critical) return;
  const std::lock_guard lock(mutex_);
  const auto wait = std::max<Clock::duration>(gauge_.stays_until() - Clock::now(), settings_.interval);
  status_.last_refusal = fmt::format("memory pressure is {}: {}, so no sandbox is made now",
                                     name_of(status_.level), status_.figures.text());
  throw Error(Errc::unavailable, status_.last_refusal)
      .hint(fmt::format("try again in {} s; it is over when {:.0f} % are available. sandbox_destroy of one "
                        "that is not needed helps",
                        std::chrono::ceil<std::chrono::seconds>(wait).count(),
                        settings_.bands.critical.leave));
}

void PressureMonitor::apply(const PressurePlan& plan) {
  const auto before = status().sandboxes;
  auto wanted = plan.squeezed;
  for (const auto& [id, _] : before) wanted.try_emplace(id);  // back to what it asked for
  std::map<std::string, PressureStatus::Done> done;
  for (const auto& [id, squeeze] : wanted) {
    try {
      const auto applied = hooks_.squeeze(id, squeeze);
      if (squeeze != Squeeze{}) done[id] = {squeeze, applied.frozen, applied.text};
    } catch (const Error& e) {
      log::warning("memory pressure: {}: {}", id, error_text(e));
      done[id] = {squeeze, false, e.what()};  // again at the next look
    }
  }
  if (done.empty() != before.empty())
    note(done.empty() ? "all sandboxes have their own limits again"
                      : fmt::format("{} sandboxes are throttled", done.size()));
  const std::lock_guard lock(mutex_);
  status_.sandboxes = std::move(done);
}

void PressureMonitor::end_worst(const PressurePlan& plan, const PressureFigures& figures) {
  if (!plan.worst || ++ticks_since_end_ < kTicksBetweenEnds) return;
  ticks_since_end_ = 0;
  hooks_.end(*plan.worst, fmt::format("it was ended because the host ran out of memory: {}", figures.text()));
  note(fmt::format("{} was ended: {}", *plan.worst, figures.text()));
}

void PressureMonitor::tick() {
  const PressureLevel level = look();
  const PressureStatus seen = status();
  const bool drain = level >= PressureLevel::warning;
  if (drain != seen.warm_drained) {
    hooks_.drain_warm(drain, fmt::format("memory pressure is {}", name_of(level)));
    note(drain ? "warm sandboxes are drained" : "warm sandboxes are kept again");
    const std::lock_guard lock(mutex_);
    status_.warm_drained = drain;
  }
  if (level != PressureLevel::emergency) ticks_since_end_ = kTicksBetweenEnds;  // the first one at once
  if (level < PressureLevel::high && seen.sandboxes.empty()) return;
  const PressurePlan plan =
      plan_pressure(level, seen.figures.free_bytes(), hooks_.sandboxes(),
                    {.floor_bytes = settings_.floor_bytes, .by_high = hooks_.has_soft_limit()});
  apply(plan);
  end_worst(plan, seen.figures);
}

void PressureMonitor::watch(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    woken_up_ = false;
    lock.unlock();
    try {
      tick();
    } catch (const Error& e) {
      log::warning("memory pressure: {}", error_text(e));
    }
    const bool any = hooks_.any();
    lock.lock();
    if (any || status_.warm_drained)
      changed_.wait_for(lock, stop, settings_.interval, [] { return false; });
    else
      changed_.wait(lock, stop, [&] { return woken_up_; });
  }
}

}  // namespace hutch::sandbox
