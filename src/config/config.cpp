#include "config/config.h"

#include <fmt/format.h>

#include "base/error.h"

namespace hutch::config {

namespace {

template <class T>
void override_with(const std::optional<T>& value, T& target) {
  if (value) target = *value;
}

}  // namespace

const std::string& runtime_of(const Config& config, const Profile& profile) {
  return profile.runtime != "auto" ? profile.runtime : config.oci.runtime;
}

std::string user_of(const Profile& profile) {
  const bool root = profile.user == "root" || profile.user == "0" || profile.user == "0:0";
  return root ? "" : profile.user;
}

SandboxDefaults settings_of(const Config& config, const std::string& profile) {
  const auto it = config.profiles.find(profile);
  if (it == config.profiles.end()) {
    std::string known;
    for (const auto& [name, _] : config.profiles) known += (known.empty() ? "" : ", ") + name;
    throw Error(Errc::not_found, fmt::format("there is no profile '{}'", profile))
        .hint(fmt::format("the profiles are {}", known));
  }
  const Profile& overrides = it->second;
  SandboxDefaults out = config.sandbox;
  override_with(overrides.memory, out.memory);
  override_with(overrides.cpus, out.cpus);
  override_with(overrides.pids, out.pids);
  override_with(overrides.open_files, out.open_files);
  override_with(overrides.disk, out.disk);
  override_with(overrides.shm, out.shm);
  override_with(overrides.ttl_s, out.ttl_s);
  override_with(overrides.idle_timeout_s, out.idle_timeout_s);
  override_with(overrides.pause_after_s, out.pause_after_s);
  return out;
}

}  // namespace hutch::config
