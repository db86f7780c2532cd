#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/unique_fd.h"

namespace hutch::runtime {

/// What a stage process does, as data: the server writes the plan, a fresh single-threaded process of a small
/// program of its own (hutch-stage) carries it out step by step and ends in the exec of an OCI runtime.
/// Mounts made here are seen by nobody else and vanish with the sandbox.
class StagePlan {
 public:
  /// Waits until the server has done what it does meanwhile; fails when the server gave up or died.
  void wait_for_server() { add({"wait"}); }
  /// Joins a cgroup by writing "0" (the writer itself) to its `tasks` or `cgroup.procs`.
  void join(const std::string& file) { add({"join", file}); }
  /// A user namespace in which `uid` and `gid` of the caller are root: for servers that are not. `caps`: a
  /// file of /proc/sys/user and its value, in turn, that hold inside.
  void enter_user_namespace(const std::vector<std::string>& caps = {});
  /// A mount namespace of our own, from which nothing propagates back to the host.
  void private_mounts() { add({"private_mounts"}); }
  void mount_tmpfs(const std::string& target, const std::string& options) { add({"tmpfs", target, options}); }
  /// With this mode and owner when it is made here; a folder that is there stays as it is.
  void make_dir(const std::string& path, uint32_t mode, uint32_t owner);
  /// Mode 0600.
  void write_file(const std::string& path, const std::string& content) { add({"file", path, content}); }
  /// A user namespace in which `first_id` is root, `first_id + 1` is 1 and so on; from here on `bind_shifted`
  /// shifts owners by it. It belongs to `first_id`, can be joined at `path` and has these `caps`.
  void id_range(uint32_t first_id, uint32_t count, const std::string& path,
                const std::vector<std::string>& caps = {});
  /// Soft and hard, for all that is started from here on. Not by the bundle: runc sets limits from outside of
  /// the user namespace, which the host's root may do only with CAP_SYS_RESOURCE, also to lower them.
  void limit(int resource, uint64_t value) {
    add({"limit", std::to_string(resource), std::to_string(value)});
  }
  /// A mount that the server has made and that is nowhere yet.
  void attach(UniqueFd mount, const std::string& target);
  /// The same for a read-only layer: nosuid, nodev, with owners that are shifted on its disk by
  /// `first_id_on_disk` already shifted to ours. Fails where they cannot be.
  void attach_layer(UniqueFd mount, const std::string& target, uint32_t first_id_on_disk);
  void bind_layer(const std::string& source, const std::string& target, uint32_t first_id_on_disk);
  void change_dir(UniqueFd folder);
  void bind(const std::string& source, const std::string& target) { add({"bind", source, target}); }
  /// Read-only, nosuid, nodev, with shifted owners. Some file systems (overlay below Linux 6.x, FUSE, NFS)
  /// cannot shift: there the owners stay, and the ids of the host's root appear as 65534 inside.
  void bind_shifted(const std::string& source, const std::string& target) {
    add({"bind_shifted", source, target});
  }
  /// When the latest `bind_shifted` could not shift: gives all in `tree`, a writable view of it, to `owner`.
  void own_unshifted(const std::string& tree, uint32_t owner) {
    add({"own_unshifted", tree, std::to_string(owner)});
  }
  /// A folder with the mode and owner of another.
  void make_dir_like(const std::string& path, const std::string& like) { add({"dir_like", path, like}); }
  /// A writable view of `lowers`, the topmost first. What is written goes to `upper`, whose owner and mode
  /// are those that the view's root shows; `work` is an empty folder beside it, for the kernel.
  void mount_overlay(const std::vector<std::string>& lowers, const std::string& upper,
                     const std::string& work, const std::string& target);
  /// A read-only view of `lower` that does not show in the mount table where `lower` lies on the host.
  /// `empty`: an empty folder, since an overlay without an upper layer needs two lower ones.
  void mount_read_only_view(const std::string& lower, const std::string& empty, const std::string& target) {
    add({"overlay_read_only", lower, empty, target});
  }
  /// From here on this process acts in the mount namespace of a running sandbox, whose root is its root, and
  /// owners are shifted by the sandbox's user namespace.
  void enter(UniqueFd mount_namespace, UniqueFd user_namespace, UniqueFd root);
  /// Mounts a volume at `target` inside `root`, whatever links lie there, with owners shifted as the latest
  /// step said. What is missing of the path is made and belongs to `owner`. Fails, as an invalid argument,
  /// where it would be mounted on a file or where refused_target() says no.
  void attach_volume(UniqueFd mount, const std::string& root, const std::string& target, bool read_only,
                     uint32_t owner);
  void bind_volume(const std::string& source, const std::string& root, const std::string& target,
                   bool read_only, uint32_t owner);
  /// Gives a running sandbox the host's network by the program `pasta`, but for what is not public and not in
  /// `allow`. `agent` is its pidfd, whose end ends pasta. Takes root in the initial user namespace, or the
  /// owner of the sandbox's.
  void attach_network(UniqueFd agent, UniqueFd user_namespace, UniqueFd network_namespace,
                      const std::string& pasta, const std::vector<std::string>& allow);
  /// `mode`: r, w, rw or a (append).
  void open_fd(int fd, const std::string& path, const std::string& mode);
  /// From a read-only mount that exists for this process alone. Programs that know about it (crun; the mark
  /// is
  /// `_LIBCONTAINER_CLONED_BINARY` in their environment) then spare the second start from such a mount by
  /// which they guard their binary against the container (CVE-2019-5736): 2 ms of processor time.
  void exec(const std::vector<std::string>& argv);
  /// In place of exec(): the process ends.
  void end() { add({"end"}); }
  /// From here on in a process of its own, PID 1 of a PID namespace with a /proc: with the server `parent` it
  /// ends, and with it all that it starts. The plan has private mounts by then.
  void enter_pid_namespace(pid_t parent) { add({"pid_namespace", std::to_string(parent)}); }
  /// A program of the host's that works for the server `parent` and is killed with it, also by kill -9.
  /// `env`: NAME=VALUE, exactly these. `parent` is 0 in a PID namespace. Nothing is mounted for it: servers
  /// without privileges can have it too.
  void exec_tool(pid_t parent, const std::vector<std::string>& argv, const std::vector<std::string>& env);

  const std::string& encoded() const noexcept { return encoded_; }
  /// For the process, by the numbers from kStageFirstFd on.
  const std::vector<UniqueFd>& fds() const noexcept { return fds_; }
  /// One step a line, for people and tests; long words are cut.
  std::string to_text() const;

 private:
  void add(const std::vector<std::string>& words);
  std::string give(UniqueFd fd);
  std::vector<UniqueFd> fds_;
  std::string encoded_;  // per step: number of words, NUL, then each word and NUL
};

using StageStep = std::vector<std::string>;  // the verb and what it needs
std::vector<StageStep> parse_stage_plan(const std::string& encoded);
std::string stage_step_text(const StageStep& step);

inline constexpr int kStagePlanFd = 3;    // the plan, to be read to its end
inline constexpr int kStageStatusFd = 4;  // what failed, as text; closed without a byte by a successful exec
inline constexpr int kStageGoFd = 5;      // a byte when the server is ready
inline constexpr int kStagePidFd = 6;     // stays open for the OCI runtime
inline constexpr int kStageFirstFd = 7;   // of what steps were given
inline constexpr int kMostStageFds = 120;

inline constexpr int kStageRefused = 64;  // exit code: what failed is what the caller asked for (EX_USAGE)

/// The whole of hutch-stage. Returns the exit code, unless the plan ends in an exec.
int run_stage() noexcept;

}  // namespace hutch::runtime
