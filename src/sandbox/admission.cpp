#include "sandbox/admission.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <thread>
#include <tuple>
#include <vector>

#include "net/secret.h"
#include "runtime/network_rules.h"
#include "runtime/trust_bundle.h"
#include "sandbox/egress_gate.h"
#include "sandbox/names.h"
#include "sandbox/volumes.h"
#include "schema/bytes.h"

namespace hutch::sandbox {

namespace {

constexpr uint64_t kWarmMemory = 64u << 20;

/// Raising a hard limit needs CAP_SYS_RESOURCE, which servers in containers do not have: never more than
/// ours.
uint64_t open_files_limit(int64_t wanted) {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0) return static_cast<uint64_t>(wanted);
  return std::min<uint64_t>(files.rlim_max, static_cast<uint64_t>(wanted));
}

runtime::Limits limits_of(const config::SandboxDefaults& settings) {
  return {.memory_bytes = settings.memory.value,
          .cpus = std::min(settings.cpus, host_cpus()),
          .pids = settings.pids,
          .open_files = open_files_limit(settings.open_files),
          .shm_bytes = settings.shm.value,
          .disk_bytes = settings.disk.value};
}

/// The base has a say where the profile leaves it at the default.
std::string absolute_workdir(const std::string& asked, const std::string& of_profile, const Base& base) {
  const std::string& usual =
      of_profile == config::Profile{}.workdir && !base.workdir.empty() ? base.workdir : of_profile;
  if (asked.empty()) return usual;
  return asked.front() == '/' ? asked : usual + "/" + asked;
}

Error over_cap(const char* name, const std::string& asked, const std::string& most, const std::string& why) {
  return Error(Errc::limit_exceeded,
               fmt::format("`{}` {} is more than one sandbox may have: {} ({})", name, asked, most, why))
      .hint(fmt::format("ask for at most {}", most));
}

/// `cap` 0: the host's.
void check_bytes(const char* name, const std::optional<uint64_t>& asked, uint64_t cap, uint64_t of_host) {
  if (!asked) return;
  const bool by_host = cap == 0 || of_host < cap;
  const uint64_t most = by_host ? of_host : cap;
  if (*asked > most)
    throw over_cap(name, to_string(Bytes{*asked}), to_string(Bytes{most}),
                   by_host ? fmt::format("the host's {}", name) : fmt::format("limits.sandbox_{}", name));
}

void check_caps(const config::Limits& caps, const std::optional<uint64_t>& memory_bytes,
                const std::optional<double>& cpus, const std::optional<int64_t>& pids) {
  check_bytes("memory", memory_bytes, caps.sandbox_memory.value, host_memory_bytes());
  const bool by_host = caps.sandbox_cpus == 0 || host_cpus() < caps.sandbox_cpus;
  const double most = by_host ? host_cpus() : caps.sandbox_cpus;
  if (cpus && *cpus > most)
    throw over_cap("cpus", fmt::format("{}", *cpus), fmt::format("{}", most),
                   by_host ? "the host's processors" : "limits.sandbox_cpus");
  if (pids && *pids > caps.sandbox_pids)
    throw over_cap("pids", fmt::format("{}", *pids), fmt::format("{}", caps.sandbox_pids),
                   "limits.sandbox_pids");
}

/// Callers choose between the programs that hutch knows, and only where the configuration does not: a profile
/// that says gVisor means it, and nobody starts a program of his own.
std::string chosen_runtime(const config::Config& config, const config::Profile& profile,
                           const std::string& asked) {
  const std::string& own = config::runtime_of(config, profile);
  if (asked.empty() || asked == "auto" || asked == own) return own;
  constexpr std::array<std::string_view, 3> kKnown = {"crun", "runc", "runsc"};
  if (std::ranges::find(kKnown, asked) == kKnown.end())
    throw Error(Errc::invalid_argument, fmt::format("there is no runtime '{}'", asked.substr(0, 80)))
        .hint("take `auto`, `crun`, `runc` or `runsc`");
  if (own == "auto" || own == "crun" || own == "runc") return asked;
  throw Error(Errc::denied, fmt::format("the profile's runtime is '{}', and no other", own))
      .hint("leave `runtime` out, or take another profile: see sandbox_list_profiles");
}

/// Placeholders for them, and where programs find the authority that the proxy shows to them.
void add_secrets(const config::Profile& profile, Description& about) {
  if (about.network != "filtered")
    throw Error(
        Errc::invalid_argument,
        fmt::format("the profile's secrets need the network `filtered`, and this one is `{}`", about.network))
        .hint("leave `network` out, or take another profile");
  about.secrets = net::Secrets::new_environment(profile.secrets);
  for (const auto& [name, placeholder] : about.secrets) about.env[name] = placeholder;
  for (const auto variable : runtime::kTrustVariables) about.env.emplace(variable, runtime::kTrustPath);
}

/// What the caller allows comes on top of the profile's, as long as it is for the same kind of network.
std::vector<std::string> allowed(const config::Profile& profile, const CreateRequest& request) {
  std::vector<std::string> all = request.allow;
  if (request.network.empty() || request.network == profile.network)
    all.insert(all.begin(), profile.allow.begin(), profile.allow.end());
  return all;
}

/// Its pasta process is charged to it, whose buffers take 30 MB from the start.
constexpr uint64_t kFullNetworkMemory = 64ull << 20;

void check_full_network(const Description& about) {
  (void)runtime::allowed_ranges(about.allow);
  if (about.limits.memory_bytes < kFullNetworkMemory)
    throw Error(
        Errc::invalid_argument,
        fmt::format("the network `full` takes a sandbox with {} of memory at least, and this one has {}",
                    to_string(Bytes{kFullNetworkMemory}), to_string(Bytes{about.limits.memory_bytes})))
        .hint("ask for more `memory`, or take another `network`");
}

}  // namespace

