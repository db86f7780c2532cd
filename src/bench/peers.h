#pragma once

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
///   In both, "note" is shown to people, and env holds what is added to our own environment.
struct Peer {
  std::string name;
  Json spec;
};

/// Throws Error(invalid_argument) for a file that is none, and names the entry that is wrong.
std::vector<Peer> load_peers(const std::string& file);
/// What is found without a file: bubblewrap.
std::vector<Peer> find_peers();

/// {"name", "kind", "figures": [{"measures", "spaced", "burst"}], "cycles"?} or {"name", "missing"}. Throws
/// Error. To be called while this process has no other thread.
Json run_peer(const Peer& peer, const Plan& plan);

}  // namespace hutch::bench
