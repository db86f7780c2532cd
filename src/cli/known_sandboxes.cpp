#include "cli/known_sandboxes.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace hutch::cli {

std::string shown(const KnownSandbox& sandbox) {
  return sandbox.name.empty() ? sandbox.id : fmt::format("{} ({})", sandbox.id, sandbox.name);
}

std::vector<KnownSandbox> known_sandboxes(const Options& options) {
  std::vector<KnownSandbox> live, ended;
  for (const auto& [server, answer] : ask_servers(options, "sandbox/list")) {
    for (const auto& one : answer.at("sandboxes")) live.push_back({server, one.at("id"), one.at("name")});
    for (const auto& one : answer.value("ended", nlohmann::json::array()))
      ended.push_back({server, one.at("id"), one.at("name"), true});
  }
  live.insert(live.end(), ended.rbegin(), ended.rend());
  return live;
}

KnownSandbox find_known(const std::vector<KnownSandbox>& all, const std::string& id_or_name, bool or_ended) {
  std::vector<KnownSandbox> found;
  std::vector<std::string> live;
  for (const KnownSandbox& one : all) {
    if (!one.ended) live.push_back(shown(one));
    if (!one.ended && (one.id == id_or_name || one.name == id_or_name)) found.push_back(one);
  }
  if (found.size() == 1) return found.front();
  if (found.empty()) {
    const auto last = std::ranges::find_if(
        all, [&](const KnownSandbox& one) { return one.id == id_or_name || one.name == id_or_name; });
    if (or_ended && last != all.end()) return *last;
    throw Error(Errc::not_found, fmt::format("no running server has a sandbox '{}'{}", id_or_name,
                                             last != all.end() ? " any more" : ""))
        .hint(live.empty()
                  ? "`hutch mcp`, started by a host, makes one at its first call; `hutch run` needs none"
                  : fmt::format("the live ones (`hutch ls`) are {}", fmt::join(live, ", ")));
  }
  std::vector<std::string> ids;
  for (const auto& one : found) ids.push_back(fmt::format("{} (--server {})", one.id, one.server.id));
  throw Error(Errc::conflict, fmt::format("{} sandboxes have the name '{}'", found.size(), id_or_name))
      .hint(fmt::format("take the id of the one you mean, or its --server: {}", fmt::join(ids, ", ")));
}

}  // namespace hutch::cli
