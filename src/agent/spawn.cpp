#include "agent/spawn.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

#include <algorithm>
#include <charconv>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "agent/sys.h"

namespace hutch::agent {
namespace {

constexpr std::string_view kDefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Everything the child needs, prepared before: it shares our memory and must not allocate.
struct Plan {
  char** argv = nullptr;
  char** envp = nullptr;
  const char* workdir = "/";
  bool terminal = false;
  std::string_view search_path = kDefaultPath;
  const User* user = nullptr;
  Inherited inherited;
  SpawnResult result;  // written by the child: it runs in our memory until exec
};

/// The packed strings already end with NUL, so only the array of pointers has to be made; `spare` more fit
/// in.
char** pointers(std::string_view packed, size_t spare = 0) {
  const auto count = static_cast<size_t>(std::count(packed.begin(), packed.end(), '\0'));
  auto** list = static_cast<char**>(calloc(count + spare + 1, sizeof(char*)));
  if (list == nullptr) return nullptr;
  for (size_t i = 0, at = 0; i < count; ++i) {
    list[i] = const_cast<char*>(packed.data()) + at;
    at += std::strlen(list[i]) + 1;
  }
  return list;
}

/// Those that are not there yet.
void add_variables(char** envp, const User& user) {
  for (const char* variable : user.variables) {
    const size_t name_bytes = std::strcspn(variable, "=") + 1;
    char** at = envp;
    while (*at != nullptr && std::strncmp(*at, variable, name_bytes) != 0) ++at;
    if (*at == nullptr && *variable != '\0') *at = const_cast<char*>(variable);
  }
}

/// Of two equal names the first counts, as in getenv.
std::string_view search_path(char* const* envp) {
  for (; *envp != nullptr; ++envp) {
    if (std::strncmp(*envp, "PATH=", 5) == 0) return *envp + 5;
  }
  return kDefaultPath;
}

/// Like execvpe, with the command's PATH instead of ours and without handing scripts to a shell.
/// Returns the errno to report: EACCES wins over the ENOENT of later folders.
int exec_in_path(const Plan& plan) {
  const char* name = plan.argv[0];
  if (*name == '\0') return ENOENT;
  if (std::strchr(name, '/') != nullptr) {
    execve(name, plan.argv, plan.envp);
    return errno;
  }
  int result = ENOENT;
  const size_t name_bytes = std::strlen(name) + 1;
  std::string_view rest = plan.search_path;
  for (;;) {
    const std::string_view folder = rest.substr(0, rest.find(':'));
    char file[PATH_MAX];
    if (folder.size() + 1 + name_bytes <= sizeof file) {
      std::copy(folder.begin(), folder.end(), file);
      const size_t slash = folder.empty() ? 0 : 1;  // an empty entry is the working folder
      if (slash == 1) file[folder.size()] = '/';
      std::memcpy(file + folder.size() + slash, name, name_bytes);
      execve(file, plan.argv, plan.envp);
      if (errno == EACCES)
        result = EACCES;
      else if (errno != ENOENT && errno != ENOTDIR)
        return errno;
    }
    if (folder.size() == rest.size()) return result;
    rest.remove_prefix(folder.size() + 1);
  }
}

/// Runs in the memory of the supervisor, which waits (CLONE_VFORK): only system calls, no allocation.
int run_child(void* argument) noexcept {
  auto& plan = *static_cast<Plan*>(argument);
  const auto fail = [&plan](SpawnResult::Step step, int error) {
    plan.result.error = error;
    plan.result.step = step;
    _exit(127);
  };
  setsid();
  if (plan.terminal) ioctl(0, TIOCSCTTY, 0);
  setrlimit(RLIMIT_NOFILE, &plan.inherited.open_files);
  if (!become(*plan.user)) fail(SpawnResult::Step::user, errno);
  if (chdir(plan.workdir) != 0) fail(SpawnResult::Step::chdir, errno);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);  // dispositions are all default since the agent's start
  fail(SpawnResult::Step::exec, exec_in_path(plan));
  return 127;
}

}  // namespace

OomScore::OomScore(int inherited)
    : inherited_(inherited), fd_(openat(kProcFd, "self/oom_score_adj", O_WRONLY | O_CLOEXEC)) {}

void OomScore::set(int wanted) const {
  if (!fd_) return;
  char text[8];
  const auto end = std::to_chars(text, text + sizeof text, std::max(wanted, inherited_)).ptr;
  (void)!pwrite(fd_.get(), text, static_cast<size_t>(end - text), 0);
}

SpawnResult spawn(const wire::Exec& request, const User& user, const Inherited& inherited) {
  Plan plan;
  plan.argv = pointers(request.argv.packed);
  plan.envp = pointers(request.env.packed, User::kVariables);
  // `workdir` lies between other fields of the frame and does not end with NUL.
  char* workdir = strndup(request.workdir.data(), request.workdir.size());
  if (plan.argv == nullptr || plan.envp == nullptr || workdir == nullptr) {
    return {-1, ENOMEM, SpawnResult::Step::fork};
  }
  if (*workdir != '\0') plan.workdir = workdir;
  add_variables(plan.envp, user);
  plan.user = &user;
  plan.search_path = search_path(plan.envp);
  plan.terminal = (request.options & wire::Exec::kTerminal) != 0;
  plan.inherited = inherited;

  alignas(16) static char stack[64 * 1024];
  // clone with CLONE_VM: an ordinary fork would copy page tables only for exec to throw them away.
  const pid_t pid = clone(run_child, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, &plan);
  if (pid < 0) return {-1, errno, SpawnResult::Step::fork};
  if (plan.result.error != 0) {
    (void)retry_eintr([&] { return waitpid(pid, nullptr, 0); });
    return plan.result;
  }
  plan.result.pid = pid;
  return plan.result;
}

}  // namespace hutch::agent
