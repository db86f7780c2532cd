#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include "wire/messages.h"

/// Starts the main process of a command; called by its supervisor, which is single-threaded.
namespace hutch::agent {

/// Limits and scores that commands get back, as they were when the agent started.
struct Inherited {
  rlimit open_files{};
  int oom_score_adj = 0;
};

struct SpawnResult {
  enum class Step { none, fork, chdir, exec };
  pid_t pid = -1;  // only without an error
  int error = 0;
  Step step = Step::none;
};

inline constexpr int kSupervisorOomScoreAdj = 0;
inline constexpr int kCommandOomScoreAdj = 500;

/// Raises the calling process's score to `wanted`; what the runtime set higher is meant and stays. Lowering
/// would need a privilege.
void raise_oom_score(int inherited, int wanted);

/// The process gets descriptors 0, 1, 2 of the caller and nothing else: all others must be close-on-exec.
/// It is the leader of a session of its own, with default signals and an empty mask.
SpawnResult spawn(const wire::Exec& request, const Inherited& inherited);

}  // namespace hutch::agent
