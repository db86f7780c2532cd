#include <limits>

#include "sandbox/manager.h"
#include "sandbox/memory_figures.h"

namespace hutch::sandbox {

std::shared_ptr<Sandbox> Manager::published(const std::string& id) {
  const std::lock_guard lock(mutex_);
  const auto it = entries_.find(id);
  return it != entries_.end() && it->second->published ? it->second->whole() : nullptr;
}

/// Warm ones are not among them: they are given up before anybody is throttled.
std::vector<PressuredSandbox> Manager::pressured() {
  std::vector<PressuredSandbox> out;
  for (const auto& sandbox : list()) {
    const Description about = sandbox->about();
    const auto idle_since = sandbox->idle_since();
    out.push_back({.id = about.id,
                   .used_bytes = sandbox->cgroup().usage().memory_bytes.value_or(0),
                   .asked_bytes = about.limits.memory_bytes,
                   .asked_cpus = about.limits.cpus,
                   .busy = !idle_since,
                   .idle_for = idle_since ? Clock::now() - *idle_since : Clock::duration::zero()});
  }
  return out;
}

PressureHooks Manager::pressure_hooks() {
  return {.figures = [this] { return read_figures(builder_.cgroups()); },
          .any =
              [this] {
                const std::lock_guard lock(mutex_);
                return !entries_.empty();
              },
          .has_soft_limit = [this] { return builder_.cgroups().v2(); },
          .sandboxes = [this] { return pressured(); },
          .squeeze = [this](const std::string& id, const Squeeze& squeeze) -> PressureHooks::Applied {
            const auto sandbox = published(id);
            if (!sandbox || !sandbox->running()) return {};
            std::string text = sandbox->squeeze(squeeze);
            if (squeeze.frozen)
              (void)sandbox->pause_when_idle(kIdleBeforeFreeze);
            else
              sandbox->end_idle_pause();
            return {sandbox->pause() == Sandbox::Pause::idle, std::move(text)};
          },
          .end =
              [this](const std::string& id, const std::string& cause) {
                if (const auto sandbox = published(id)) sandbox->end(cause);
              },
          .drain_warm =
              [this](bool drain, const std::string& reason) {
                pool_.set_ceiling(drain ? 0 : std::numeric_limits<int>::max(), reason);
              }};
}

}  // namespace hutch::sandbox
