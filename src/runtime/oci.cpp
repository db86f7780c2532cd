#include "runtime/oci.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>

#include "base/sys.h"
#include "runtime/bundle.h"
#include "runtime/embedded.h"
#include "runtime/rootfs.h"
#include "runtime/trust_bundle.h"

namespace hutch::runtime {

/// One that is none of these is taken for a runc.
struct OciDialect {
  std::string_view name;
  std::vector<std::string> options = {};
  // It writes the number to any path. Others write it to a file of another name first and rename that, which
  // takes a folder.
  bool writes_pid_anywhere = false;
  bool wants_own_cgroup = true;  // one below ours
  // gVisor: a kernel of its own in a process of the host, which is not in the container's user namespace
  // when that exists already, and has resource limits of its own.
  bool is_kernel = false;
};

namespace {

const OciDialect kDialects[] = {
    // Told to leave cgroups alone: the stage process has joined ours. Its own move costs up to 8 ms.
    {.name = "crun",
     .options = {"--cgroup-manager=disabled"},
     .writes_pid_anywhere = true,
     .wants_own_cgroup = false},
    {.name = "runsc",
     .options = {"--platform=ptrace", "--network=none", "--ignore-cgroups"},
     .wants_own_cgroup = false,
     .is_kernel = true},
    {.name = "runc"},
};

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

struct Layout {
  std::string base, root, agent;
};

/// Folders inside the view that a host path needs as mount points, parents first.
void make_mount_point(StagePlan& plan, const std::string& root, const LowerTree& tree, uint32_t owner) {
  for (size_t end = tree.target.find('/', 1); end != std::string::npos;
       end = tree.target.find('/', end + 1)) {
    const std::string parent = tree.target.substr(0, end);
    if (parent != "/usr" && parent != "/etc") plan.make_dir(root + parent, 0755, owner);
  }
  if (tree.is_file)
    plan.write_file(root + tree.target, "");
  else
    plan.make_dir(root + tree.target, 0755, owner);
}

void plan_layer(StagePlan& plan, Layer& layer, const std::string& target) {
  if (layer.mount)
    plan.attach(std::move(layer.mount), target);
  else if (layer.kind == Layer::Kind::folder)
    plan.bind(layer.source, target);
  else
    plan.mount_tmpfs(target, layer.options);
}

std::string sealed_at(const Layout& at, size_t number) {
  return fmt::format("{}/sealed/{}", at.base, number);
}

void plan_sealed(StagePlan& plan, const SandboxSpec& spec, const Layout& at) {
  if (spec.layers.empty()) return;
  plan.make_dir(at.base + "/sealed", 0755, 0);
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    const SealedLayer& layer = *spec.layers[i];
    plan.make_dir(sealed_at(at, i), 0755, 0);
    if (layer.on_disk())
      plan.attach_layer(layer.mount(), sealed_at(at, i), layer.facts().first_id);
    else
      plan.bind_layer(layer.files(), sealed_at(at, i), layer.facts().first_id);
  }
}

/// A template may have been made when the host had a tree that it has no longer.
void check_views(const SandboxSpec& spec, const HostRootfs& rootfs) {
  for (const auto& layer : spec.layers)
    for (const auto& view : layer->facts().views) {
      const auto is_it = [&](const LowerTree& tree) { return view_name(tree.target) == view; };
      if (view == view_name("/") || (spec.host_files && std::ranges::any_of(rootfs.lower, is_it))) continue;
      throw Error(Errc::unavailable,
                  fmt::format("layer {} has files of a tree ({}) that the root file system has not",
                              layer->facts().id, view))
          .hint("add the host's folder to `host_paths` of the profile, or make the template anew");
    }
}

/// Root file system: an overlay over the skeleton, and on it one overlay (or read-only bind, for a file) per
/// host tree; or one over the layers of an image.
void plan_rootfs(StagePlan& plan, const SandboxSpec& spec, const HostRootfs& rootfs, Layer& written,
                 const Layout& at) {
  const std::string layer = at.base + "/layer";
  plan.make_dir(layer, 0700, 0);
  plan_layer(plan, written, layer);
  plan_sealed(plan, spec, at);

  const auto view = [&](const std::string& source, const std::string& target,
                        const std::string& mount_point) {
    const std::string name = view_name(target), upper = layer + "/" + name, work = upper + ".work";
    std::vector<std::string> lowers;
    for (size_t i = spec.layers.size(); i-- > 0;)
      if (spec.layers[i]->has(name)) lowers.push_back(sealed_at(at, i) + "/" + name);
    if (!lowers.empty()) plan.make_dir_like(upper, lowers.front());
    if (!source.empty()) {
      const std::string lower = at.base + "/lower-" + name;
      struct stat st {};
      ::stat(source.c_str(), &st);
      plan.make_dir(lower, 0755, 0);
      plan.bind_shifted(source, lower);
      plan.make_dir(upper, st.st_mode & 07777, spec.first_id);
      lowers.push_back(lower);
    }
    plan.make_dir(work, 0700, 0);
    plan.mount_overlay(lowers, upper, work, mount_point);
  };
  plan.make_dir(at.root, 0755, 0);
  view(spec.host_files ? rootfs.skeleton : "", "/", at.root);
  if (!spec.host_files) return;
  // Programs of the host may belong to nobody, but root inside must be able to write to /workspace and /etc.
  if (spec.first_id != 0) plan.own_unshifted(at.root, spec.first_id);
  for (const LowerTree& tree : rootfs.lower) {
    make_mount_point(plan, at.root, tree, spec.first_id);
    if (tree.is_file)
      plan.bind_shifted(tree.source, at.root + tree.target);
    else
      view(tree.source, tree.target, at.root + tree.target);
  }
}

/// Before the sandbox starts: by servers that cannot do it later.
void plan_volumes(StagePlan& plan, const SandboxSpec& spec, const std::string& root) {
  for (const VolumeMount& volume : spec.volumes)
    if (volume.mount)
      plan.attach_volume(sys::duplicate(volume.mount.get()), root, volume.target, volume.read_only,
                         spec.first_id);
    else
      plan.bind_volume(volume.folder, root, volume.target, volume.read_only, spec.first_id);
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
Isolation always_isolated(const SandboxSpec& spec, const Layer& layer, const Counts& counts, bool is_kernel) {
  Isolation all{
      {"files",
       {true, "the host's programs are read-only; what is written goes to a layer of the sandbox's own"}},
      {"users",
       {true, spec.first_id != 0 ? fmt::format("root inside is the unprivileged id {} outside", spec.first_id)
                                 : "root inside is the server's own user outside"}},
      {"network", {true, "none but a loopback of its own"}},
      {"processes", {true, "own pid, ipc, uts, mount and cgroup namespaces; the agent is PID 1"}},
      {"system_calls", {true, "seccomp allow-list, no_new_privs, 11 capabilities over its own namespaces"}},
      {"disk", layer.size},
      {"counts", counts.said},
  };
  if (!is_kernel) return all;
  all["system_calls"].detail = "answered by gVisor's kernel; " + all["system_calls"].detail;
  all["counts"] = {true, "inotify, timers, message queues and namespaces are gVisor's own"};
  all["kernel"] = {
      true,
      "gVisor's, in processes of the host: they count to memory and pids, and at these limits the "
      "whole sandbox ends"};
  all["agent"] = {false, "commands of root inside can imitate it; with a `user` in the profile they cannot"};
  return all;
}

pid_t parse_pid(const std::string& text) {
  pid_t pid = 0;
  std::from_chars(text.data(), text.data() + text.size(), pid);
  if (pid <= 0)
    throw Error(Errc::internal, fmt::format("the OCI runtime gave no process number but '{}'", text));
  return pid;
}

}  // namespace

const OciDialect& OciRuntime::dialect() const {
  const std::string name = base_name(program_);
  const auto* it = std::ranges::find(kDialects, name, &OciDialect::name);
  return it != std::end(kDialects) ? *it : std::end(kDialects)[-1];
}

std::string OciRuntime::pid_file(const SandboxSpec& spec) const {
  return dialect().writes_pid_anywhere ? kStagePidFile : spec.folder + "/pid";
}

/// The runtime's own files lie in the stage's file system and vanish with it: nothing of ours asks the
/// runtime about a container again.
std::vector<std::string> OciRuntime::command(const SandboxSpec& spec, const std::string& path,
                                             const std::string& state) const {
  std::vector<std::string> argv{path};
  for (const auto& option : dialect().options) argv.push_back(option);
  for (const std::string& word :
       {std::string("--root"), state, std::string("run"), std::string("--detach"), std::string("--pid-file"),
        pid_file(spec), std::string("--bundle"), state, spec.id})
    argv.push_back(word);
  return argv;
}

Runtime::Probe OciRuntime::probe() const {
  const std::lock_guard lock(mutex_);
  if (path_.empty() || ::access(path_.c_str(), X_OK) != 0) path_ = find_program(program_);
  if (path_.empty()) return {false, program_ + " is not installed", "apt-get install " + base_name(program_)};
  // It makes a user namespace of its own inside, which sandboxes of ordinary users may not.
  if (dialect().is_kernel && ::geteuid() != 0)
    return {false, program_ + " needs a server that runs as root", "start hutch as root, or take crun"};
  return {true, path_, ""};
}

StagePlan OciRuntime::plan(const SandboxSpec& spec, const std::string& program, const Counts& counts,
                           Layer& layer) const {
  HostRootfs rootfs;
  if (spec.host_files) rootfs = prepare_host_rootfs(spec.data_folder, spec.host_paths);
  check_views(spec, rootfs);
  const std::string shown = spec.data_folder + "/agent";  // inside, at view-agent
  const std::string agent = program_file(agent_program(), shown);
  const std::string trust =
      spec.trusted_certificate.empty() ? "" : base_name(trust_bundle(shown, spec.trusted_certificate));
  Layout at{.base = staging_folder(spec), .root = {}, .agent = {}};
  at.root = at.base + "/root";
  at.agent = at.base + "/view-agent/" + base_name(agent);
  const std::string state = at.base + "/runtime";
  const bool own_group = dialect().wants_own_cgroup && !spec.cgroup.folders().empty();

  StagePlan plan;
  if (spec.first_id == 0) plan.enter_user_namespace(counts.caps);
  plan.private_mounts();
  // Covered rather than unmounted: a user without privileges may not take a mount away that the host made.
  if (!cgroups_.hybrid_mount().empty()) plan.mount_tmpfs(cgroups_.hybrid_mount(), "mode=0555,size=4k");
  plan.mount_tmpfs(at.base, "mode=0755,size=1m");
  const std::string users = spec.first_id != 0 ? at.base + "/users" : "";
  if (spec.first_id != 0) plan.id_range(spec.first_id, 65536, users, counts.caps);
  plan_rootfs(plan, spec, rootfs, layer, at);
  plan_volumes(plan, spec, at.root);
  plan_agent(plan, agent, at);
  plan.make_dir(state, 0700, 0);
  plan.write_file(state + "/config.json",
                  bundle_config(spec, {.root = at.root,
                                       .agent = at.agent,
                                       .trust = trust.empty() ? "" : at.base + "/view-agent/" + trust,
                                       .cgroups_path = own_group ? own_cgroup_path(spec, cgroups_) : "",
                                       .user_namespace = dialect().is_kernel ? "" : users,
                                       .is_kernel = dialect().is_kernel}));
  plan.open_fd(0, spec.folder + "/" + std::string(kToAgent), "r");
  plan.open_fd(1, spec.folder + "/" + std::string(kFromAgent), "rw");
  plan.limit(RLIMIT_NOFILE, spec.limits.open_files);
  plan.limit(RLIMIT_CORE, 0);
  for (const auto& [resource, value] : counts.rlimits) plan.limit(resource, value);
  // Last, so that the sandbox is not charged for what only the stage needs.
  plan.wait_for_server();
  for (const auto& file : spec.cgroup.join_files()) plan.join(file);
  plan.exec(command(spec, program, state));
  return plan;
}

Container OciRuntime::start(const SandboxSpec& spec, Clock::time_point deadline) {
  const Probe found = probe();
  if (!found.usable) throw Error(Errc::unavailable, found.detail).hint(found.hint);

  Layer layer = make_layer(spec);
  Container container;
  container.memory = std::move(layer.memory);
  const Counts counts = counts_of_sandbox(spec.first_id != 0);
  container.isolation = always_isolated(spec, layer, counts, dialect().is_kernel);
  container.disk = layer.disk;
  Cgroup group = spec.cgroup;
  const auto limit = [&] {
    if (group.folders().empty()) {
      for (const char* name : {"memory", "swap", "cpus", "pids"})
        container.isolation[name] = {false, cgroups_.problem()};
      return;
    }
    group.create();
    container.isolation.merge(group.apply({spec.limits.memory_bytes, spec.limits.cpus, spec.limits.pids}));
  };
  std::string pid = stage_.run(plan(spec, found.detail, counts, layer), spec.data_folder, deadline, limit);
  if (pid.empty()) pid = sys::read_file(pid_file(spec));
  container.pid = parse_pid(pid);
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

bool OciRuntime::attaches_volumes() const {
  // gVisor has mounts of its own, to which ours add nothing.
  return ::geteuid() == 0 && base_name(program_) != "runsc";
}

void OciRuntime::attach_volumes(const Container& container, uint32_t first_id,
                                const std::vector<VolumeMount>& volumes, const std::string& data_folder,
                                Clock::time_point deadline) {
  const std::string proc = fmt::format("/proc/{}/", container.pid);
  StagePlan plan;
  plan.enter(sys::open(proc + "ns/mnt", O_RDONLY), sys::open(proc + "ns/user", O_RDONLY),
             sys::open(proc + "root", O_PATH | O_DIRECTORY));
  const std::string name = sys::read_file(proc + "comm");
  // All of these are the agent's if it still runs now.
  if (wait_for_end(container.pidfd.get(), Clock::now()))
    throw Error(Errc::unavailable, "the sandbox has ended meanwhile");
  if (name != "hutch-agent\n")
    throw Error(Errc::unavailable, "volumes cannot be attached: the sandbox has a kernel of its own");
  for (const VolumeMount& volume : volumes)
    plan.attach_volume(sys::duplicate(volume.mount.get()), "/", volume.target, volume.read_only, first_id);
  plan.end();
  (void)stage_.run(plan, data_folder, deadline);
}

void OciRuntime::attach_network(const Container& container, const Cgroup& cgroup,
                                const std::vector<std::string>& allow, const std::string& data_folder,
                                Clock::time_point deadline) {
  if (dialect().is_kernel)
    throw Error(Errc::unavailable,
                fmt::format("the network `full` is not there under {}, which has a network stack of its own",
                            program_))
        .hint("take the network `filtered`, or another `runtime`");
  const std::string pasta = find_program("pasta");
  if (pasta.empty())
    throw Error(Errc::unavailable, "the network `full` takes pasta, which is not installed")
        .hint("apt-get install passt");
  const std::string proc = fmt::format("/proc/{}/ns/", container.pid);
  StagePlan plan;
  for (const auto& file : cgroup.join_files()) plan.join(file);
  plan.attach_network(sys::duplicate(container.pidfd.get()), sys::open(proc + "user", O_RDONLY),
                      sys::open(proc + "net", O_RDONLY), pasta, allow);
  plan.end();
  // The namespaces are the agent's if it still runs now.
  if (wait_for_end(container.pidfd.get(), Clock::now()))
    throw Error(Errc::unavailable, "the sandbox has ended meanwhile");
  try {
    (void)stage_.run(plan, data_folder, deadline);
  } catch (const Error& e) {
    throw Error(e.code(), fmt::format("the network `full` cannot be had: {}", e.what()))
        .hint("mend what it says, or take another `network`");
  }
}

std::vector<std::unique_ptr<Runtime>> make_runtimes(const CgroupHost& cgroups, const std::string& wanted) {
  std::vector<std::unique_ptr<Runtime>> out;
  std::vector<std::string> programs{wanted};
  if (wanted == "auto") programs = {"crun", "runc"};
  if (wanted == "every") programs = {"crun", "runc", "runsc"};
  for (auto& program : programs) out.push_back(std::make_unique<OciRuntime>(std::move(program), cgroups));
  return out;
}

}  // namespace hutch::runtime
