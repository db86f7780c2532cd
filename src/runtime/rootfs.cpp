#include "runtime/rootfs.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "base/sha256.h"
#include "base/sys.h"
#include "runtime/mountinfo.h"

namespace hutch::runtime {

namespace {

constexpr std::string_view kLayoutVersion = "4";  // change it when the skeleton's content changes

/// What of the host's /etc is public and needed by programs in /usr. Nothing else of it is ever copied.
constexpr std::array kEtcPaths = {"/etc/alternatives", "/etc/ca-certificates", "/etc/ca-certificates.conf",
                                  "/etc/fonts",        "/etc/ld.so.cache",     "/etc/ld.so.conf",
                                  "/etc/ld.so.conf.d", "/etc/localtime",       "/etc/matplotlibrc",
                                  "/etc/mime.types",   "/etc/ssl/certs"};

constexpr std::array kProgramFolders = {"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/libo32"};

struct Folder {
  const char* path;
  mode_t mode;
  uid_t owner = 0;  // as inside
};
constexpr std::array kFolders = std::to_array<Folder>(
    {{"etc", 0755},      {"etc/ssl", 0755},   {"dev", 0755},     {"home", 0755},    {"home/user", 0755, 1000},
     {"media", 0755},    {"mnt", 0755},       {"opt", 0755},     {"proc", 0555},    {"root", 0700},
     {"run", 0755},      {"srv", 0755},       {"sys", 0555},     {"tmp", 01777},    {"usr", 0755},
     {"var", 0755},      {"var/cache", 0755}, {"var/lib", 0755}, {"var/log", 0755}, {"var/spool", 0755},
     {"var/tmp", 01777}, {"workspace", 0755}});

constexpr std::array kTextFiles = std::to_array<TextFile>(
    {{"etc/passwd",
      "root:x:0:0:root:/root:/bin/bash\n"
      "daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n"
      "bin:x:2:2:bin:/bin:/usr/sbin/nologin\n"
      "www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\n"
      "_apt:x:42:65534::/nonexistent:/usr/sbin/nologin\n"
      "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
      "user:x:1000:1000:user:/home/user:/bin/bash\n"},
     {"etc/group",
      "root:x:0:\ndaemon:x:1:\nbin:x:2:\nsys:x:3:\nadm:x:4:\ntty:x:5:\ndisk:x:6:\nmail:x:8:\nutmp:x:43:\n"
      "www-data:x:33:\nstaff:x:50:\nusers:x:100:\nnogroup:x:65534:\nuser:x:1000:\n"},
     {"etc/hosts", "127.0.0.1 localhost sandbox\n::1 localhost ip6-localhost ip6-loopback\n"},
     {"etc/hostname", "sandbox\n"},
     {"etc/nsswitch.conf",
      "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\nprotocols: files\n"
      "services: files\n"},
     // kNetwork4 and kNetwork6, with nobody behind them in a sandbox that has no network. Long answers come
     // by UDP too, since pasta forwards nothing else.
     {"etc/resolv.conf",
      "nameserver 192.0.2.3\nnameserver fd68:7574:6368::3\noptions edns0 timeout:2 attempts:2\n"},
     {"etc/shells", "/bin/sh\n/bin/bash\n"},
     {"etc/protocols", "ip 0 IP\nicmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\nipv6 41 IPv6\n"},
     {"etc/services",
      "ssh 22/tcp\ndomain 53/tcp\ndomain 53/udp\nhttp 80/tcp\nhttps 443/tcp\npostgresql 5432/tcp\n"}});

bool is_dir(const std::string& path) {
  struct stat st {};
  return ::stat(path.c_str(), &st) == 0 && S_ISDIR(st.st_mode);
}

std::string read_link(const std::string& path) {
  std::string target(4096, '\0');
  const ssize_t n = ::readlink(path.c_str(), target.data(), target.size());
  if (n < 0) throw sys_error(errno, "readlink", path);
  target.resize(static_cast<size_t>(n));
  return target;
}

void make_link(const std::string& target, const std::string& path) {
  if (::symlink(target.c_str(), path.c_str()) != 0 && errno != EEXIST)
    throw sys_error(errno, "symlink", path);
}

/// Links, folders and files that everybody on the host can read; the rest of a tree is left out.
void copy_public(const std::string& source, const std::string& target) {
  struct stat st {};
  if (::lstat(source.c_str(), &st) != 0) return;
  if (S_ISLNK(st.st_mode)) {
    make_link(read_link(source), target);
  } else if (S_ISDIR(st.st_mode) && (st.st_mode & S_IXOTH) != 0) {
    sys::make_dirs(target);
    for (const auto& name : sys::list_folder(source)) copy_public(source + "/" + name, target + "/" + name);
  } else if (S_ISREG(st.st_mode) && (st.st_mode & S_IROTH) != 0) {
    sys::write_file(target, sys::read_file(source));
  }
}

/// Changes whenever something that was copied may have changed.
std::string skeleton_key() {
  std::string facts(kLayoutVersion);
  const auto note = [&](const std::string& path) {
    struct stat st {};
    if (::lstat(path.c_str(), &st) == 0)
      facts +=
          fmt::format("{} {} {} {}.{}\n", path, st.st_ino, st.st_size, st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
  };
  for (const std::string path : kEtcPaths) note(path);
  for (const std::string path : kProgramFolders) note(path);
  for (const auto& name : sys::list_folder("/etc/ld.so.conf.d")) note("/etc/ld.so.conf.d/" + name);
  return sha256_hex(facts).substr(0, 16);
}

void build_skeleton(const std::string& root) {
  sys::make_dirs(root);
  for (const auto& folder : kFolders) {
    const std::string path = root + "/" + folder.path;
    sys::make_dirs(path);
    ::chmod(path.c_str(), folder.mode);
    if (folder.owner != 0 && ::geteuid() == 0) (void)::chown(path.c_str(), folder.owner, folder.owner);
  }
  for (const auto& file : kTextFiles) sys::write_file(root + "/" + file.path, file.text);
  make_link("../usr/lib/os-release", root + "/etc/os-release");
  make_link("/proc/self/mounts", root + "/etc/mtab");
  for (const std::string path : kEtcPaths) copy_public(path, root + path);
  for (const std::string path : kProgramFolders) {
    struct stat st {};
    if (::lstat(path.c_str(), &st) != 0) continue;
    if (S_ISLNK(st.st_mode))
      make_link(read_link(path), root + path);
    else
      sys::make_dirs(root + path);
  }
}

std::string ready_skeleton(const std::string& data_folder) {
  const std::string folder = data_folder + "/rootfs",
                    ready = fmt::format("{}/host-{}", folder, skeleton_key());
  if (sys::exists(ready)) return ready;
  sys::make_dirs(folder, 0711);
  const UniqueFd turn = sys::lock_folder(folder);
  if (sys::exists(ready)) return ready;  // another server was faster
  const std::string building = folder + "/.building";
  try {
    sys::remove_tree(building);  // of a server that died over it
    build_skeleton(building);
    if (::rename(building.c_str(), ready.c_str()) != 0) throw sys_error(errno, "rename", ready);
  } catch (Error& e) {
    sys::remove_tree(building);
    e.during("making the root file system in " + folder);
    throw;
  }
  return ready;
}

bool is_below(const std::string& path, const std::string& folder) {
  return path.size() > folder.size() && path.starts_with(folder) && path[folder.size()] == '/';
}

/// The tree and the file systems that are mounted below it, so that /usr/local on a disk of its own is there
/// too.
void add_tree(const std::string& path, const std::vector<Mount>& mounts, std::vector<LowerTree>& out) {
  out.push_back({path, path, !is_dir(path)});
  for (const auto& mount : mounts)
    if (is_below(mount.target, path) && is_dir(mount.target))
      out.push_back({mount.target, mount.target, false});
}

}  // namespace

std::vector<TextFile> name_files() {
  std::vector<TextFile> out;
  for (const auto& file : kTextFiles)
    for (const std::string_view path : {"etc/hosts", "etc/hostname", "etc/resolv.conf"})
      if (file.path == path) out.push_back(file);
  return out;
}

HostRootfs prepare_host_rootfs(const std::string& data_folder, const std::vector<std::string>& host_paths) {
  HostRootfs rootfs{.skeleton = ready_skeleton(data_folder), .lower = {}};
  const auto mounts = read_mountinfo("/proc/self/mountinfo");
  add_tree("/usr", mounts, rootfs.lower);
  for (const std::string path : kProgramFolders) {
    struct stat st {};
    if (::lstat(path.c_str(), &st) == 0 && S_ISDIR(st.st_mode)) add_tree(path, mounts, rootfs.lower);
  }
  for (const auto& path : host_paths) {
    if (!path.starts_with('/') || !sys::exists(path))
      throw Error(Errc::invalid_argument, fmt::format("host path '{}' does not exist", path))
          .hint("correct `host_paths` of the profile in the configuration");
    add_tree(path, mounts, rootfs.lower);
  }
  std::stable_sort(rootfs.lower.begin(), rootfs.lower.end(),
                   [](const LowerTree& a, const LowerTree& b) { return a.target < b.target; });
  return rootfs;
}

}  // namespace hutch::runtime
