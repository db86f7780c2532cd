#pragma once

#include <functional>
#include <stop_token>
#include <string>
#include <string_view>

#include "sandbox/channel.h"

namespace hutch::sandbox {

/// What a file was like when it was read or written; `state` tells one content from another.
struct FileInfo {
  wire::FileState state;
  uint32_t mode = 0;
  bool created = false;
};

struct FileEntry {
  std::string path;    // relative to the listed folder; may hold any byte but NUL
  std::string target;  // of a symbolic link
  uint32_t mode = 0;
  uint64_t size = 0;
  int64_t mtime_s = 0;
};

/// Bounds of one file call.
struct FileCall {
  Clock::time_point deadline;
  std::stop_token stop;
};

/// Files through the agent: paths are absolute and resolved beneath the sandbox's root by the kernel
/// (openat2), so no link leads out. Errors are those of the system call: not_found, denied, invalid_argument
/// for a folder or device.

/// Hands the content piece by piece to `sink`, from the I/O thread: at most `max_bytes` from the start, and
/// no more once `sink` returns false.
FileInfo read_file(Channel& channel, const std::string& path, uint64_t max_bytes,
                   const std::function<bool(std::string_view)>& sink, const FileCall& call);

struct WriteOptions {
  bool append = false;      // otherwise the file is replaced atomically and keeps its mode and owner
  bool create_new = false;  // conflict when it exists
  bool executable = false;
  const wire::FileState* expected = nullptr;  // conflict unless the file is still in this state
  std::string user;                           // whose a new one is, and folders made on the way; empty = root
};
FileInfo write_file(Channel& channel, const std::string& path, std::string_view content,
                    const WriteOptions& options, const FileCall& call);

/// With those above it; they are the user's. One that is there, is root's and empty becomes the user's, too.
void make_folder(Channel& channel, const std::string& path, const std::string& user, const FileCall& call);

/// Depth-first, sorted by name in each folder, links not followed. Ends early when `visit` returns false.
void list_files(Channel& channel, const std::string& path, uint32_t depth,
                const std::function<bool(const FileEntry&)>& visit, const FileCall& call);

}  // namespace hutch::sandbox
