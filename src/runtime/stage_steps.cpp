#include "runtime/stage.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <ftw.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <linux/securebits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/fsuid.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <initializer_list>
#include <map>
#include <string_view>

#include "base/sys.h"
#include "runtime/stage_network.h"
#include "runtime/volume_target.h"

namespace hutch::runtime {

namespace {

void check(long rc, std::string_view call, const std::string& object) {
  if (rc < 0) throw sys_error(errno, call, object);
}

uint32_t number(const std::string& text) {
  return static_cast<uint32_t>(std::stoul(text));
}

/// All that one step leaves to the next ones inside this process.
struct State {
  UniqueFd shift;  // a user namespace that says how owners are shifted
  std::string first_id, count;
  std::map<std::string, UniqueFd> layer_shifts;  // by the first id on the layer's disk
  bool unshifted = false;  // the latest bind_shifted had to leave the owners as they are
  UniqueFd own_fds;        // the folder that says where descriptors of this process are
};

void do_wait(State&, const StageStep&) {
  char go = 0;
  const ssize_t n = sys::retry_eintr([&] { return ::read(kStageGoFd, &go, 1); });
  check(n, "read", "the server's word");
  if (n == 0) throw Error(Errc::unavailable, "the server has ended or given up");
}

void do_join(State&, const StageStep& s) {
  sys::write_file(s[1], "0");
}

/// For all users of the user namespace that this process is in.
void cap_counts(const StageStep& s, size_t first) {
  for (size_t i = first; i < s.size(); i += 2) {
    const std::string path = "/proc/sys/user/" + s[i];
    sys::write_file(path, s.at(i + 1));
    const std::string found = sys::read_file(path);
    if (found != s[i + 1] + "\n")
      throw Error(Errc::unavailable,
                  fmt::format("wrote {} to {}, the kernel keeps {}", s[i + 1], path, found));
  }
}

void do_user_namespace(State&, const StageStep& s) {
  const uid_t uid = ::geteuid();
  const gid_t gid = ::getegid();
  check(::unshare(CLONE_NEWUSER), "unshare", "user namespace");
  sys::write_file("/proc/self/setgroups", "deny");  // the kernel's condition for an unprivileged gid_map
  sys::write_file("/proc/self/uid_map", fmt::format("0 {} 1", uid));
  sys::write_file("/proc/self/gid_map", fmt::format("0 {} 1", gid));
  cap_counts(s, 1);
}

void do_private_mounts(State&, const StageStep&) {
  check(::unshare(CLONE_NEWNS), "unshare", "mount namespace");
  check(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), "make private", "/");
}

void do_tmpfs(State&, const StageStep& s) {
  check(::mount("tmpfs", s[1].c_str(), "tmpfs", MS_NOSUID | MS_NODEV, s[2].c_str()), "mount tmpfs on", s[1]);
}

void do_dir(State&, const StageStep& s) {
  const uint32_t mode = number(s[2]), owner = number(s[3]);
  if (::mkdir(s[1].c_str(), mode) != 0) {
    if (errno == EEXIST) return;
    throw sys_error(errno, "mkdir", s[1]);
  }
  if (owner != ::geteuid()) check(::chown(s[1].c_str(), owner, owner), "chown", s[1]);
  if ((mode & ~01777u) != 0) check(::chmod(s[1].c_str(), mode), "chmod", s[1]);  // mkdir does not take them
}

void do_dir_like(State&, const StageStep& s) {
  struct stat like {};
  check(::stat(s[2].c_str(), &like), "stat", s[2]);
  check(::mkdir(s[1].c_str(), 0700), "mkdir", s[1]);
  check(::chown(s[1].c_str(), like.st_uid, like.st_gid), "chown", s[1]);
  check(::chmod(s[1].c_str(), like.st_mode & 07777), "chmod", s[1]);
}

void do_change_dir(State&, const StageStep& s) {
  const UniqueFd folder(static_cast<int>(number(s[1])));
  check(::fchdir(folder.get()), "chdir", "the folder");
}

void do_file(State&, const StageStep& s) {
  sys::write_file(s[1], s[2], 0600);
}

/// What the kernel counts per user is charged to the owner of a user namespace too, up to the initial one: as
/// root's, all sandboxes and the host would share 128 inotify instances. The owner is whoever makes it.
[[noreturn]] void own_user_namespace(const StageStep& s, sys::Pipe& told) noexcept {
  std::string word = "made";
  try {
    const uint32_t id = number(s.at(1));
    told.read_end.reset();
    // Keeps the capabilities: hosts that let nobody without power make one (AppArmor on Ubuntu,
    // kernel.unprivileged_userns_clone) let us. They end with the step into the namespace.
    (void)::prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP);
    check(::setresgid(id, id, id), "setresgid", s[1]);
    check(::setresuid(id, id, id), "setresuid", s[1]);
    check(::unshare(CLONE_NEWUSER), "unshare", "user namespace");
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // the changes of user above would have cleared it
    cap_counts(s, 4);
  } catch (const std::exception& e) {
    word = e.what();
  }
  if (::write(told.write_end.get(), word.data(), word.size()) < 0) ::_exit(1);
  for (;;) ::pause();
}

