#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "config/config.h"
#include "sandbox/image_tool.h"
#include "sandbox/ledger.h"
#include "sandbox/sandbox.h"

/// What a caller may ask for, and what one sandbox and all together may have. No state.
namespace hutch::sandbox {

/// What is empty comes from the profile.
struct CreateRequest {
  std::string profile, name, runtime, workdir, template_name, image, network;
  std::optional<uint64_t> memory_bytes, disk_bytes;
  std::optional<double> cpus;
  std::optional<int64_t> pids;
  std::optional<int64_t> ttl_s, idle_timeout_s;
  std::map<std::string, std::string> env, labels;
  Progress progress;                       // of what takes long, such as the pull of an image
  std::stop_token stop;                    // gives that up
  std::vector<config::VolumeUse> volumes;  // besides those of the profile
  std::vector<std::string> allow;          // the same
  bool hidden = false;                     // nobody sees it, and it does not outlive its server

  /// Otherwise its profile says what it begins with.
  bool names_base() const noexcept { return !template_name.empty() || !image.empty(); }
};

/// Of a sandbox, a template: throws invalid_argument, which says what a name may be.
void check_name(const std::string& name, const char* whose);

/// Who runs commands in such a sandbox: the profile's user, or that of the image, which a server without
/// privileges cannot have; empty = root.
std::string user_of(const config::Profile& profile, const Base& base);

/// What every command finds in its environment; nothing of the server's own. For another user than root the
/// agent adds what depends on who that is.
std::map<std::string, std::string> base_environment(const std::string& user = {});

/// The sandbox that the request means, made from `base`, with the defaults filled in. Throws what is wrong
/// with the request: invalid_argument, not_found for its profile, limit_exceeded when it asks for more than
/// one sandbox may have, with the setting that says so and what that allows; denied for a runtime that its
/// profile does not leave to callers. `runtime` is the wanted one, which may be `auto`.
Description describe_new(const config::Config& config, const CreateRequest& request, const Base& base);
/// The same for what an update asks for.
void check_caps(const config::Limits& caps, const Changes& changes);

/// Throws denied where callers may not have a sandbox of the profile with that network: `full` reaches every
/// public host unseen, so it takes a profile that has it, or callers that may allow everything.
void check_may_have_network(const config::Config& config, const std::string& profile,
                            const std::string& network);
/// Throws denied where callers may not widen what sandboxes reach that far.
void check_may_allow(const config::Config& config, const std::vector<std::string>& rules);
/// Rules as an update leaves them: added, or without the one that follows a `-`.
std::vector<std::string> changed_rules(std::vector<std::string> rules,
                                       const std::vector<std::string>& changes);

/// The limits of a sandbox that nobody has asked for yet.
runtime::Limits default_limits(const config::Config& config, const std::string& profile);

/// What a sandbox is counted with.
Charge full_charge(const runtime::Limits& limits);
Charge warm_charge();

/// Throws unavailable when a limit that the caller named does not hold. A default one is reported as it is.
void check_enforced(const CreateRequest& request, const runtime::Isolation& isolation);

/// For each profile the first one with the same root file system, disk, runtime, user and hardening, the
/// default one before all others: a warm sandbox of that kind serves it, all else is attached at the claim.
std::map<std::string, std::string> kinds_of(const config::Config& config);
/// Whether warm sandboxes of the kind can serve it: they have the disk and the runtime of the profile.
bool is_of_its_kind(const config::Config& config, const Description& about);

/// Physical memory of this host.
uint64_t host_memory_bytes();
/// Processors that the scheduler gives us.
double host_cpus();

}  // namespace hutch::sandbox
