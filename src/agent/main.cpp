#include <string_view>

#include "agent/agent.h"
#include "agent/startup.h"
#include "agent/sys.h"

/// hutch-agent [--no-seccomp]
///
/// The option is for runtimes that do not implement seccomp inside (gVisor has its own kernel in between);
/// only the starter can give it.
int main(int argc, char** argv) {
  const bool load_seccomp = !(argc > 1 && std::string_view(argv[1]) == "--no-seccomp");
  const hutch::agent::Inherited inherited = hutch::agent::start_up(load_seccomp);
  static hutch::agent::Agent agent;  // in the bss: untouched pages of its buffers take no memory
  if (!agent.open(inherited)) {
    dprintf(2, "hutch-agent: cannot wait for events: %s\n", strerrorname_np(errno));
    _exit(70);
  }
  agent.run();
  _exit(0);  // the end of PID 1 ends every process of the sandbox
}
