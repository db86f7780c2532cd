#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/control.h"
#include "cli/print.h"
#include "sandbox/store.h"
#include "tools/common.h"
#include "tools/encoding.h"

namespace hutch::cli {

namespace {

using nlohmann::json;

constexpr const char* kNothing = "-";

std::string or_nothing(const std::string& text) {
  return text.empty() ? kNothing : text;
}

std::vector<std::string> live_row(const json& one, const RunningServer& server) {
  const std::string limit = tools::size_in_words(one.value("memory_limit_bytes", uint64_t{0}));
  const std::string memory =
      one.contains("memory_bytes")
          ? fmt::format("{} of {}", tools::size_in_words(one["memory_bytes"].get<uint64_t>()), limit)
          : kNothing;
  return {one.value("id", ""),
          or_nothing(one.value("name", "")),
          one.value("state", ""),
          time_in_words(one.value("age_s", int64_t{0})),
          idle_in_words(one.value("in_use", false), one.value("idle_s", int64_t{0})),
          memory,
          one.value("profile", ""),
          server.id};
}

std::vector<std::string> ended_row(const json& one, const RunningServer& server) {
  return {one.value("id", ""),
          or_nothing(one.value("name", "")),
          "ended",
          kNothing,
          kNothing,
          kNothing,
          one.value("profile", ""),
          server.id,
          fmt::format("{} ({} ago)", tools::one_line(one.value("cause", "")),
                      time_in_words(one.value("ended_s", int64_t{0})))};
}

}  // namespace

int ls(const Options& options) {
  const auto servers = ask_servers(options, "status", {{"disk", false}, {"ended", options.all}});
  json all = json::array();
  std::vector<std::vector<std::string>> rows{
      {"ID", "NAME", "STATE", "AGE", "IDLE", "MEMORY", "PROFILE", "SERVER"}};
  if (options.all) rows.front().emplace_back("WHY IT ENDED");
  for (const auto& [server, status] : servers) {
    for (json one : status.at("sandboxes")) {
      rows.push_back(live_row(one, server));
      one["server"] = server.id;
      all.push_back(std::move(one));
    }
    for (json one : status.value("ended", json::array())) {
      rows.push_back(ended_row(one, server));
      one["server"] = server.id;
      one["state"] = "ended";
      all.push_back(std::move(one));
    }
  }
  if (!options.server)
    for (const auto& leftover : sandbox::left_behind(load_settings(options).config.home)) {
      const auto& about = leftover.record.about;
      rows.push_back(
          {about.id, or_nothing(about.name), "left", kNothing, kNothing, kNothing, about.profile, "(dead)"});
      all.push_back({{"id", about.id},
                     {"name", about.name},
                     {"state", "left"},
                     {"profile", about.profile},
                     {"server", nullptr}});
    }
  if (options.json)
    fmt::print("{}\n", all.dump(2));
  else if (all.empty())
    fmt::print(
        "no sandboxes of {} running servers; `hutch mcp`, started by a host, makes one at its first call\n",
        servers.size());
  else
    fmt::print("{}", columns(rows));
  return 0;
}

}  // namespace hutch::cli
