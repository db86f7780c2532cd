#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "schema/json_writer.h"

namespace hutch::cli {

int show_config(const Options& options) {
  const config::LoadedConfig settings = load_settings(options);
  if (options.json)
    fmt::print("{}\n", schema::to_json(settings.config).dump(2));
  else
    fmt::print("{}", config::to_text(settings));
  return 0;
}

}  // namespace hutch::cli
