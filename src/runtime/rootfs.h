#pragma once

#include <string>
#include <vector>

namespace hutch::runtime {

/// One folder or file of the host that a sandbox sees.
struct LowerTree {
  std::string source;  // on the host
  std::string target;  // inside
  bool is_file = false;
};

/// The root file system `host`: the host's programs, and nothing of its data.
///
/// Exactly /usr with the file systems mounted below it, /bin /sbin /lib* as they are on the host (links or
/// folders), a made-up /etc with a few public files of the host's, and empty folders for the rest.
struct HostRootfs {
  std::string
      skeleton;  // a folder in the data folder, read-only for everybody: the root itself, with its /etc
  std::vector<LowerTree> lower;  // what lies on top of it, parents first
};

/// The small files of /etc that every root file system gets: what its names mean.
struct TextFile {
  const char* path;  // below the root
  const char* text;
};
std::vector<TextFile> name_files();

/// Makes the skeleton when this host's has not been made yet (two servers may try at once) and lists the
/// trees. `host_paths` are further paths of the host to show; invalid_argument names one that does not exist.
HostRootfs prepare_host_rootfs(const std::string& data_folder, const std::vector<std::string>& host_paths);

}  // namespace hutch::runtime
