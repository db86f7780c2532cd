#include <fmt/format.h>

#include "sandbox/sandbox.h"

namespace hutch::sandbox {

namespace {

std::string in_words(const std::map<std::string, runtime::Enforcement>& held) {
  std::string text;
  for (const auto& [name, result] : held)
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", name, result.detail);
  return text;
}

}  // namespace

void Sandbox::end_idle_pause() {
  const std::lock_guard pausing(pause_mutex_);
  if (pause_ == Pause::idle) set_pause(Pause::none);
}

std::optional<Clock::time_point> Sandbox::idle_since() {
  if (!processes_.empty()) {
    body_.channel->drain();  // nobody may have read that they have ended
    if (processes_.any_running()) return std::nullopt;
  }
  const std::lock_guard lock(mutex_);
  if (active_calls_ > 0) return std::nullopt;
  return last_used_;
}

std::string Sandbox::squeeze(const Squeeze& squeeze) {
  const std::lock_guard limiting(limits_mutex_);
  const Description about = this->about();
  const auto limited = [&](const char* name) {
    const auto it = about.isolation.find(name);
    return it != about.isolation.end() && it->second.enforced;
  };
  runtime::CgroupLimits asked;
  if (limited("memory")) asked.memory_bytes = about.limits.memory_bytes;
  if (limited("cpus")) asked.cpus = about.limits.cpus;
  if (squeeze.memory_bytes || squeeze.cpus) {
    std::map<std::string, runtime::Enforcement> held;
    if (squeeze.memory_bytes) held["memory"] = body_.cgroup.throttle_memory(*squeeze.memory_bytes);
    if (squeeze.cpus && asked.cpus > 0) held.merge(body_.cgroup.apply({.cpus = *squeeze.cpus}));
    return in_words(held);
  }
  const auto held = body_.cgroup.unthrottle(asked);
  for (const auto& [name, result] : held)
    if (!result.enforced && limited(name.c_str()))
      throw Error(Errc::unavailable,
                  fmt::format("the limit '{}' of {} does not return: {}", name, body_.id, result.detail));
  return in_words(held);
}

}  // namespace hutch::sandbox
