#include "cli/pool.h"

#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "rpc/message.h"

namespace hutch::cli {

namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr size_t kDepth = 8;

ordered_json status_of(sandbox::Manager& manager) {
  ordered_json kinds = ordered_json::array();
  for (const auto& kind : manager.pool().status()) {
    ordered_json profiles = ordered_json::array();
    for (const auto& [profile, _] : manager.config().profiles)
      if (manager.kind_of(profile) == kind.kind) profiles.push_back(profile);
    kinds.push_back({{"kind", kind.kind},
                     {"profiles", std::move(profiles)},
                     {"ready", kind.ready},
                     {"building", kind.building},
                     {"target", kind.target},
                     {"reason", kind.reason},
                     {"hits", kind.hits},
                     {"misses", kind.misses},
                     {"builds", kind.builds},
                     {"failures", kind.failures},
                     {"build_ms", static_cast<double>(kind.build_time.count()) / 1000},
                     {"idle_memory_bytes", kind.memory_bytes},
                     {"last_error", kind.last_error}});
  }
  return {{"pid", ::getpid()}, {"kinds", std::move(kinds)}};
}

struct Server {
  std::string id, folder;
};

/// The servers that answer on this data folder now, with their answers to `method`.
std::vector<std::pair<Server, json>> ask_servers(const Options& options, const std::string& method) {
  const std::string home = load_settings(options).config.home;
  std::vector<std::pair<Server, json>> out;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(home + "/servers", ignored)) {
    const Server server{entry.path().filename(), entry.path()};
    if (server.id.starts_with('.') || (options.server && *options.server != server.id)) continue;
    try {
      const std::string request = json{{"jsonrpc", "2.0"}, {"id", 1}, {"method", method}}.dump();
      json answer = json::parse(sandbox::ControlSocket::ask(server.folder, request));
      if (answer.contains("error"))
        throw Error(Errc::internal, answer["error"].value("message", "the server gave no reason"));
      out.emplace_back(server, std::move(answer["result"]));
    } catch (const Error& e) {
      // One that has just ended, or has not made a sandbox yet.
      if (e.code() != Errc::unavailable && e.code() != Errc::not_found) throw;
    }
  }
  if (out.empty() && options.server)
    throw Error(Errc::not_found, fmt::format("no server '{}' answers below {}", *options.server, home))
        .hint("hutch pool status shows those that do");
  return out;
}

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

sandbox::ControlSocket::Handler control_handler(sandbox::Manager& manager) {
  return [&manager](std::string_view line) {
    const rpc::Message message = rpc::parse_message(line, kDepth);
    const auto* request = std::get_if<rpc::Request>(&message);
    ordered_json answer;
    if (request == nullptr)
      answer = rpc::make_error(nullptr, rpc::kInvalidRequest, "not a request");
    else if (request->method == "pool/status")
      answer = rpc::make_result(request->id, status_of(manager));
    else if (request->method == "pool/flush")
      answer = rpc::make_result(request->id, {{"flushed", manager.pool().flush()}});
    else
      answer = rpc::make_error(request->id, rpc::kMethodNotFound, "this server does not know that request");
    std::string text = rpc::to_line(answer);
    text.pop_back();
    return text;
  };
}

int pool(const Options& options) {
  if (options.words == std::vector<std::string>{"status"}) return print_status(options);
  if (options.words == std::vector<std::string>{"flush"}) return flush(options);
  throw Error(Errc::invalid_argument, "hutch pool does one of two things")
      .hint("hutch pool status, or hutch pool flush");
}

}  // namespace hutch::cli
