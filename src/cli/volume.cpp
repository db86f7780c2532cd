#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/print.h"
#include "sandbox/disk_guard.h"
#include "sandbox/volumes.h"
#include "schema/bytes.h"
#include "tools/common.h"

namespace hutch::cli {

namespace {

using nlohmann::json;
using sandbox::Volume;

Error wrong_words() {
  return Error(Errc::invalid_argument, "hutch volume does one of three things")
      .hint("hutch volume ls, hutch volume create NAME [--size 5g], or hutch volume rm NAME...");
}

json shown(const Volume& volume) {
  json out{{"name", volume.name},
           {"size_bytes", volume.size_bytes},
           {"size_enforced", volume.not_limited.empty()},
           {"created_at", tools::iso_time(volume.created_at)},
           {"made_by", volume.made_by}};
  if (!volume.not_limited.empty()) out["not_limited"] = volume.not_limited;
  return out;
}

int list_volumes(const sandbox::VolumeStore& store, bool as_json) {
  json all = json::array();
  std::vector<std::vector<std::string>> rows{{"NAME", "SIZE", "USED", "CREATED", "USED BY"}};
  for (const Volume& volume : store.list()) {
    const uint64_t used = store.used_bytes(volume.name);
    const auto users = store.users_of(volume.name);
    rows.push_back(
        {volume.name,
         to_string(Bytes{volume.size_bytes}) + (volume.not_limited.empty() ? "" : " (not enforced)"),
         tools::size_in_words(used), tools::iso_time(volume.created_at),
         users.empty() ? "-" : fmt::format("{}", fmt::join(users, ", "))});
    all.push_back(shown(volume));
    all.back()["used_bytes"] = used;
    all.back()["used_by"] = users;
  }
  if (as_json)
    fmt::print("{}\n", all.dump(2));
  else
    fmt::print("{}", all.empty() ? "there is no volume: `hutch volume create`, or its first use, makes one\n"
                                 : columns(rows));
  return 0;
}

int create_volume(const config::Config& config, const sandbox::VolumeStore& store, const Options& options) {
  if (options.words.size() != 2) throw wrong_words();
  const auto size = options.size ? parse_bytes(*options.size) : config.volumes.default_size;
  if (!size || *size < mib(16))
    throw Error(Errc::invalid_argument, fmt::format("--size {} is no size of a volume", *options.size))
        .hint("--size 512m, --size 5g: at least 16m");
  sandbox::DiskGuard(config.home, config.limits).check_room_for_create();
  const Volume made = store.create(options.words[1], size->value);
  if (options.json) {
    fmt::print("{}\n", shown(made).dump(2));
    return 0;
  }
  fmt::print("created {} of {}\n", made.name, to_string(Bytes{made.size_bytes}));
  if (!made.not_limited.empty()) fmt::print("its size is not enforced: {}\n", made.not_limited);
  return 0;
}

int remove_volumes(const sandbox::VolumeStore& store, const Options& options) {
  if (options.words.size() < 2) throw wrong_words();
  json removed = json::array();
  for (size_t i = 1; i < options.words.size(); ++i) {
    store.remove(options.words[i]);
    removed.push_back(options.words[i]);
    if (!options.json) fmt::print("removed {}\n", options.words[i]);
  }
  if (options.json) fmt::print("{}\n", json{{"removed", removed}}.dump(2));
  return 0;
}

}  // namespace

int volume(const Options& options) {
  const config::Config config = load_settings(options).config;
  const sandbox::VolumeStore store(config.home, config.volumes);
  const std::string verb = options.words.empty() ? "" : options.words.front();
  if (options.size && verb != "create") throw wrong_words();
  if (verb == "ls" && options.words.size() == 1) return list_volumes(store, options.json);
  if (verb == "create") return create_volume(config, store, options);
  if (verb == "rm") return remove_volumes(store, options);
  throw wrong_words();
}

}  // namespace hutch::cli
