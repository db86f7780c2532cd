#include "cli/control.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "rpc/message.h"
#include "schema/json_reader.h"

namespace hutch::cli {

namespace {

using nlohmann::json;
using nlohmann::ordered_json;
using sandbox::ControlSocket;

constexpr size_t kRequestDepth = 8;

ordered_json pool_status(sandbox::Manager& manager) {
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

ordered_json sandbox_list(sandbox::Manager& manager) {
  ordered_json all = ordered_json::array();
  for (const auto& sandbox : manager.list())
    all.push_back({{"id", sandbox->about().id}, {"name", sandbox->about().name}});
  return {{"sandboxes", std::move(all)}};
}

std::string to_text(const ordered_json& answer) {
  std::string text = rpc::to_line(answer);
  text.pop_back();
  return text;
}

/// The exit code that a shell gives for a program that it cannot start: 127 for one that is not there, 126
/// for one that cannot be run. 0 when the error is another one.
int exit_code_of(const Error& error) {
  if (error.os_error() == ENOENT) return 127;
  return error.os_error() == EACCES || error.os_error() == ENOEXEC ? 126 : 0;
}

std::string attach_answer(const json& id, const Error* error) {
  if (error == nullptr) return to_text(rpc::make_result(id, ordered_json::object()));
  return to_text(rpc::make_error(id, rpc::kInternalError, error_text(*error),
                                 {{"code", errc_name(error->code())}, {"exit_code", exit_code_of(*error)}}));
}

ControlSocket::Reply attach(sandbox::Attachments& attachments, const rpc::Request& request) {
  auto wanted = schema::parse_arguments<sandbox::AttachRequest>(request.params);
  return {.take_over = [&attachments, wanted = std::move(wanted), id = request.id](
                           UniqueFd socket, std::string_view received) {
    attachments.begin(std::move(socket), received, wanted,
                      [id](const Error* error) { return attach_answer(id, error); });
  }};
}

ControlSocket::Reply answer(sandbox::Manager& manager, sandbox::Attachments& attachments,
                            const rpc::Request& request) {
  if (request.method == "sandbox/attach") return attach(attachments, request);
  if (request.method == "pool/status")
    return {.line = to_text(rpc::make_result(request.id, pool_status(manager)))};
  if (request.method == "pool/flush")
    return {.line = to_text(rpc::make_result(request.id, {{"flushed", manager.pool().flush()}}))};
  if (request.method == "sandbox/list")
    return {.line = to_text(rpc::make_result(request.id, sandbox_list(manager)))};
  return {.line = to_text(
              rpc::make_error(request.id, rpc::kMethodNotFound, "this server does not know that request"))};
}

}  // namespace

ControlSocket::Handler control_handler(sandbox::Manager& manager, sandbox::Attachments& attachments) {
  return [&](std::string_view line) -> ControlSocket::Reply {
    const rpc::Message message = rpc::parse_message(line, kRequestDepth);
    const auto* request = std::get_if<rpc::Request>(&message);
    if (request == nullptr)
      return {.line = to_text(rpc::make_error(nullptr, rpc::kInvalidRequest, "not a request"))};
    try {
      return answer(manager, attachments, *request);
    } catch (const Error& e) {
      return {.line = attach_answer(request->id, &e)};
    }
  };
}

std::string control_request(const std::string& method, ordered_json params) {
  ordered_json request{{"jsonrpc", "2.0"}, {"id", 1}, {"method", method}};
  if (!params.is_null()) request["params"] = std::move(params);
  return to_text(request);
}

std::vector<std::pair<RunningServer, json>> ask_servers(const Options& options, const std::string& method) {
  const std::string home = load_settings(options).config.home;
  std::vector<std::pair<RunningServer, json>> out;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(home + "/servers", ignored)) {
    const RunningServer server{entry.path().filename(), entry.path()};
    if (server.id.starts_with('.') || (options.server && *options.server != server.id)) continue;
    try {
      json answer = json::parse(ControlSocket::ask(server.folder, control_request(method)));
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

}  // namespace hutch::cli
