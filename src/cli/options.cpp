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
void set_option(Options& options, const std::string& name, const std::optional<std::string>& value) {
  const std::map<std::string, std::optional<std::string>*> texts = {{"config", &options.config_file},
                                                                    {"results", &options.results},
                                                                    {"toolsets", &options.toolsets},
                                                                    {"profile", &options.profile},
                                                                    {"server", &options.server}};
  if (const auto it = texts.find(name); it != texts.end()) {
    if (!value) throw Error(Errc::invalid_argument, fmt::format("--{} needs a value", name));
    *it->second = *value;
  } else if (name == "json") {
    options.json = true;
  }
}

bool takes_value(const std::string& name) {
  return name != "json";
}

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> out;
  std::istringstream in(text);
  for (std::string word; std::getline(in, word, ',');) out.push_back(word);
  return out;
}

}  // namespace

Options parse_options(int argc, char** argv, const std::vector<std::string>& allowed) {
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
    } else if (word.size() > 1 && word.starts_with('-')) {
      const size_t equals = word.find('=');
      const std::string name =
          word.substr(word.find_first_not_of('-'), equals == std::string::npos ? equals : equals - 2);
      if (!word.starts_with("--") || std::ranges::find(allowed, name) == allowed.end())
        throw Error(Errc::invalid_argument, fmt::format("unknown option {}", word))
            .hint(allowed.empty() ? "this command takes no options"
                                  : fmt::format("known here: --{}", fmt::join(allowed, ", --")));
      if (equals != std::string::npos)
        set_option(options, name, word.substr(equals + 1));
      else if (takes_value(name) && i + 1 < words.size())
        set_option(options, name, words[++i]);
      else
        set_option(options, name, std::nullopt);
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
  override(options.toolsets, "toolsets", [&](const std::string& v) { loaded.config.toolsets = split(v); });
  if (loaded.config.results != "text" && loaded.config.results != "structured")
    throw Error(Errc::invalid_argument, fmt::format("--results {} is not known", loaded.config.results))
        .hint("--results text, or --results structured");
  log::set_level(log::level_from(loaded.config.log_level));
  return loaded;
}

}  // namespace hutch::cli
