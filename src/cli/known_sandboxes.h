#pragma once

#include <string>
#include <vector>

#include "cli/control.h"

namespace hutch::cli {

struct KnownSandbox {
  RunningServer server;
  std::string id, name;
  bool ended = false;
};

/// "sbx-1a2b3c4d5e6f (name)".
std::string shown(const KnownSandbox& sandbox);

/// What the sandboxes of all running servers are called. Ended ones follow the live ones, the latest first.
std::vector<KnownSandbox> known_sandboxes(const Options& options);

/// The live one of that id or name; with `or_ended` else the latest that has ended. Throws not_found, which
/// names the live ones, and conflict when several servers have that name.
KnownSandbox find_known(const std::vector<KnownSandbox>& all, const std::string& id_or_name,
                        bool or_ended = false);

}  // namespace hutch::cli
