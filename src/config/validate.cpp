#include "config/validate.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <vector>

#include "base/error.h"
#include "schema/text.h"

namespace hutch::config {

namespace {

constexpr std::array<std::string_view, 4> kOciRuntimes = {"auto", "crun", "runc", "runsc"};

constexpr std::string_view kNameChars = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_";
constexpr std::string_view kHostChars = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.";

class Validator {
 public:
  explicit Validator(const LoadedConfig& loaded) : loaded_(loaded) {}

  void fail(const std::string& path, const std::string& what) {
    std::string origin;
    for (std::string outer = path; origin.empty() && !outer.empty();) {
      const auto it = loaded_.origins.find(outer);
      if (it != loaded_.origins.end()) origin = it->second;
      const size_t cut = outer.find_last_of(".[");
      outer.resize(cut == outer.npos ? 0 : cut);
    }
    problems_ += fmt::format("{}{}{}'{}' {}", problems_.empty() ? "" : "\n", origin,
                             origin.empty() ? "" : ": ", path, what);
  }

  void absolute(const std::string& path, const std::string& value) {
    if (!value.starts_with('/')) fail(path, fmt::format("must be an absolute path, got '{}'", value));
  }

  void runtime(const std::string& path, const std::string& value) {
    const bool named = std::ranges::find(kOciRuntimes, value) != kOciRuntimes.end();
    if (!named && !value.starts_with('/'))
      fail(path, fmt::format("must be auto, crun, runc, runsc or an absolute path, got '{}'", value));
  }

  void profile(const std::string& name, const Profile& profile) {
    const std::string path = "profiles." + name;
    runtime(path + ".runtime", profile.runtime);
    // The name is also part of variables (HUTCH_PROFILES__<NAME>__…) and of labels.
    if (name.empty() || name.size() > 40 ||
        name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_-") != name.npos ||
        name.find("__") != name.npos)
      fail(path, "is no name for a profile: at most 40 of a-z, 0-9, - and single _");
    absolute(path + ".workdir", profile.workdir);
    user(path + ".user", profile.user);
    for (size_t i = 0; i < profile.setup.size(); ++i)
      if (profile.setup[i].empty() || profile.setup[i].find('\0') != std::string::npos)
        fail(fmt::format("{}.setup[{}]", path, i), "is no command");
    for (size_t i = 0; i < profile.host_paths.size(); ++i)
      absolute(fmt::format("{}.host_paths[{}]", path, i), profile.host_paths[i]);
    for (size_t i = 0; i < profile.volumes.size(); ++i)
      absolute(fmt::format("{}.volumes[{}].target", path, i), profile.volumes[i].target);
    for (size_t i = 0; i < profile.secrets.size(); ++i)
      if (loaded_.config.secrets.count(profile.secrets[i]) == 0)
        fail(fmt::format("{}.secrets[{}]", path, i),
             fmt::format("names no secret: '{}'; they are in `secrets`", profile.secrets[i]));
    // Or whoever asks for that network would open it for them.
    if (!profile.secrets.empty() && profile.network != "filtered")
      fail(path + ".secrets",
           fmt::format("need the network `filtered`, and this profile's is `{}`", profile.network));
    for (const auto& [key, value] : profile.env)
      if (key.empty() || key.find('=') != key.npos || key.find('\0') != key.npos ||
          value.find('\0') != value.npos)
        fail(fmt::format("{}.env.{}", path, key), "is no environment variable");
  }

  /// Also an environment variable inside.
  void secret_name(const std::string& path, const std::string& name) {
    const bool known = name.find_first_not_of(kNameChars) == name.npos;
    if (name.empty() || name.size() > 64 || !known || (name[0] >= '0' && name[0] <= '9'))
      fail(path, "is no name for a secret: at most 64 letters, digits and _, no digit first");
  }

  void secret(const std::string& name, const Secret& secret) {
    const std::string path = "secrets." + name;
    secret_name(path, name);
    if ((secret.env.empty() ? 0 : 1) + (secret.file.empty() ? 0 : 1) + (secret.command.empty() ? 0 : 1) != 1)
      fail(path, "needs one of env, file and command");
    if (!secret.file.empty()) absolute(path + ".file", secret.file);
    for (size_t i = 0; i < secret.hosts.size(); ++i)
      secret_host(fmt::format("{}.hosts[{}]", path, i), secret.hosts[i]);
    if ((secret.form == "header") == secret.header.empty())
      fail(path + ".header", "belongs to the form 'header' and to no other");
    if ((secret.form == "query") == secret.parameter.empty())
      fail(path + ".parameter", "belongs to the form 'query' and to no other");
    if ((secret.header + secret.parameter).find_first_not_of(kHostChars) != std::string::npos)
      fail(path, "has a header or parameter with more than letters, digits, '-', '_' and '.'");
  }

