#pragma once

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

/// JSON-RPC requests: `pool/status`, `pool/flush`, `sandbox/list`, and `sandbox/attach`, behind whose answer
/// the connection carries the frames of sandbox/attach_frames.h.
sandbox::ControlSocket::Handler control_handler(sandbox::Manager& manager, sandbox::Attachments& attachments);

struct RunningServer {
  std::string id, folder;
};

std::string control_request(const std::string& method, nlohmann::ordered_json params = nullptr);

/// The servers that answer on this data folder now, with their answers to `method`; with --server that one.
std::vector<std::pair<RunningServer, nlohmann::json>> ask_servers(const Options& options,
                                                                  const std::string& method);

}  // namespace hutch::cli
