#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <string_view>

#include "sandbox/manager.h"
#include "tools/services.h"

/// What several tools share: finding the sandbox of a call, and words for people and models.
namespace hutch::tools {

inline constexpr const char* kSandboxIdHelp = "Default: the default sandbox.";

/// The sandbox of a call, and what the caller should be told about it (empty, or a line without its end).
struct Target {
  std::shared_ptr<sandbox::Sandbox> sandbox;
  std::string note;
  uint64_t refusals_before = 0;  // of its network, see refusal_views()
};
/// `id_or_name` empty: the default sandbox, which may have to be made: `context` hears of that and can give
/// it up. Throws not_found, which names the live ones.
Target find_target(Services& services, const std::string& id_or_name,
                   const mcp::CallContext& context = mcp::CallContext());
/// Tells the caller of what takes long; valid as long as `context` is.
sandbox::Progress progress_of(const mcp::CallContext& context);

/// "0.84 s", "3 ms", "2 min 5 s".
std::string in_words(std::chrono::milliseconds duration);
/// "812 bytes", "4.0 kB", "1.5 GB".
std::string size_in_words(uint64_t bytes);
/// "2026-11-21T03:04:05Z".
std::string iso_time(sandbox::WallClock::time_point when);
/// "SIGKILL"; "signal 99" when it has no name.
std::string signal_name(int number);

/// Adds `line` and a line end, when there is something to add.
void add_line(std::string& text, std::string_view line);

}  // namespace hutch::tools
