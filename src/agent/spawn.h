#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include "agent/user.h"
#include "base/unique_fd.h"
#include "wire/messages.h"

/// Starts the main process of a command; called by its supervisor, which is single-threaded.
namespace hutch::agent {

/// Limits and scores that commands get back, as they were when the agent started.
struct Inherited {
  rlimit open_files{};
  int oom_score_adj = 0;
};

struct SpawnResult {
  enum class Step { none, fork, user, chdir, exec };
  pid_t pid = -1;  // only without an error
  int error = 0;
  Step step = Step::none;
};

inline constexpr int kSupervisorOomScoreAdj = 0;
inline constexpr int kCommandOomScoreAdj = 500;

/// The calling process's score. What the runtime set higher is meant and stays: going below that would need a
/// privilege, going back from what we set ourselves does not.
class OomScore {
 public:
  explicit OomScore(int inherited);
  void set(int wanted) const;

 private:
  int inherited_;
  UniqueFd fd_;  // opened once: finding it costs more than writing
};

/// The process gets descriptors 0, 1, 2 of the caller and nothing else: all others must be close-on-exec.
/// It is the leader of a session of its own, with default signals, an empty mask and the caller's oom score,
/// and has the powers of `user`. HOME, USER and LOGNAME are that one's unless the request says otherwise.
SpawnResult spawn(const wire::Exec& request, const User& user, const Inherited& inherited);

}  // namespace hutch::agent