/// Ends a child of ours that only had to be there.
struct Child {
  pid_t pid;
  ~Child() {
    ::kill(pid, SIGKILL);
    (void)::waitpid(pid, nullptr, 0);
  }
};

void do_id_range(State& state, const StageStep& s) {
  sys::Pipe told = sys::pipe();
  const pid_t pid = ::fork();
  check(pid, "fork", "user namespace");
  if (pid == 0) own_user_namespace(s, told);
  const Child child{pid};
  told.write_end.reset();
  char word[500];
  const ssize_t n = sys::retry_eintr([&] { return ::read(told.read_end.get(), word, sizeof word); });
  if (const std::string_view said(word, static_cast<size_t>(std::max<ssize_t>(n, 0))); said != "made")
    throw Error(Errc::unavailable, said.empty() ? "its process ended" : std::string(said));
  const std::string proc = fmt::format("/proc/{}", pid), map = fmt::format("0 {} {}", s[1], s.at(2));
  sys::write_file(proc + "/uid_map", map);
  sys::write_file(proc + "/gid_map", map);
  state.shift = sys::open(proc + "/ns/user", O_RDONLY);
  state.first_id = s[1];
  state.count = s[2];
  sys::write_file(s.at(3), "");
  check(::mount((proc + "/ns/user").c_str(), s[3].c_str(), nullptr, MS_BIND, nullptr), "bind", s[3]);
}

void do_limit(State&, const StageStep& s) {
  const rlim_t value = std::stoull(s[2]);
  const rlimit limit{value, value};
  check(::setrlimit(static_cast<__rlimit_resource>(number(s[1])), &limit), "setrlimit", s[1]);
}

void move_mount_to(int mount, const std::string& target) {
  check(::syscall(SYS_move_mount, mount, "", AT_FDCWD, target.c_str(), MOVE_MOUNT_F_EMPTY_PATH), "move_mount",
        target);
}

UniqueFd clone_tree(const std::string& path) {
  UniqueFd tree(static_cast<int>(
      ::syscall(SYS_open_tree, AT_FDCWD, path.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)));
  check(tree.get(), "open_tree", path);
  return tree;
}

/// Of a mount that is nowhere yet. -1 and errno when that cannot be.
long restrict_mount(int mount, int shift, bool read_only = true) {
  mount_attr attributes{};
  attributes.attr_set = (read_only ? MOUNT_ATTR_RDONLY : 0) | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
  if (shift >= 0) {
    attributes.attr_set |= MOUNT_ATTR_IDMAP;
    attributes.userns_fd = static_cast<uint64_t>(shift);
  }
  return ::syscall(SYS_mount_setattr, mount, "", AT_EMPTY_PATH, &attributes, sizeof attributes);
}

