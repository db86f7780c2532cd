#include <fmt/format.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/error.h"
#include "base/sys.h"
#include "cli/commands.h"
#include "sandbox/manager.h"

namespace hutch::cli {

namespace {

struct Check {
  std::string name;
  bool good = false;
  std::string detail, hint;
};

Check host() {
  utsname names{};
  ::uname(&names);
  return {"host", true,
          fmt::format("Linux {} {}, as {}", names.release, names.machine, ::geteuid() == 0 ? "root" : "user"),
          ""};
}

std::vector<Check> runtimes(const runtime::CgroupHost& cgroups) {
  std::vector<Check> out;
  bool any = false;
  for (const auto& candidate : runtime::make_runtimes(cgroups, "every")) {
    const auto probe = candidate->probe();
    any = any || probe.usable;
    out.push_back({"runtime " + std::string(candidate->name()), probe.usable, probe.detail, probe.hint});
  }
  if (any)  // one is enough: the others are not missing
    for (auto& check : out) check.hint.clear();
  return out;
}

Check limits(const runtime::CgroupHost& cgroups) {
  if (cgroups.problem().empty())
    return {"limits", true,
            fmt::format("cgroup {}{}: memory, cpus and pids can be limited", cgroups.v2() ? "v2" : "v1",
                        cgroups.hybrid_mount().empty() ? "" : " (hybrid)"),
            ""};
  if (!cgroups.bases().empty())  // some controllers only
    return {
        "limits", false, cgroups.problem(),
        ::geteuid() == 0
            ? "start the kernel with cgroup_enable= and the name of what is missing"
            : "as root, systemctl edit user@.service: [Service] Delegate=memory pids cpu; then log in again"};
  return {"limits", false, cgroups.problem(),
          ::geteuid() == 0
              ? "mount the cgroup file system writable (in Docker: --privileged or --cgroupns=private)"
              : "systemd-run --user --scope --property=Delegate=yes hutch mcp"};
}

Check full_network() {
  const std::string pasta = find_program("pasta");
  if (pasta.empty()) return {"network full", false, "pasta is not installed: apt-get install passt", ""};
  return {"network full", true, pasta, ""};
}

/// Folders of the user's PATH whose programs a sandbox would not have, and the line that shows them.
Check programs(const config::Config& config) {
  const char* path = std::getenv("PATH");
  std::istringstream folders(path != nullptr ? path : "");
  const auto& shown = config.profiles.at(config.default_profile).host_paths;
  std::string hidden, lines;
  for (std::string folder; std::getline(folders, folder, ':');) {
    bool visible = folder.empty() || !sys::exists(folder);
    for (const std::string root : {"/usr", "/bin", "/sbin"})
      visible = visible || (folder + "/").starts_with(root + "/");
    for (const auto& root : shown) visible = visible || (folder + "/").starts_with(root + "/");
    if (visible) continue;
    hidden += (hidden.empty() ? "" : ", ") + folder;
    lines += (lines.empty() ? "" : ", ") +
             folder.substr(0, folder.ends_with("/bin") ? folder.size() - 4 : folder.size());
  }
  if (hidden.empty()) return {"programs", true, "every folder of your PATH is visible inside", ""};
  return {"programs", true, "not visible inside: " + hidden,
          fmt::format("to show them, in the configuration: profiles: {{{}: {{host_paths: [{}]}}}}",
                      config.default_profile, lines)};
}

/// The proof: a real sandbox that runs a real command.
std::vector<Check> trial(config::Config config) {
  std::vector<Check> out;
  config.pool.max = 0;  // one sandbox and no more
  try {
    sandbox::Manager manager(config);
    const auto sandbox = manager.create({});
    sandbox::ExecSpec spec;
    spec.argv = {"true"};
    const auto result = sandbox->exec(spec);
    out.push_back({"sandbox", result.exit_code == 0,
                   fmt::format("made by {} in {} ms; it ran a command in {} ms", sandbox->about().runtime,
                               sandbox->about().create_time.count() / 1000, result.duration.count()),
                   ""});
    const auto isolation = sandbox->about().isolation;
    for (const auto& [name, item] : isolation)
      out.push_back({"isolation: " + name, item.enforced, item.detail, ""});
    manager.shutdown(Clock::now() + std::chrono::seconds(5));
  } catch (const Error& e) {
    out.push_back({"sandbox", false, e.what(), e.hint()});
  }
  return out;
}

void print(const std::vector<Check>& checks) {
  for (const auto& check : checks) {
    fmt::print("{} {:<22} {}\n", check.good ? "ok  " : "MISS", check.name, check.detail);
    if (!check.hint.empty()) fmt::print("     {:<22} {}\n", "", (check.good ? "" : "try: ") + check.hint);
  }
}

}  // namespace

int doctor(const Options& options) {
  const config::LoadedConfig settings = load_settings(options);
  const auto cgroups = runtime::CgroupHost::probe();
  std::vector<Check> checks{host()};
  for (auto& check : runtimes(cgroups)) checks.push_back(std::move(check));
  checks.push_back(limits(cgroups));
  checks.push_back(full_network());
  checks.push_back({"data folder", true, settings.config.home, ""});
  checks.push_back(programs(settings.config));
  bool usable = true;
  for (auto& check : trial(settings.config)) {
    if (check.name == "sandbox") usable = check.good;
    checks.push_back(std::move(check));
  }
  if (options.json) {
    nlohmann::json list = nlohmann::json::array();
    for (const auto& check : checks)
      list.push_back(
          {{"name", check.name}, {"ok", check.good}, {"detail", check.detail}, {"hint", check.hint}});
    fmt::print("{}\n", nlohmann::json{{"usable", usable}, {"checks", list}}.dump(2));
  } else {
    print(checks);
    fmt::print("\n{}\n", usable ? "hutch works here."
                                : "hutch cannot make sandboxes here: see the first MISS with a `try`.");
  }
  return usable ? 0 : 1;
}

}  // namespace hutch::cli
