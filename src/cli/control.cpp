#include "cli/control.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "rpc/message.h"
#include "sandbox/status.h"
#include "schema/json_reader.h"
#include "schema/json_writer.h"
#include "tools/sandbox_info.h"

namespace hutch::cli {

namespace {

using nlohmann::json;
using nlohmann::ordered_json;
using sandbox::ControlSocket;

constexpr size_t kRequestDepth = 8;

ordered_json pool_status(sandbox::Manager& manager) {
  return {{"pid", ::getpid()}, {"kinds", schema::to_json(sandbox::pool_part(manager))}};
}

ordered_json sandbox_list(sandbox::Manager& manager) {
  ordered_json live = ordered_json::array(), ended = ordered_json::array();
  for (const auto& sandbox : manager.list())
    live.push_back({{"id", sandbox->id()}, {"name", sandbox->about().name}});
  for (const auto& one : manager.ended()) ended.push_back({{"id", one.about.id}, {"name", one.about.name}});
  return {{"sandboxes", std::move(live)}, {"ended", std::move(ended)}};
}

struct StatusRequest {
  bool disk = true, ended = false;

  template <class V>
  void describe(V& v) {
    v.optional("disk", disk, "Count the files of sandboxes, which takes time.");
    v.optional("ended", ended, "Those that are no more, too.");
  }
};

ordered_json status(sandbox::Manager& manager, const json& params) {
  const auto wanted = schema::parse_arguments<StatusRequest>(params.is_null() ? json::object() : params);
  return schema::to_json(sandbox::status_of(manager, {.disk = wanted.disk, .ended = wanted.ended}));
}

struct DestroyRequest {
  std::vector<std::string> sandboxes;

  template <class V>
  void describe(V& v) {
    v.required("sandboxes", sandboxes, "Ids.");
  }
};

/// All at once: each may take a while to end.
ordered_json destroy(sandbox::Manager& manager, const json& params) {
  const auto wanted = schema::parse_arguments<DestroyRequest>(params);
  std::mutex mutex;
  std::set<std::string> destroyed;
  {
    std::vector<std::jthread> removals;
    for (const std::string& name : wanted.sandboxes)
      removals.emplace_back([&] {
        std::string id;
        if (!manager.destroy(name, id)) return;
        const std::lock_guard lock(mutex);
        destroyed.insert(id);
      });
  }
  return {{"destroyed", destroyed}};
}

ordered_json info(sandbox::Manager& manager, const json& params) {
  const auto wanted = schema::parse_arguments<tools::SandboxInfoArgs>(params);
  if (wanted.sandbox_id.empty()) throw Error(Errc::invalid_argument, "'sandbox_id' is missing");
  tools::Services services{.manager = manager};
  const tools::SandboxInfo found = tools::sandbox_info(wanted, services);
  return {{"info", schema::to_json(found)}, {"text", tools::text_of(found)}};
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

std::string error_answer(const json& id, const Error& error) {
  return to_text(rpc::make_error(id, rpc::kInternalError, error_text(error),
                                 {{"code", errc_name(error.code())}, {"exit_code", exit_code_of(error)}}));
}

std::string attach_answer(const json& id, const Error* error) {
  return error == nullptr ? to_text(rpc::make_result(id, ordered_json::object())) : error_answer(id, *error);
}

ControlSocket::Reply attach(sandbox::Attachments& attachments, const rpc::Request& request) {
  auto wanted = schema::parse_arguments<sandbox::AttachRequest>(request.params);
  return {.take_over = [&attachments, wanted = std::move(wanted), id = request.id](
                           UniqueFd socket, std::string_view received) {
    attachments.begin(std::move(socket), received, wanted,
                      [id](const Error* error) { return attach_answer(id, error); });
  }};
}

/// What answers a request; nothing when it is not known.
using Method = std::function<ordered_json(sandbox::Manager& manager, const json& params)>;
Method method_of(const std::string& name) {
  static const std::map<std::string, Method> methods = {
      {"status", status},
      {"sandbox/info", info},
      {"sandbox/destroy", destroy},
      {"sandbox/list", [](sandbox::Manager& manager, const json&) { return sandbox_list(manager); }},
      {"pool/status", [](sandbox::Manager& manager, const json&) { return pool_status(manager); }},
      {"pool/flush",
       [](sandbox::Manager& manager, const json&) -> ordered_json {
         return {{"flushed", manager.pool().flush()}};
       }},
  };
  const auto it = methods.find(name);
  return it == methods.end() ? nullptr : it->second;
}

std::string answer_of(sandbox::Manager& manager, const Method& method, const rpc::Request& request) {
  try {
    return to_text(rpc::make_result(request.id, method(manager, request.params)));
  } catch (const Error& e) {
    return error_answer(request.id, e);
  } catch (const std::exception& e) {  // the libraries and the standard library
    return error_answer(request.id, Error(Errc::internal, e.what()));
  }
}

ControlSocket::Reply answer(sandbox::Manager& manager, sandbox::Attachments& attachments,
                            const rpc::Request& request) {
  if (request.method == "sandbox/attach") return attach(attachments, request);
  Method method = method_of(request.method);
  if (!method)
    return {.line = to_text(
                rpc::make_error(request.id, rpc::kMethodNotFound, "this server does not know that request"))};
  // Not here: on the I/O thread nothing may wait, neither for a sandbox's end nor for a lock.
  return {.work = [&manager, method = std::move(method), request] {
    return answer_of(manager, method, request);
  }};
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
      return {.line = error_answer(request->id, e)};
    }
  };
}

std::string control_request(const std::string& method, ordered_json params) {
  ordered_json request{{"jsonrpc", "2.0"}, {"id", 1}, {"method", method}};
  if (!params.is_null()) request["params"] = std::move(params);
  return to_text(request);
}

json ask_server(const RunningServer& server, const std::string& method, ordered_json params,
                std::chrono::seconds timeout) {
  json answer =
      json::parse(ControlSocket::ask(server.folder, control_request(method, std::move(params)), timeout));
  if (!answer.contains("error")) return std::move(answer["result"]);
  const json& error = answer["error"];
  throw Error(error.value("code", 0) == rpc::kMethodNotFound ? Errc::unavailable : Errc::internal,
              error.value("message", "the server gave no reason"));
}

std::vector<std::pair<RunningServer, json>> ask_servers(const Options& options, const std::string& method,
                                                        ordered_json params) {
  const std::string home = load_settings(options).config.home;
  std::vector<std::pair<RunningServer, json>> out;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(home + "/servers", ignored)) {
    const RunningServer server{entry.path().filename(), entry.path()};
    if (server.id.starts_with('.') || (options.server && *options.server != server.id)) continue;
    try {
      out.emplace_back(server, ask_server(server, method, params));
    } catch (const Error& e) {
      // One that has just ended, or was killed, or has not made a sandbox yet.
      if (e.code() == Errc::unavailable || e.code() == Errc::not_found) continue;
      if (e.code() != Errc::timeout || options.server) throw;
      fmt::print(stderr, "hutch: {}\n", error_text(e));
    }
  }
  if (out.empty() && options.server)
    throw Error(Errc::not_found, fmt::format("no server '{}' answers below {}", *options.server, home))
        .hint("hutch stats shows those that do");
  return out;
}

}  // namespace hutch::cli