  /// A name: an address is no proof of who is there.
  void secret_host(const std::string& path, const std::string& value) {
    std::string_view name = value;
    if (name.starts_with("*.")) name.remove_prefix(2);
    const size_t colon = name.find(':');
    const std::string_view port = colon == name.npos ? "443" : name.substr(colon + 1);
    name = name.substr(0, colon);
    const std::string_view last = name.substr(name.find_last_of('.') + 1);
    const bool is_name = name.find_first_not_of(kHostChars) == name.npos && name.find("..") == name.npos &&
                         !name.starts_with('.') && name.size() <= 253 &&
                         last.find_first_not_of("0123456789") != last.npos;
    const bool is_port = !port.empty() && port.size() <= 5 && port[0] != '0' &&
                         port.find_first_not_of("0123456789") == port.npos &&
                         std::stoi(std::string(port)) < 65'536;
    if (!is_name || !is_port)
      fail(path, fmt::format("must be a host's name, *.name or either with :PORT, got '{}'", value));
  }

  /// Whether there is such a one is for the sandbox to say.
  void user(const std::string& path, const std::string& value) {
    const bool printable = std::ranges::all_of(value, [](unsigned char c) { return c > ' ' && c != 0x7f; });
    const bool whole = !value.starts_with(':') && !value.ends_with(':');
    if (!printable || !whole || std::ranges::count(value, ':') > 1)
      fail(path, fmt::format("must be a user, or a user and a group with ':' between them, got '{}'", value));
  }

  void default_profile() {
    const std::string& wanted = loaded_.config.default_profile;
    if (loaded_.config.profiles.count(wanted) != 0) return;
    std::vector<std::string_view> names;
    for (const auto& [name, profile] : loaded_.config.profiles) names.push_back(name);
    const std::string_view near = schema::nearest(wanted, names);
    fail("default_profile", near.empty()
                                ? fmt::format("names no profile: '{}'", wanted)
                                : fmt::format("names no profile: '{}'; did you mean '{}'?", wanted, near));
  }

  /// Each level is left after it is entered, and begins after the one below it.
  void pressure(const Pressure& pressure) {
    const PressureEdges* below = nullptr;
    const auto check = [&](const char* name, const PressureEdges& level) {
      const std::string path = std::string("pressure.") + name;
      if (level.leave <= level.enter)
        fail(path + ".leave", fmt::format("must be more than {}.enter ({})", path, level.enter));
      if (below != nullptr && (level.enter >= below->enter || level.leave > below->leave))
        fail(path, fmt::format("must begin and end at less than the level below it ({} and {})", below->enter,
                               below->leave));
      if (below != nullptr && level.psi < below->psi)
        fail(path + ".psi", fmt::format("must be at least that of the level below it ({})", below->psi));
      below = &level;
    };
    check("warning", pressure.warning);
    check("high", pressure.high);
    check("critical", pressure.critical);
    check("emergency", pressure.emergency);
  }

  const std::string& problems() const { return problems_; }

 private:
  const LoadedConfig& loaded_;
  std::string problems_;
};

}  // namespace

void expand_home(Config& config, const std::string& user_home) {
  if (user_home.empty()) return;
  const auto expand = [&](std::string& path) {
    if (path.starts_with("~/")) path.replace(0, 1, user_home);
  };
  expand(config.home);
  expand(config.egress.ca_file);
  for (auto& [name, secret] : config.secrets) expand(secret.file);
  for (auto& [name, profile] : config.profiles)
    for (std::string& path : profile.host_paths) expand(path);
}

void validate(const LoadedConfig& loaded) {
  const Config& config = loaded.config;
  Validator check(loaded);
  check.absolute("home", config.home);
  check.runtime("oci.runtime", config.oci.runtime);
  if (config.limits.log_max > config.limits.logs_max)
    check.fail("limits.log_max",
               fmt::format("must be at most limits.logs_max ({})", to_string(config.limits.logs_max)));
  if (config.pool.max < config.pool.min && config.pool.max != 0)
    check.fail("pool.max", fmt::format("must be at least pool.min ({}), or 0 for no pool", config.pool.min));
  if (!config.egress.ca_file.empty()) check.absolute("egress.ca_file", config.egress.ca_file);
  for (const auto& [name, secret] : config.secrets) check.secret(name, secret);
  for (const auto& [name, profile] : config.profiles) check.profile(name, profile);
  check.pressure(config.pressure);
  check.default_profile();
  if (!check.problems().empty()) throw Error(Errc::invalid_argument, check.problems());
}

}  // namespace hutch::config
