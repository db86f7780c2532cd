#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <utility>

#include "base/log.h"
#include "sandbox/manager.h"
#include "sandbox/setup.h"

/// What sandboxes begin with: what a call asks for, or its profile's base with what its setup has made.
namespace hutch::sandbox {

Base Manager::base_of(const CreateRequest& request, const std::string& profile) {
  const config::Profile& settings = config_.profiles.at(profile);
  const Base base = bases().resolve({.template_name = request.template_name,
                                     .image = request.image,
                                     .progress = request.progress,
                                     .stop = request.stop},
                                    settings);
  if (settings.setup.empty() || request.names_base()) return base;
  return after_setup(request, profile, base);
}

/// Found, or made in a sandbox of its own. Under a lock: of several servers that want the same one does it.
Base Manager::after_setup(const CreateRequest& request, const std::string& profile, const Base& base) {
  const config::Profile& settings = config_.profiles.at(profile);
  const SetupStore& setups = bases().setups();
  const std::string name = SetupStore::name_of(settings, base);
  if (const auto made = setups.use(name)) return made->base;
  prepare();
  const Turn turn = setups.begin(name, request.progress, request.stop);
  if (const auto made = setups.use(name)) return made->base;

  CreateRequest alone{.profile = profile, .ttl_s = 0, .idle_timeout_s = 0, .hidden = true};
  const auto sandbox = create(alone, describe_new(config_, alone, base), false, false);
  try {
    run_setup(*sandbox, {.profile = profile,
                         .commands = settings.setup,
                         .timeout = std::chrono::seconds(settings.setup_timeout_s),
                         .log = setups.log_of(name),
                         .log_max_bytes = config_.limits.log_max.value,
                         .progress = request.progress,
                         .stop = request.stop});
    const Template made =
        writing_to_disk([&] { return seal_setup(*sandbox, base, name, "setup of profile " + profile); });
    log::info("the setup of profile '{}' is kept as {}", profile, name);
    remove(sandbox->id());
    return made.base;
  } catch (...) {
    remove(sandbox->id());
    throw;
  }
}

Template Manager::seal_setup(const Sandbox& sandbox, const Base& base, const std::string& name,
                             const std::string& description) {
  const auto sealed = builder_.seal(*entry_of(sandbox), true, disk_guard_);
  Template made{.name = name,
                .description = description,
                .parent = base.template_name,
                .base = base,
                .size_bytes = sealed.manifest.size_bytes,
                .created_at = ::time(nullptr),
                .hutch_version = HUTCH_VERSION};
  made.base.layers.push_back(sealed.manifest.id);
  bases().setups().add(made);
  return made;
}

std::string Manager::kind_of(const std::string& profile) const {
  const std::lock_guard lock(mutex_);
  if (const auto it = used_kinds_.find(profile); it != used_kinds_.end()) return it->second;
  return config_.profiles.at(profile).has_own_base() ? "" : kinds_.at(profile);
}

/// Another one than before when its image has another digest, or its setup was removed: then the warm ones of
/// before are nobody's. The default profile's is kept ready for good. With mutex_ held.
void Manager::use_kind(const std::string& profile, const std::string& kind) {
  std::string& used = used_kinds_[profile];
  if (used == kind) return;
  const std::string before = std::exchange(used, kind);
  const bool shared =
      std::ranges::any_of(used_kinds_, [&](const auto& other) { return other.second == before; });
  if (derived_kinds_.contains(before) && !shared) {
    pool_.drop(before);
    derived_kinds_.erase(before);
  }
  if (profile == config_.default_profile) pool_.announce(kind);
}

}  // namespace hutch::sandbox
