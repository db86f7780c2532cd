#pragma once

#include <chrono>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "cli/options.h"
#include "sandbox/attach.h"
#include "sandbox/control_socket.h"
#include "sandbox/manager.h"

/// Both ends of the control sockets: what a server answers, and how its answers are asked for.
namespace hutch::cli {

/// JSON-RPC requests: `status`, `pool/status`, `pool/flush`, `sandbox/list`, `sandbox/info`,
/// `sandbox/destroy`, and `sandbox/attach`, behind whose answer the connection carries the frames of
/// sandbox/attach_frames.h.
sandbox::ControlSocket::Handler control_handler(sandbox::Manager& manager, sandbox::Attachments& attachments);

struct RunningServer {
  std::string id, folder;
};

std::string control_request(const std::string& method, nlohmann::ordered_json params = nullptr);

/// What one server answers. Throws what it could not do.
nlohmann::json ask_server(const RunningServer& server, const std::string& method,
                          nlohmann::ordered_json params = nullptr,
                          std::chrono::seconds timeout = std::chrono::seconds(10));

/// The servers that answer on this data folder now, with their answers to `method`; with --server that one.
/// One that hangs is named on stderr, and left out.
std::vector<std::pair<RunningServer, nlohmann::json>> ask_servers(const Options& options,
                                                                  const std::string& method,
                                                                  nlohmann::ordered_json params = nullptr);

}  // namespace hutch::cli
