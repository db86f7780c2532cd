#include "config/load.h"

#include <fmt/format.h>
#include <unistd.h>

#include <vector>

#include "base/sys.h"
#include "config/environment.h"
#include "config/validate.h"
#include "schema/flatten.h"
#include "schema/yaml_reader.h"

extern char** environ;

namespace hutch::config {

namespace {

constexpr size_t kMaxFileBytes = 1 << 20;

std::string variable(const LoadOptions& options, const char* name) {
  const auto it = options.environment.find(name);
  return it == options.environment.end() ? std::string() : it->second;
}

/// $NAME, or the folder below $HOME; empty when neither is set.
std::string base_folder(const LoadOptions& options, const char* name, const char* below_home) {
  // The XDG specification says that a relative path is to be ignored.
  if (const std::string set = variable(options, name); set.starts_with('/')) return set;
  const std::string home = variable(options, "HOME");
  return home.empty() ? std::string() : home + below_home;
}

std::string find_file(const LoadOptions& options) {
  if (options.file) return *options.file;
  if (const std::string named = variable(options, "HUTCH_CONFIG"); !named.empty()) return named;
  const std::string folder = base_folder(options, "XDG_CONFIG_HOME", "/.config");
  for (const std::string& file : {folder + "/hutch/config.yaml", std::string("/etc/hutch/config.yaml")})
    if (file.starts_with('/') && sys::exists(file)) return file;
  return {};
}

std::string default_home(const LoadOptions& options) {
  if (options.is_root) return "/var/lib/hutch";
  const std::string folder = base_folder(options, "XDG_DATA_HOME", "/.local/share");
  if (folder.empty())
    throw Error(Errc::invalid_argument, "no data folder: neither HOME nor XDG_DATA_HOME is set")
        .hint("set HUTCH_HOME to a folder that hutch may use");
  return folder + "/hutch";
}

}  // namespace

LoadOptions process_options(std::optional<std::string> file) {
  LoadOptions options{.file = std::move(file), .is_root = ::geteuid() == 0};
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const size_t equals = text.find('=');
    if (equals != text.npos) options.environment.emplace(text.substr(0, equals), text.substr(equals + 1));
  }
  return options;
}

LoadedConfig load_config(const LoadOptions& options) {
  LoadedConfig out{.file = find_file(options)};
  if (!out.file.empty()) {
    const std::string text =
        during("reading the configuration", [&] { return sys::read_file(out.file, kMaxFileBytes); });
    const schema::YamlDocument document = schema::parse_yaml(text, out.file);
    schema::read_yaml(document, out.file, out.config);
    for (const auto& [path, place] : document.places) out.origins[path] = document.place(out.file, path);
  }
  for (auto& [path, name] : read_environment(options.environment, out.config)) out.origins[path] = name;
  if (out.config.home.empty()) out.config.home = default_home(options);
  out.config.profiles.try_emplace("default");
  expand_home(out.config, variable(options, "HOME"));
  validate(out);
  return out;
}

std::string to_text(const LoadedConfig& loaded) {
  std::string out;
  for (const schema::FlatField& field : schema::flatten(loaded.config)) {
    const auto origin = loaded.origins.find(field.path);
    out += fmt::format("{}: {}  # {}\n", field.path, field.value.dump(),
                       origin == loaded.origins.end() ? "default" : origin->second);
  }
  return out;
}

}  // namespace hutch::config
