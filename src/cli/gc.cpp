#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "sandbox/bases.h"
#include "sandbox/store.h"
#include "sandbox/volumes.h"

namespace hutch::cli {

int gc(const Options& options) {
  const config::Config config = load_settings(options).config;
  const std::string& home = config.home;
  std::vector<sandbox::Leftover> kept;
  const auto removed = sandbox::remove_dead_servers(home, [&](const sandbox::Leftover& leftover) {
    if (options.all || !sandbox::lives_on(leftover.record)) return false;
    kept.push_back(leftover);
    return true;
  });
  sandbox::VolumeStore(home, config.volumes).remove_unfinished();
  const uint64_t freed = sandbox::Bases(config).collect();
  nlohmann::json report{
      {"removed", nlohmann::json::array()}, {"kept", nlohmann::json::array()}, {"freed_bytes", freed}};
  for (const auto& leftover : removed) report["removed"].push_back(leftover.record.id);
  for (const auto& leftover : kept) report["kept"].push_back(leftover.record.id);
  if (options.json) {
    fmt::print("{}\n", report.dump(2));
    return 0;
  }
  for (const auto& leftover : removed) fmt::print("removed {}\n", leftover.record.id);
  for (const auto& [record, folder, last_used] : kept)
    fmt::print("{}{} lives on: the next server takes it up (--all removes it)\n", record.id,
               record.about.name.empty() ? "" : fmt::format(" ({})", record.about.name));
  if (freed > 0) fmt::print("freed {} MiB of layers that nothing needs\n", freed >> 20);
  if (removed.empty() && kept.empty() && freed == 0)
    fmt::print("no dead server has left anything below {}\n", home);
  return 0;
}

}  // namespace hutch::cli
