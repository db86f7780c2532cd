#include "cli/options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <sstream>

#include "base/error.h"
#include "base/log.h"
#include "config/validate.h"

namespace hutch::cli {

namespace {

/// "--name value", "--name=value"; flags take nothing.
void set_value(Options& options, const std::string& name, const std::string& value) {
  const std::map<std::string, std::optional<std::string>*> texts = {
      {"config", &options.config_file}, {"results", &options.results}, {"toolsets", &options.toolsets},
      {"profile", &options.profile},    {"json", &options.json_file},  {"only", &options.only},
      {"peers", &options.peers_file},   {"server", &options.server},   {"workdir", &options.workdir},
      {"size", &options.size},          {"name", &options.name},       {"file", &options.dockerfile},
      {"f", &options.dockerfile}};
  if (name == "env")
    options.env.push_back(value);
  else
    *texts.at(name) = value;
}

void set_flag(Options& options, const std::string& name) {
  const std::map<std::string, bool*> flags = {
      {"json", &options.json},     {"quick", &options.quick}, {"long", &options.full},
      {"i", &options.interactive}, {"t", &options.terminal},  {"all", &options.all},
      {"f", &options.force},       {"watch", &options.watch}, {"overwrite", &options.overwrite}};
  *flags.at(name) = true;
}

/// As a person types them.
std::string shown(std::vector<std::string> allowed) {
  for (auto& name : allowed) {
    if (name.ends_with('=')) name.pop_back();
    name = (name.size() == 1 ? "-" : "--") + name;
  }
  return fmt::format("known here: {}", fmt::join(allowed, ", "));
}

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::ranges::find(names, name) != names.end();
}

/// "-i", "-it": each letter an option.
bool set_letters(Options& options, const std::string& word, const std::vector<std::string>& allowed) {
  const std::string letters = word.substr(1);
  if (!std::ranges::all_of(letters, [&](char c) { return contains(allowed, std::string(1, c)); }))
    return false;
  for (const char c : letters) set_flag(options, std::string(1, c));
  return true;
}

}  // namespace

std::vector<std::string> split_list(const std::string& text) {
  std::vector<std::string> out;
  std::istringstream in(text);
  for (std::string word; std::getline(in, word, ',');) out.push_back(word);
  return out;
}

Options parse_options(int argc, char** argv, const std::vector<std::string>& allowed, bool options_first) {
  Options options;
  const std::vector<std::string> words(argv, argv + argc);
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (word == "--") {
      options.words.insert(options.words.end(), words.begin() + static_cast<long>(i) + 1, words.end());
      break;
    }
    if (word == "-h" || word == "--help") {
      options.help = true;
    } else if (word.size() > 1 && word[0] == '-' && word[1] != '-' && set_letters(options, word, allowed)) {
      continue;
    } else if (word.size() > 1 && word.starts_with('-')) {
      const size_t equals = word.find('=');
      const std::string name =
          word.substr(word.find_first_not_of('-'), equals == std::string::npos ? equals : equals - 2);
      const bool takes_value = contains(allowed, name + "=");
      // Letters without a value came above.
      const bool well_formed = word.starts_with("--") ? name.size() > 1 : name.size() == 1 && takes_value;
      if (!well_formed || (!takes_value && !contains(allowed, name)))
        throw Error(Errc::invalid_argument, fmt::format("unknown option {}", word))
            .hint(allowed.empty() ? "this command takes no options" : shown(allowed));
      if (!takes_value)
        set_flag(options, name);
      else if (equals != std::string::npos)
        set_value(options, name, word.substr(equals + 1));
      else if (i + 1 < words.size())
        set_value(options, name, words[++i]);
      else
        throw Error(Errc::invalid_argument, fmt::format("{} needs a value", word));
    } else if (options_first) {
      options.words.insert(options.words.end(), words.begin() + static_cast<long>(i), words.end());
      break;
    } else {
      options.words.push_back(word);
    }
  }
  return options;
}

config::LoadedConfig load_settings(const Options& options) {
  config::LoadedConfig loaded = config::load_config(config::process_options(options.config_file));
  const auto override = [&](const std::optional<std::string>& value, const char* field, auto&& set) {
    if (!value) return;
    set(*value);
    loaded.origins[field] = fmt::format("--{}", field);
  };
  override(options.results, "results", [&](const std::string& v) { loaded.config.results = v; });
  override(options.toolsets, "toolsets",
           [&](const std::string& v) { loaded.config.toolsets = split_list(v); });
  if (loaded.config.results != "text" && loaded.config.results != "structured")
    throw Error(Errc::invalid_argument, fmt::format("--results {} is not known", loaded.config.results))
        .hint("--results text, or --results structured");
  log::set_level(log::level_from(loaded.config.log_level));
  return loaded;
}

}  // namespace hutch::cli