void do_attach(State&, const StageStep& s) {
  const UniqueFd mount(static_cast<int>(number(s[1])));
  move_mount_to(mount.get(), s[2]);
}

/// A namespace in which nothing runs: it only says which ids of a disk are which of ours.
UniqueFd shift_from(const std::string& first_on_disk, const State& state) {
  sys::Pipe made = sys::pipe();
  const pid_t pid = ::fork();
  check(pid, "fork", "user namespace");
  if (pid == 0) {
    const bool done = ::unshare(CLONE_NEWUSER) == 0;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (!done || ::write(made.write_end.get(), "m", 1) != 1) ::_exit(1);
    for (;;) ::pause();
  }
  const Child child{pid};
  made.write_end.reset();
  char word = 0;
  if (sys::retry_eintr([&] { return ::read(made.read_end.get(), &word, 1); }) != 1)
    throw Error(Errc::unavailable, "no user namespace can be made for the layer's owners");
  const std::string proc = fmt::format("/proc/{}", pid);
  const std::string map = fmt::format("{} {} {}", first_on_disk, state.first_id, state.count);
  sys::write_file(proc + "/uid_map", map);
  sys::write_file(proc + "/gid_map", map);
  return sys::open(proc + "/ns/user", O_RDONLY);
}

/// -1: a server without privileges has nothing to shift.
int layer_shift(State& state, const std::string& first_on_disk) {
  if (!state.shift || first_on_disk == "0") return state.shift.get();
  UniqueFd& shift = state.layer_shifts[first_on_disk];
  if (!shift) shift = shift_from(first_on_disk, state);
  return shift.get();
}

void do_attach_layer(State& state, const StageStep& s) {
  const UniqueFd mount(static_cast<int>(number(s[1])));
  check(restrict_mount(mount.get(), layer_shift(state, s[3])), "mount_setattr", s[2]);
  move_mount_to(mount.get(), s[2]);
}

void do_bind_layer(State& state, const StageStep& s) {
  const UniqueFd tree = clone_tree(s[1]);
  check(restrict_mount(tree.get(), layer_shift(state, s[3])), "mount_setattr", s[1]);
  move_mount_to(tree.get(), s[2]);
}

void do_bind(State&, const StageStep& s) {
  check(::mount(s[1].c_str(), s[2].c_str(), nullptr, MS_BIND, nullptr), "bind", s[1]);
}

void do_bind_shifted(State& state, const StageStep& s) {
  const UniqueFd tree = clone_tree(s[1]);
  long rc = restrict_mount(tree.get(), state.shift.get());
  state.unshifted = rc != 0 && state.shift && (errno == EINVAL || errno == EPERM);
  if (state.unshifted) rc = restrict_mount(tree.get(), -1);
  check(rc, "mount_setattr", s[1]);
  move_mount_to(tree.get(), s[2]);
}

void do_own_unshifted(State& state, const StageStep& s) {
  if (!state.unshifted) return;
  static uint32_t owner;  // ::nftw() passes nothing on
  owner = number(s[2]);
  const auto own = [](const char* path, const struct stat*, int, FTW*) {
    return ::lchown(path, owner, owner) == 0 ? 0 : errno;
  };
  const int err = ::nftw(s[1].c_str(), own, 16, FTW_PHYS);
  if (err != 0) throw sys_error(err < 0 ? errno : err, "chown", s[1]);
}

void do_enter(State& state, const StageStep& s) {
  const UniqueFd mounts(static_cast<int>(number(s[1])));
  const UniqueFd root(static_cast<int>(number(s[3])));
  state.shift = UniqueFd(static_cast<int>(number(s[2])));
  // Of the host: what it says of us the sandbox's own does not know.
  state.own_fds = sys::open("/proc/self/fd", O_RDONLY | O_DIRECTORY);
  check(::setns(mounts.get(), CLONE_NEWNS), "setns", "the sandbox's mounts");
  check(::fchdir(root.get()), "chdir", "the sandbox's root");
  check(::chroot("."), "chroot", "the sandbox's root");
}

