#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "cli/commands.h"
#include "cli/known_sandboxes.h"

namespace hutch::cli {

namespace {

using nlohmann::json;

constexpr std::chrono::seconds kPatience{60};  // the files of a sandbox may be many

/// All words are looked up before anything is removed: a mistyped name costs nothing.
std::vector<KnownSandbox> wanted(const Options& options) {
  std::vector<KnownSandbox> all = known_sandboxes(options), out;
  if (options.all) {
    std::erase_if(all, [](const KnownSandbox& one) { return one.ended; });
    return all;
  }
  for (const std::string& word : options.words) {
    try {
      out.push_back(find_known(all, word));
    } catch (const Error& e) {
      if (!options.force || e.code() != Errc::not_found) throw;
    }
  }
  return out;
}

}  // namespace

int rm(const Options& options) {
  if (options.all != options.words.empty())
    throw Error(Errc::invalid_argument, options.all ? "--all goes with no name" : "no sandbox is given")
        .hint("hutch rm ID|NAME..., or hutch rm --all; `hutch ls` shows them");
  std::map<std::string, std::pair<RunningServer, std::map<std::string, KnownSandbox>>> by_server;
  for (const KnownSandbox& one : wanted(options)) {
    auto& [server, sandboxes] = by_server[one.server.id];
    server = one.server;
    sandboxes[one.id] = one;
  }
  json destroyed = json::array();
  for (const auto& [_, group] : by_server) {
    const auto& [server, sandboxes] = group;
    nlohmann::ordered_json ids = nlohmann::ordered_json::array();
    for (const auto& [id, one] : sandboxes) ids.push_back(id);
    const json answer = ask_server(server, "sandbox/destroy", {{"sandboxes", std::move(ids)}}, kPatience);
    for (const json& id : answer.at("destroyed")) {
      if (!options.json) fmt::print("removed {}\n", shown(sandboxes.at(id.get<std::string>())));
      destroyed.push_back(id);
    }
  }
  if (options.json) fmt::print("{}\n", json{{"destroyed", destroyed}}.dump(2));
  if (!options.json && options.all && destroyed.empty()) fmt::print("there is no sandbox\n");
  return 0;
}

}  // namespace hutch::cli
