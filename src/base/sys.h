#pragma once

#include <fcntl.h>
#include <sys/types.h>

#include <cerrno>
#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/unique_fd.h"

/// System calls that throw an Error and cannot leak a descriptor: O_CLOEXEC is always on.
namespace hutch::sys {

template <class Fn>
auto retry_eintr(Fn&& fn) noexcept {
  decltype(fn()) rc;
  do rc = fn();
  while (rc == -1 && errno == EINTR);
  return rc;
}

UniqueFd open(const std::string& path, int flags, mode_t mode = 0);
/// Empty instead of an Error when the path does not exist.
UniqueFd open_if_exists(const std::string& path, int flags);

UniqueFd duplicate(int fd);

/// Waits until nobody else holds the folder; held until the descriptor goes, or the process.
UniqueFd lock_folder(const std::string& path);

struct Pipe {
  UniqueFd read_end, write_end;
};
Pipe pipe();

/// Writes everything or throws; a short write is normal on pipes and sockets.
void write_all(int fd, std::string_view data);

/// Reads to the end; throws limit_exceeded past `max_bytes`.
std::string read_all(int fd, size_t max_bytes = 64u << 20);

/// Whole small files. read_file throws not_found when there is none.
std::string read_file(const std::string& path, size_t max_bytes = 64u << 20);
/// Truncates and writes in place: for kernel files (cgroup, proc) and for files nobody else reads yet.
void write_file(const std::string& path, std::string_view data, mode_t mode = 0644);
/// Readers see the old or the new content, never a mixture: temporary file and rename.
void replace_file(const std::string& path, std::string_view data, mode_t mode = 0644);

bool exists(const std::string& path);
/// The names in a folder, sorted; none when there is no such folder, or none that we may read.
std::vector<std::string> list_folder(const std::string& path);
/// The same of an open one, which may have been opened with O_PATH. Throws when it cannot be read.
std::vector<std::string> list_folder(int folder);
/// Like mkdir -p; an existing folder keeps its mode.
void make_dirs(const std::string& path, mode_t mode = 0755);
/// Bounds for a removal whose caller must end in time. Removing a large file that has not reached the disk
/// yet holds its thread, and with it the end of the process, for 0.2 s a GiB: so such a file is left.
struct RemoveBounds {
  uint64_t max_file_bytes = UINT64_MAX;
  std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max();
};
/// Removes a tree without following links or crossing into other mounts. Returns false when something stayed.
bool remove_tree(const std::string& path, const RemoveBounds& bounds = {}) noexcept;

/// What the host can give without swapping (MemAvailable); 0 when it does not say.
uint64_t available_memory() noexcept;

/// Bytes that the files of a tree take on the disk; stops counting after 200,000 entries.
uint64_t tree_bytes(const std::string& path) noexcept;

/// 2 * bytes lower-case hex digits from getrandom(2).
std::string random_hex(size_t bytes);

}  // namespace hutch::sys
