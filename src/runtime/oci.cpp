#include "runtime/oci.h"

#include <fmt/format.h>
#include <linux/magic.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <charconv>

#include "base/sys.h"
#include "runtime/agent_binary.h"
#include "runtime/bundle.h"
#include "runtime/rootfs.h"
#include "runtime/stage.h"

namespace hutch::runtime {

namespace {

std::string base_name(const std::string& path) {
  return path.substr(path.rfind('/') + 1);
}

/// The folder that the stage process covers with a tmpfs of its own to build the root file system in. It must
/// not hide the data folder or a host path, and everybody must be able to pass through it: the runtime looks
/// the root up as the sandbox's unprivileged root (a data folder below /root would not do).
std::string staging_folder(const SandboxSpec& spec) {
  const auto hides = [](const std::string& folder, const std::string& path) {
    return (path + "/").starts_with(folder + "/");
  };
  for (const char* candidate : {"/mnt", "/srv", "/media", "/run", "/tmp"}) {
    struct stat st {};
    bool fits = ::stat(candidate, &st) == 0 && S_ISDIR(st.st_mode) && !hides(candidate, spec.data_folder);
    for (const auto& path : spec.host_paths) fits = fits && !hides(candidate, path);
    if (fits) return candidate;
  }
  throw Error(Errc::unavailable,
              "no folder to build the root file system in: /mnt, /srv, /media, /run or /tmp")
      .hint("mkdir /mnt");
}

/// File systems that cannot be the upper layer of an overlay; then the layer is a tmpfs, counted as memory.
bool can_be_upper(const std::string& folder) {
  struct statfs fs {};
  if (::statfs(folder.c_str(), &fs) != 0) return false;
  switch (static_cast<unsigned long>(fs.f_type)) {
    case OVERLAYFS_SUPER_MAGIC:
    case NFS_SUPER_MAGIC:
    case FUSE_SUPER_MAGIC:
    case V9FS_MAGIC:
    case MSDOS_SUPER_MAGIC:
      return false;
    default:
      return true;
  }
}

struct Layout {
  std::string base, root, agent;
  bool layer_on_disk = true;
};

/// Folders inside the view that a host path needs as mount points and that are not there yet, parents first.
void make_mount_point(StagePlan& plan, const std::string& root, const LowerTree& tree, uint32_t owner) {
  for (size_t end = tree.target.find('/', 1); end != std::string::npos;
       end = tree.target.find('/', end + 1)) {
    const std::string parent = tree.target.substr(0, end);
    if (parent != "/usr" && parent != "/etc") plan.make_dir(root + parent, 0755, owner);
  }
  if (tree.is_file)
    plan.make_file(root + tree.target);
  else
    plan.make_dir(root + tree.target, 0755, owner);
}

/// Root file system: an overlay over the skeleton, and on it one overlay (or read-only bind, for a file) per
/// host tree.
void plan_rootfs(StagePlan& plan, const SandboxSpec& spec, const HostRootfs& rootfs, const Layout& at) {
  const std::string layer = at.base + "/layer";
  plan.make_dir(layer, 0700, 0);
  if (at.layer_on_disk)
    plan.bind(spec.folder + "/layer", layer);
  else
    plan.mount_tmpfs(layer, "mode=0700");
  if (spec.first_id != 0) plan.id_range(spec.first_id, 65536);

  const auto view = [&](const std::string& source, const std::string& name, const std::string& target) {
    struct stat st {};
    ::stat(source.c_str(), &st);
    const std::string lower = at.base + "/lower-" + name, state = layer + "/" + name;
    plan.make_dir(lower, 0755, 0);
    plan.bind_shifted(source, lower);
    plan.make_dir(state, 0700, 0);
    plan.make_dir(state + "/upper", st.st_mode & 07777, spec.first_id);
    plan.make_dir(state + "/work", 0700, spec.first_id);
    plan.mount_overlay(lower, state, target);
  };
  plan.make_dir(at.root, 0755, 0);
  view(rootfs.skeleton, "root", at.root);
  for (size_t i = 0; i < rootfs.lower.size(); ++i) {
    const LowerTree& tree = rootfs.lower[i];
    make_mount_point(plan, at.root, tree, spec.first_id);
    if (tree.is_file)
      plan.bind_shifted(tree.source, at.root + tree.target);
    else
      view(tree.source, std::to_string(i), at.root + tree.target);
  }
}

/// The agent's binary, at a path that tells nothing of the host: the runtime binds it to its place from
/// there.
void plan_agent(StagePlan& plan, const std::string& binary, const Layout& at) {
  const std::string lower = at.base + "/lower-agent", empty = at.base + "/empty",
                    view = at.base + "/view-agent";
  for (const auto& folder : {lower, empty, view}) plan.make_dir(folder, 0755, 0);
  plan.bind(binary.substr(0, binary.rfind('/')), lower);
  plan.mount_read_only_view(lower, empty, view);
}

/// For runtimes that insist on a group of their own: one below ours. On v1 a relative path is looked up below
/// the group of the stage process, in each controller; on v2 runc would take that below the parent of it, and
/// out of our limits.
std::string own_cgroup_path(const SandboxSpec& spec, const CgroupHost& cgroups) {
  if (!cgroups.v2()) return "runtime";
  return spec.cgroup.folders().at("").substr(cgroups.v2_mount().size()) + "/runtime";
}

/// What the bundle and the agent bring about or fail at; limits come on top.
Isolation always_isolated(const SandboxSpec& spec, bool layer_on_disk) {
  return {
      {"files",
       {true, "the host's programs are read-only; what is written goes to a layer of the sandbox's own"}},
      {"users",
       {true, spec.first_id != 0 ? fmt::format("root inside is the unprivileged id {} outside", spec.first_id)
                                 : "root inside is the server's own user outside"}},
      {"network", {true, "none but a loopback of its own"}},
      {"processes", {true, "own pid, ipc, uts, mount and cgroup namespaces; the agent is PID 1"}},
      {"system_calls", {true, "seccomp allow-list, no_new_privs, 11 capabilities over its own namespaces"}},
      {"disk", {false, layer_on_disk ? "the size of its files is not limited" : "its files count as memory"}},
  };
}

pid_t read_pid(const std::string& path) {
  const std::string text = sys::read_file(path);
  pid_t pid = 0;
  std::from_chars(text.data(), text.data() + text.size(), pid);
  if (pid <= 0) throw Error(Errc::internal, fmt::format("{} holds no process number: '{}'", path, text));
  return pid;
}

UniqueFd memory_file(const std::string& content) {
  UniqueFd fd(::memfd_create("hutch-plan", MFD_CLOEXEC));
  if (!fd) throw sys_error(errno, "memfd_create");
  sys::write_all(fd.get(), content);
  ::lseek(fd.get(), 0, SEEK_SET);
  return fd;
}

/// Runs the plan in a stage process and waits until the runtime that it became has ended.
void run_plan(const StagePlan& plan, const std::string& log, Clock::time_point deadline) {
  const UniqueFd plan_fd = memory_file(plan.encoded());
  sys::Pipe status = sys::pipe();
  Process stage =
      Process::spawn({.argv = {"/proc/self/exe", "--stage"},
                      .env = {},
                      .fds = {{plan_fd.get(), kStagePlanFd}, {status.write_end.get(), kStageStatusFd}}});
  status.write_end.reset();
  ExitStatus end;
  try {
    end = stage.wait(deadline);
  } catch (Error& e) {
    e.during("starting the sandbox's container");
    throw;
  }
  if (const std::string problem = sys::read_all(status.read_end.get(), 64 << 10); !problem.empty())
    throw Error(Errc::unavailable, problem).hint("hutch doctor says what this host can do");
  if (end.ok()) return;
  std::string said = sys::exists(log) ? sys::read_file(log) : "";
  if (said.size() > 2000) said.erase(0, said.size() - 2000);
  throw Error(Errc::unavailable, fmt::format("the OCI runtime ended with {}: {}",
                                             end.signal != 0 ? fmt::format("signal {}", end.signal)
                                                             : fmt::format("exit code {}", end.code),
                                             said.empty() ? "it said nothing" : said))
      .hint("hutch doctor says what this host can do");
}

}  // namespace

bool OciRuntime::manages_own_cgroup() const {
  return base_name(program_) != "crun";
}

std::vector<std::string> OciRuntime::command(const SandboxSpec& spec, const std::string& path) const {
  std::vector<std::string> argv{path};
  // crun is told to leave cgroups alone: the stage process has joined ours. Its own move costs up to 8 ms.
  if (!manages_own_cgroup()) argv.push_back("--cgroup-manager=disabled");
  for (const std::string& word :
       {std::string("--root"), spec.folder + "/runtime", std::string("--log"), spec.folder + "/runtime.log",
        std::string("run"), std::string("--detach"), std::string("--pid-file"), spec.folder + "/pid",
        std::string("--bundle"), spec.folder + "/bundle", spec.id})
    argv.push_back(word);
  return argv;
}

Runtime::Probe OciRuntime::probe() const {
  const std::string path = find_program(program_);
  if (path.empty()) return {false, program_ + " is not installed", "apt-get install " + base_name(program_)};
  return {true, path, ""};
}

Container OciRuntime::start(const SandboxSpec& spec, Clock::time_point deadline) {
  const Probe found = probe();
  if (!found.usable) throw Error(Errc::unavailable, found.detail).hint(found.hint);

  const HostRootfs rootfs = prepare_host_rootfs(spec.data_folder, spec.host_paths);
  const std::string agent = ready_agent_binary(spec.data_folder);
  Layout at{
      .base = staging_folder(spec), .root = {}, .agent = {}, .layer_on_disk = can_be_upper(spec.folder)};
  at.root = at.base + "/root";
  at.agent = at.base + "/view-agent/" + base_name(agent);

  for (const char* name : {"layer", "bundle", "runtime"}) sys::make_dirs(spec.folder + "/" + name, 0700);
  const bool cgroup = !spec.cgroup.folders().empty();
  sys::write_file(
      spec.folder + "/bundle/config.json",
      bundle_config(spec,
                    {.root = at.root,
                     .agent = at.agent,
                     .cgroups_path = manages_own_cgroup() && cgroup ? own_cgroup_path(spec, cgroups_) : "",
                     .user_namespace = spec.first_id != 0}));

  Container container;
  container.isolation = always_isolated(spec, at.layer_on_disk);
  Cgroup group = spec.cgroup;
  if (cgroup) {
    group.create();
    container.isolation.merge(group.apply({spec.limits.memory_bytes, spec.limits.cpus, spec.limits.pids}));
  } else {
    for (const char* limit : {"memory", "swap", "cpus", "pids"})
      container.isolation[limit] = {false, cgroups_.problem()};
  }

  StagePlan plan;
  for (const auto& file : group.join_files()) plan.join(file);
  if (spec.first_id == 0) plan.enter_user_namespace();
  plan.private_mounts();
  // Covered rather than unmounted: a user without privileges may not take a mount away that the host made.
  if (!cgroups_.hybrid_mount().empty()) plan.mount_tmpfs(cgroups_.hybrid_mount(), "mode=0555,size=4k");
  plan.mount_tmpfs(at.base, "mode=0755,size=1m");
  plan_rootfs(plan, spec, rootfs, at);
  plan_agent(plan, agent, at);
  plan.open_fd(0, spec.folder + "/" + std::string(kToAgent), "r");
  plan.open_fd(1, spec.folder + "/" + std::string(kFromAgent), "rw");
  plan.open_fd(2, spec.folder + "/runtime.log", "a");
  plan.exec(command(spec, found.detail));
  run_plan(plan, spec.folder + "/runtime.log", deadline);

  container.pid = read_pid(spec.folder + "/pid");
  container.pidfd = pidfd_open(container.pid);
  if (!group.holds(container.pid)) {
    pidfd_signal(container.pidfd.get(), SIGKILL);
    throw Error(Errc::unavailable,
                "the OCI runtime put the sandbox into another cgroup than ours: its limits would not hold")
        .hint("use crun: apt-get install crun");
  }
  container.start_time = process_start_time(container.pid);
  return container;
}

std::vector<std::unique_ptr<Runtime>> make_runtimes(const CgroupHost& cgroups, const std::string& wanted) {
  std::vector<std::unique_ptr<Runtime>> out;
  if (wanted != "auto") {
    out.push_back(std::make_unique<OciRuntime>(wanted, cgroups));
    return out;
  }
  for (const char* program : {"crun", "runc"}) out.push_back(std::make_unique<OciRuntime>(program, cgroups));
  return out;
}

}  // namespace hutch::runtime
