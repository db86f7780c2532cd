#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/known_sandboxes.h"

namespace hutch::cli {

int info(const Options& options) {
  if (options.words.size() != 1)
    throw Error(Errc::invalid_argument, "one sandbox is to be given")
        .hint("hutch info ID; `hutch ls` shows them");
  const KnownSandbox sandbox = find_known(known_sandboxes(options), options.words.front(), true);
  nlohmann::json answer = ask_server(sandbox.server, "sandbox/info", {{"sandbox_id", sandbox.id}});
  if (options.json) {
    answer["info"]["server"] = sandbox.server.id;
    fmt::print("{}\n", answer["info"].dump(2));
  } else {
    fmt::print("{}server {}\n", answer["text"].get<std::string>(), sandbox.server.id);
  }
  return 0;
}

}  // namespace hutch::cli
