#pragma once

#include <string>

namespace hutch::runtime {

/// The path of the guest agent's binary: carried inside this program and written to the data folder once,
/// under a name that holds its digest. Nothing inside a sandbox can write it: it belongs to the host's root
/// and is bound read-only.
std::string ready_agent_binary(const std::string& data_folder);

}  // namespace hutch::runtime
