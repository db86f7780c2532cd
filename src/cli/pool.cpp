#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/control.h"

namespace hutch::cli {

namespace {

using nlohmann::json;

std::string kind_text(const json& kind) {
  std::string text = fmt::format(
      "  {:<16} ready {} of {}{}, hits {}, misses {}, build {:.1f} ms, idle memory {} KiB\n"
      "    target {}: {}\n",
      kind["kind"].get<std::string>(), kind["ready"].get<int>(), kind["target"].get<int>(),
      kind["building"].get<int>() > 0 ? " (one is being built)" : "", kind["hits"].get<uint64_t>(),
      kind["misses"].get<uint64_t>(), kind["build_ms"].get<double>(),
      kind["idle_memory_bytes"].get<uint64_t>() / 1024, kind["target"].get<int>(),
      kind["reason"].get<std::string>());
  if (const auto problem = kind["last_error"].get<std::string>(); !problem.empty())
    text += fmt::format("    {} of {} builds failed; the last: {}\n", kind["failures"].get<uint64_t>(),
                        kind["failures"].get<uint64_t>() + kind["builds"].get<uint64_t>(), problem);
  return text;
}

int print_status(const Options& options) {
  const auto servers = ask_servers(options, "pool/status");
  if (options.json) {
    json all = json::array();
    for (const auto& [server, status] : servers) {
      all.push_back(status);
      all.back()["server"] = server.id;
    }
    fmt::print("{}\n", all.dump(2));
    return 0;
  }
  if (servers.empty())
    fmt::print("no server has a pool: one has it from its first tool call on until its host ends it\n");
  for (const auto& [server, status] : servers) {
    fmt::print("server {} (process {})\n", server.id, status["pid"].get<int64_t>());
    for (const auto& kind : status["kinds"]) fmt::print("{}", kind_text(kind));
  }
  return 0;
}

int flush(const Options& options) {
  json all = json::array();
  for (const auto& [server, answer] : ask_servers(options, "pool/flush")) {
    all.push_back({{"server", server.id}, {"flushed", answer["flushed"]}});
    if (!options.json)
      fmt::print("server {}: {} warm sandboxes are discarded and built anew\n", server.id,
                 answer["flushed"].get<int>());
  }
  if (options.json) fmt::print("{}\n", all.dump(2));
  if (!options.json && all.empty()) fmt::print("no server has a pool\n");
  return 0;
}

}  // namespace

int pool(const Options& options) {
  if (options.words == std::vector<std::string>{"status"}) return print_status(options);
  if (options.words == std::vector<std::string>{"flush"}) return flush(options);
  throw Error(Errc::invalid_argument, "hutch pool does one of two things")
      .hint("hutch pool status, or hutch pool flush");
}

}  // namespace hutch::cli