void check_name(const std::string& name, const char* whose) {
  if (!is_plain_name(name))
    throw Error(Errc::invalid_argument, fmt::format("'{}' cannot be a {}'s name", name.substr(0, 80), whose))
        .hint(std::string(kPlainNames));
}

std::string user_of(const config::Profile& profile, const Base& base) {
  if (!profile.user.empty() || ::geteuid() != 0) return config::user_of(profile);
  return config::user_of({.user = base.user});
}

std::map<std::string, std::string> base_environment(const std::string& user) {
  std::map<std::string, std::string> env{
      {"PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
      {"SHELL", "/bin/bash"},
      {"LANG", "C.UTF-8"},
      {"TERM", "dumb"}};
  if (user.empty()) env.insert({{"HOME", "/root"}, {"USER", "root"}, {"LOGNAME", "root"}});
  return env;
}

uint64_t host_memory_bytes() {
  static const uint64_t bytes =
      static_cast<uint64_t>(::sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  return bytes;
}

double host_cpus() {
  static const double count = std::max(1u, std::thread::hardware_concurrency());
  return count;
}

Description describe_new(const config::Config& config, const CreateRequest& request, const Base& base) {
  if (!request.name.empty()) check_name(request.name, "sandbox");
  check_environment(request.env);
  const std::string profile_name = request.profile.empty() ? config.default_profile : request.profile;
  const config::SandboxDefaults settings = config::settings_of(config, profile_name);
  const config::Profile& profile = config.profiles.at(profile_name);
  check_caps(config.limits, request.memory_bytes, request.cpus, request.pids);
  if (config.limits.sandbox_disk.value != 0)
    check_bytes("disk", request.disk_bytes, config.limits.sandbox_disk.value, UINT64_MAX);

  runtime::Limits limits = limits_of(settings);
  limits.memory_bytes = request.memory_bytes.value_or(limits.memory_bytes);
  limits.cpus = request.cpus.value_or(limits.cpus);
  limits.pids = request.pids.value_or(limits.pids);
  limits.disk_bytes = request.disk_bytes.value_or(limits.disk_bytes);
  Description about{
      .name = request.name,
      .profile = profile_name,
      .runtime = chosen_runtime(config, profile, request.runtime),
      .workdir = absolute_workdir(request.workdir, profile.workdir, base),
      .network = request.network.empty() ? profile.network : request.network,
      .allow = allowed(profile, request),
      .user = user_of(profile, base),
      .env = base_environment(user_of(profile, base)),
      .labels = request.labels,
      .limits = limits,
      .ttl = std::chrono::seconds(request.ttl_s.value_or(settings.ttl_s)),
      .idle_timeout = std::chrono::seconds(request.idle_timeout_s.value_or(settings.idle_timeout_s)),
      .pause_after = std::chrono::seconds(settings.pause_after_s),
      .background_keeps_alive = std::chrono::seconds(config.sandbox.background_keeps_alive_s),
      .created_at = WallClock::now(),
      .base = base,
      .volumes = wanted_volumes(profile.volumes, request.volumes)};
  check_may_have_network(config, profile_name, about.network);
  check_may_allow(config, request.allow);
  if (about.network == "filtered") about.env.merge(egress_environment());
  if (!profile.secrets.empty()) add_secrets(profile, about);
  if (about.network == "full") check_full_network(about);
  if (about.network == "none" && !request.allow.empty())
    throw Error(Errc::invalid_argument, "`allow` is for a sandbox with a network, and this one has none")
        .hint("add `network`: `filtered` or `full`");
  for (const auto* more : {&base.env, &profile.env, &request.env})
    for (const auto& [name, value] : *more) about.env[name] = value;
  return about;
}

void check_caps(const config::Limits& caps, const Changes& changes) {
  check_caps(caps, changes.memory_bytes, changes.cpus, changes.pids);
}

void check_may_have_network(const config::Config& config, const std::string& profile,
                            const std::string& network) {
  if (network != "full" || config.egress.callers_may_allow == "all") return;
  const auto of_profile = config.profiles.find(profile);  // a sandbox may be older than the configuration
  if (of_profile != config.profiles.end() && of_profile->second.network == "full") return;
  throw Error(
      Errc::denied,
      fmt::format("the network `full` is for the configuration to give, and profile '{}' does not", profile))
      .hint(
          "take `filtered` and name hosts in `allow`, or a profile that has it (sandbox_list_profiles); the "
          "configuration gives it by `network: full` of a profile, or to all by "
          "`egress.callers_may_allow: all`");
}

void check_may_allow(const config::Config& config, const std::vector<std::string>& rules) {
  const bool some = config.egress.callers_may_allow != "none";
  for (const std::string& rule : rules) {
    if (callers_may_add(config.egress, rule) || (some && rule.starts_with('-'))) continue;
    throw Error(Errc::denied,
                some ? fmt::format("'{}' is not public: only the configuration can allow it", rule)
                     : "what sandboxes may reach is for the configuration alone to say")
        .hint(fmt::format("`allow` of the profile, or `egress.callers_may_allow{}`", some ? ": all" : ""));
  }
}

std::vector<std::string> changed_rules(std::vector<std::string> rules,
                                       const std::vector<std::string>& changes) {
  for (const std::string& change : changes) {
    std::erase(rules, change.starts_with('-') ? change.substr(1) : change);
    if (!change.starts_with('-')) rules.push_back(change);
  }
  return rules;
}

runtime::Limits default_limits(const config::Config& config, const std::string& profile) {
  return limits_of(config::settings_of(config, profile));
}

Charge full_charge(const runtime::Limits& limits) {
  return {.memory_bytes = limits.memory_bytes, .disk_bytes = limits.disk_bytes};
}

Charge warm_charge() {
  return {.memory_bytes = kWarmMemory, .warm = true};
}

void check_enforced(const CreateRequest& request, const runtime::Isolation& isolation) {
  const auto require = [&](bool asked, const char* name) {
    if (!asked) return;
    const auto it = isolation.find(name);
    if (it != isolation.end() && it->second.enforced) return;
    throw Error(Errc::unavailable, fmt::format("the limit '{}' cannot be enforced on this host: {}", name,
                                               it != isolation.end() ? it->second.detail : "it is not known"))
        .hint(fmt::format("leave '{}' out to go without it, or see hutch doctor", name));
  };
  require(request.memory_bytes.has_value(), "memory");
  require(request.memory_bytes.has_value(), "swap");  // or the rest would go there
  require(request.cpus.has_value(), "cpus");
  require(request.pids.has_value(), "pids");
  require(request.disk_bytes.has_value(), "disk");
}

std::map<std::string, std::string> kinds_of(const config::Config& config) {
  const auto hard = [&](const std::string& name) {
    const config::Profile& p = config.profiles.at(name);
    const config::SandboxDefaults settings = config::settings_of(config, name);
    return std::tuple(config::runtime_of(config, p), p.host_paths, p.storage, p.workdir, config::user_of(p),
                      settings.open_files, settings.shm.value, settings.disk.value);
  };
  std::map<decltype(hard("")), std::string> first{{hard(config.default_profile), config.default_profile}};
  std::map<std::string, std::string> kinds;
  for (const auto& [name, _] : config.profiles)
    kinds[name] = first.try_emplace(hard(name), name).first->second;
  return kinds;
}

bool is_of_its_kind(const config::Config& config, const Description& about) {
  return about.runtime == config::runtime_of(config, config.profiles.at(about.profile)) &&
         about.limits.disk_bytes == default_limits(config, about.profile).disk_bytes;
}

}  // namespace hutch::sandbox