/// Makes files as the sandbox's root would, for as long as it lives.
class AsOwner {
 public:
  explicit AsOwner(uint32_t owner) {
    (void)::prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP);  // keeps the power to enter any folder
    ::setfsgid(owner);
    ::setfsuid(owner);
  }
  ~AsOwner() {
    ::setfsuid(::geteuid());
    ::setfsgid(::getegid());
  }
  AsOwner(const AsOwner&) = delete;
  AsOwner& operator=(const AsOwner&) = delete;
};

/// Where the path leads when `root` is the root, and -1 with errno.
UniqueFd open_inside(int root, const std::string& path) {
  open_how how{.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
               .mode = 0,
               .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
  return UniqueFd(static_cast<int>(::syscall(SYS_openat2, root, path.c_str(), &how, sizeof how)));
}

std::string where(const State& state, int fd) {
  char path[4096];
  const ssize_t n = ::readlinkat(state.own_fds.get(), std::to_string(fd).c_str(), path, sizeof path);
  check(n, "readlink", "the mount point");
  return {path, static_cast<size_t>(n)};
}

[[noreturn]] void refuse_target(const std::string& target, std::string_view why) {
  throw Error(Errc::invalid_argument, fmt::format("no volume can be mounted at '{}': {}", target, why));
}

/// A folder at the end of `target`, made as far as it is missing. The tree may be anybody's: what counts is
/// where the descriptor is in the end.
UniqueFd mount_point(State& state, const std::string& root, const std::string& target, uint32_t owner) {
  if (!state.own_fds) state.own_fds = sys::open("/proc/self/fd", O_RDONLY | O_DIRECTORY);
  const UniqueFd top = sys::open(root, O_PATH | O_DIRECTORY);
  const AsOwner as_owner(owner);
  UniqueFd at = open_inside(top.get(), "/");
  check(at.get(), "open", root);
  for (size_t end = 0; end != std::string::npos;) {
    const size_t start = end + 1;
    end = target.find('/', start);
    const std::string path = target.substr(0, end), name = path.substr(start);
    UniqueFd next = open_inside(top.get(), path);
    if (!next && errno == ENOENT && (::mkdirat(at.get(), name.c_str(), 0755) == 0 || errno == EEXIST))
      next = open_inside(top.get(), path);
    if (!next && errno == ENOTDIR) refuse_target(target, path + " is no folder");
    if (!next && errno == ENOENT) refuse_target(target, path + " is a link to nothing");
    if (!next && errno == ELOOP) refuse_target(target, path + " is a link that leads in a circle");
    check(next.get(), "make", path);
    at = std::move(next);
  }
  const std::string base = where(state, top.get()), found = where(state, at.get());
  const size_t cut = base == "/" ? 0 : base.size();
  if (found != base && !found.starts_with(base + (cut == 0 ? "" : "/")))
    refuse_target(target, "it leads out of the sandbox");
  if (const auto why = refused_target(found.substr(cut)); !why.empty())
    refuse_target(target, fmt::format("it leads to {}, and {}", found.substr(cut), why));
  return at;
}

void place_volume(State& state, const UniqueFd& mount, const std::vector<std::string>& words) {
  const std::string &root = words[2], &target = words[3];
  if (restrict_mount(mount.get(), state.shift.get(), words[4] == "ro") != 0) {
    const int err = errno;
    if (state.shift && (err == EINVAL || err == ENOSYS))
      throw Error(Errc::unavailable,
                  "the owners of its files cannot be those of the sandbox: that takes Linux 5.12 and a file "
                  "system that can shift owners, such as ext4");
    throw sys_error(err, "mount_setattr", target);
  }
  const UniqueFd point = mount_point(state, root, target, number(words[5]));
  check(::syscall(SYS_move_mount, mount.get(), "", point.get(), "",
                  MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH),
        "move_mount", target);
}

void do_attach_volume(State& state, const StageStep& s) {
  place_volume(state, UniqueFd(static_cast<int>(number(s[1]))), s);
}

void do_bind_volume(State& state, const StageStep& s) {
  place_volume(state, clone_tree(s[1]), s);
}

void do_network(State&, const StageStep& s) {
  const auto fd = [&](size_t word) { return UniqueFd(static_cast<int>(number(s.at(word)))); };
  attach_network({.agent = fd(1),
                  .users = fd(2),
                  .network = fd(3),
                  .pasta = s.at(4),
                  .allow = {s.begin() + 5, s.end()}});
}

void mount_overlay(const std::string& options, const std::string& target, unsigned long flags,
                   std::initializer_list<const char*> extras) {
  for (const char* extra : extras) {
    if (::mount("hutch", target.c_str(), "overlay", MS_NOSUID | MS_NODEV | flags,
                (options + extra).c_str()) == 0)
      return;
    if (errno != EINVAL && errno != EPERM) break;
  }
  throw sys_error(errno, "mount overlay on", target);
}

void do_overlay(State&, const StageStep& s) {
  // volatile: without it the last unmount writes everything that is still dirty in the upper layer to the
  // disk, and ending a sandbox with 1 GB of unwritten data takes as long as the disk needs (Linux 5.10).
  // userxattr: what a mount in a user namespace needs (Linux 5.11).
  mount_overlay(fmt::format("lowerdir={},upperdir={},workdir={}", s[1], s[2], s[3]), s[4], 0,
                {",volatile", ",volatile,userxattr", ",userxattr", ""});
}

void do_overlay_read_only(State&, const StageStep& s) {
  mount_overlay(fmt::format("lowerdir={}:{}", s[1], s[2]), s[3], MS_RDONLY, {"", ",userxattr"});
}

void do_open(State&, const StageStep& s) {
  const int flags = s[3] == "r"    ? O_RDONLY | O_NONBLOCK
                    : s[3] == "rw" ? O_RDWR | O_NONBLOCK
                    : s[3] == "a"  ? O_WRONLY | O_APPEND | O_CREAT
                                   : O_WRONLY;
  const UniqueFd fd = sys::open(s[2], flags, 0600);
  check(::dup2(fd.get(), static_cast<int>(number(s[1]))), "dup2", s[2]);
}

/// A detached mount of the program alone, which can be read and executed through this descriptor only.
UniqueFd read_only_program(const std::string& path) {
  UniqueFd tree = clone_tree(path);
  mount_attr attributes{};
  attributes.attr_set = MOUNT_ATTR_RDONLY;
  check(::syscall(SYS_mount_setattr, tree.get(), "", AT_EMPTY_PATH, &attributes, sizeof attributes),
        "mount_setattr", path);
  return tree;
}

/// The words from `first` to `end`, as exec wants them.
std::vector<char*> pointers(const StageStep& s, size_t first, size_t end) {
  std::vector<char*> out;
  for (size_t i = first; i < end; ++i) out.push_back(const_cast<char*>(s.at(i).c_str()));
  out.push_back(nullptr);
  return out;
}

void end_with(const std::string& parent) {
  check(::prctl(PR_SET_PDEATHSIG, SIGKILL), "prctl", "the end of the server");
  if (std::to_string(::getppid()) != parent) throw Error(Errc::unavailable, "the server has ended");
}

void do_pid_namespace(State&, const StageStep& s) {
  end_with(s[1]);
  check(::unshare(CLONE_NEWPID), "unshare", "PID namespace");
  sys::Pipe alive = sys::pipe();
  const pid_t pid = ::fork();
  check(pid, "fork", "PID namespace");
  if (pid != 0) {
    int status = 0;
    (void)sys::retry_eintr([&] { return ::waitpid(pid, &status, 0); });
    ::_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
  }
  // From inside, the parent has no number that would tell whether it still lives.
  check(::prctl(PR_SET_PDEATHSIG, SIGKILL), "prctl", "the end of the server");
  alive.write_end.reset();
  pollfd parent{.fd = alive.read_end.get(), .events = 0, .revents = 0};
  if (::poll(&parent, 1, 0) != 0) throw Error(Errc::unavailable, "the server has ended");
  check(::mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr), "mount", "/proc");
}

