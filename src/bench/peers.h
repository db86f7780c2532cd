#pragma once

#include "bench/line_program.h"
#include "bench/measure.h"

namespace hutch::bench {

/// Another program that does such work, as the peers file describes it:
///   {"name", "missing": "why"}                                 named and left out
///   {"name", "kind": "command", "measures", "argv", "env"?, "cycles"?: true, "unmount"?: [folder]}
///       timed from posix_spawn to exit code 0. "{id}" in argv becomes a fresh name. cycles: also in loops
///       side by side. unmount: measured from a mount namespace of its own in which these are not mounted.
///   {"name", "kind": "mcp", "argv", "env"?, "start"?: true, "calls": [{"measures", "tool", "arguments",
///   "expect"?}]}
///       an MCP server. A list as arguments is taken in turn; an answer's text must contain `expect`.
///   {"name", "kind": "relay", "argv", "env"?, "config"?}
///       passes connections to 127.0.0.1:{listen} on to 127.0.0.1:{target}. {folder} is an empty one of its
///       own, in which "config" lies as a file of that name. Measured in turn with the ports of sandboxes.
///   In all, "note" is shown to people, and env holds what is added to our own environment.
struct Peer {
  std::string name;
  Json spec;
};

bool is_relay(const Peer& peer);
/// What to start, with its program's path. Throws Error(unavailable) when that is not in PATH.
ServerCommand command_of(const Json& spec);

/// Throws Error(invalid_argument) for a file that is none, and names the entry that is wrong.
std::vector<Peer> load_peers(const std::string& file);
/// What is found without a file: bubblewrap.
std::vector<Peer> find_peers();

/// {"name", "kind", "figures": [{"measures", "spaced", "burst"}], "cycles"?} or {"name", "missing"}. Throws
/// Error. To be called while this process has no other thread.
Json run_peer(const Peer& peer, const Plan& plan);

}  // namespace hutch::bench
