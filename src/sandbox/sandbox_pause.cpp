#include <fmt/format.h>

#include "sandbox/sandbox.h"

/// Whether a sandbox is in use, frozen, or held still while it is copied.
namespace hutch::sandbox {

Sandbox::Activity::Activity(Sandbox& sandbox)
    : Activity(sandbox, [&] {
        std::unique_lock pausing(sandbox.pause_mutex_);
        sandbox.stillness_over_.wait(pausing, [&] { return sandbox.stillness_ == Stillness::none; });
        return pausing;
      }()) {
  running_.emplace(sandbox.calls_);
}

std::unique_ptr<Sandbox::Activity> Sandbox::Activity::try_begin(Sandbox& sandbox) {
  std::unique_lock pausing(sandbox.pause_mutex_, std::try_to_lock);
  if (!pausing || sandbox.stillness_ != Stillness::none) return nullptr;
  return std::unique_ptr<Activity>(new Activity(sandbox, std::move(pausing)));
}

Sandbox::Activity::Activity(Sandbox& sandbox, std::unique_lock<std::mutex>) : sandbox_(sandbox) {
  {
    const std::lock_guard lock(sandbox_.mutex_);
    if (sandbox_.ended_)
      throw Error(Errc::not_found, fmt::format("sandbox {} has ended: {}", sandbox_.id(), sandbox_.cause_))
          .hint("make a new one with sandbox_create");
    if (sandbox_.pause_ == Pause::by_owner)
      throw Error(Errc::conflict, fmt::format("sandbox {} is paused", sandbox_.id()))
          .hint("sandbox_update with `paused: false` lets it go on");
    ++sandbox_.active_calls_;
    sandbox_.used_ = true;
  }
  if (sandbox_.pause_ == Pause::idle) sandbox_.set_pause(Pause::none);
}

Sandbox::Activity::~Activity() {
  const std::lock_guard lock(sandbox_.mutex_);
  --sandbox_.active_calls_;
  sandbox_.note_use();
}

Sandbox::Pause Sandbox::pause() const {
  const std::lock_guard pausing(pause_mutex_);
  return pause_;
}

/// With pause_mutex_ held.
void Sandbox::set_pause(Pause pause) {
  const bool changes = (pause == Pause::none) != (pause_ == Pause::none);
  if (changes && stillness_ != Stillness::held) body_.cgroup.freeze(pause != Pause::none);
  pause_ = pause;
}

void Sandbox::resume() {
  const std::lock_guard pausing(pause_mutex_);
  if (stillness_ == Stillness::held) {
    stillness_ = Stillness::broken;
    body_.cgroup.freeze(false);
  }
  set_pause(Pause::none);
}

void Sandbox::begin_stillness() {
  std::unique_lock pausing(pause_mutex_);
  stillness_over_.wait(pausing, [&] { return stillness_ == Stillness::none; });
  if (pause_ == Pause::none) {
    try {
      body_.cgroup.freeze(true);
    } catch (const Error& e) {
      body_.channel->drain();  // nobody may have read that they have ended
      const bool runs = processes_.any_running();
      const std::lock_guard lock(mutex_);
      if (runs || active_calls_ > 0)
        throw Error(Errc::conflict,
                    fmt::format("something runs in sandbox {}, and it cannot be frozen: {}", id(), e.what()))
            .hint("end its processes first: sandbox_process lists them");
    }
  }
  stillness_ = Stillness::held;
}

void Sandbox::end_stillness() {
  const std::lock_guard pausing(pause_mutex_);
  const bool broken = std::exchange(stillness_, Stillness::none) == Stillness::broken;
  stillness_over_.notify_all();
  if (pause_ == Pause::none) body_.cgroup.thaw();
  if (broken) throw Error(Errc::unavailable, fmt::format("sandbox {} went on before it was copied", id()));
}

void Sandbox::hold_still(const std::function<void(const runtime::WrittenFiles&)>& copy) {
  const CallGauge::Scope running(calls_);
  {
    const std::lock_guard lock(mutex_);
    used_ = true;
    note_use();
  }
  begin_stillness();
  try {
    if (ended_) throw Error(Errc::not_found, fmt::format("sandbox {} has ended: {}", id(), cause()));
    copy({.sandbox_folder = body_.folder,
          .disk = body_.container.disk,
          .memory = body_.container.memory.get()});
    // Its end drops what was not written yet, see end(): then the copy is of no use.
    if (const std::string why = cause(); !why.empty())
      throw Error(Errc::not_found, fmt::format("sandbox {} ended before it was copied: {}", id(), why));
  } catch (...) {
    try {
      end_stillness();
    } catch (const Error&) {
      // What it was held still for has failed anyway.
    }
    throw;
  }
  end_stillness();
}

std::optional<Clock::duration> Sandbox::pause_when_idle(Clock::duration unused) {
  const std::lock_guard pausing(pause_mutex_);
  if (pause_ != Pause::none) return Clock::duration::zero();
  if (open_ports_ > 0) return std::nullopt;
  if (!processes_.empty()) {
    body_.channel->drain();  // nobody may have read that they have ended
    if (processes_.any_running()) return std::nullopt;
  }
  {
    const std::lock_guard lock(mutex_);
    if (active_calls_ > 0) return std::nullopt;
    const auto left = last_used_ + unused - Clock::now();
    if (left > Clock::duration::zero()) return left;
  }
  set_pause(Pause::idle);
  return Clock::duration::zero();
}

}  // namespace hutch::sandbox