void do_exec_tool(State&, const StageStep& s) {
  end_with(s.at(1));
  const size_t first = 3 + std::stoul(s.at(2));
  const auto env = pointers(s, 3, first), argv = pointers(s, first, s.size());
  ::umask(022);
  ::execve(argv[0], argv.data(), env.data());
  throw sys_error(errno, "exec", s.at(first));
}

void do_exec(State&, const StageStep& s) {
  const auto argv = pointers(s, 1, s.size());
  char path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
  char mark[] = "_LIBCONTAINER_CLONED_BINARY=1";
  char* env[] = {path, mark, nullptr};
  const UniqueFd program = read_only_program(s.at(1));
  ::syscall(SYS_execveat, program.get(), "", argv.data(), env, AT_EMPTY_PATH);
  if (errno == ENOENT) {  // a script: its interpreter cannot open a descriptor that the exec closes
    env[1] = nullptr;
    ::execve(argv[0], argv.data(), env);
  }
  throw sys_error(errno, "exec", s.at(1));
}

struct Verb {
  std::string_view name;
  size_t words;  // 0 = any number
  void (*run)(State&, const StageStep&);
};

constexpr Verb kVerbs[] = {{"wait", 1, do_wait},
                           {"join", 2, do_join},
                           {"user_namespace", 0, do_user_namespace},
                           {"private_mounts", 1, do_private_mounts},
                           {"tmpfs", 3, do_tmpfs},
                           {"dir", 4, do_dir},
                           {"dir_like", 3, do_dir_like},
                           {"change_dir", 2, do_change_dir},
                           {"file", 3, do_file},
                           {"id_range", 0, do_id_range},
                           {"limit", 3, do_limit},
                           {"attach", 3, do_attach},
                           {"attach_layer", 4, do_attach_layer},
                           {"bind_layer", 4, do_bind_layer},
                           {"bind", 3, do_bind},
                           {"bind_shifted", 3, do_bind_shifted},
                           {"own_unshifted", 3, do_own_unshifted},
                           {"overlay", 5, do_overlay},
                           {"overlay_read_only", 4, do_overlay_read_only},
                           {"open", 4, do_open},
                           {"enter", 4, do_enter},
                           {"attach_volume", 6, do_attach_volume},
                           {"bind_volume", 6, do_bind_volume},
                           {"network", 0, do_network},
                           {"exec", 0, do_exec},
                           {"pid_namespace", 2, do_pid_namespace},
                           {"exec_tool", 0, do_exec_tool}};

