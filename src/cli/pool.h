#pragma once

#include "sandbox/control_socket.h"
#include "sandbox/manager.h"

namespace hutch::cli {

/// What a server answers on its control socket: JSON-RPC requests `pool/status` and `pool/flush`.
sandbox::ControlSocket::Handler control_handler(sandbox::Manager& manager);

}  // namespace hutch::cli