void run_step(State& state, const StageStep& step) {
  for (const auto& verb : kVerbs)
    if (verb.name == step.at(0) && (verb.words == 0 || verb.words == step.size()))
      return verb.run(state, step);
  throw Error(Errc::internal, "unknown stage step " + step.at(0));
}

}  // namespace

int run_stage() noexcept {
  std::string problem;
  int code = 71;  // EX_OSERR
  try {
    ::prctl(PR_SET_NAME, "hutch-stage");  // not the number of the descriptor that it was executed from
    ::umask(0);
    for (const int fd : {kStageStatusFd, kStageGoFd}) ::fcntl(fd, F_SETFD, FD_CLOEXEC);
    const std::string plan = sys::read_all(kStagePlanFd);
    ::close(kStagePlanFd);
    State state;
    for (const auto& step : parse_stage_plan(plan)) {
      if (step == StageStep{"end"}) return 0;
      during(stage_step_text(step), [&] { run_step(state, step); });
    }
    problem = "the plan does not end";
  } catch (const Error& e) {
    if (e.code() == Errc::invalid_argument) code = kStageRefused;
    problem = code == kStageRefused ? e.what() : error_text(e);
  } catch (const std::exception& e) {
    problem = e.what();
  }
  (void)!::write(kStageStatusFd, problem.data(), problem.size());
  return code;
}

}  // namespace hutch::runtime
