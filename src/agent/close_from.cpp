#include "agent/close_from.h"

#include <dirent.h>

#include <charconv>
#include <cstring>

#include "agent/sys.h"
#include "base/unique_fd.h"

namespace hutch::agent {

void close_from(int first) {
  if (close_range(static_cast<unsigned>(first), ~0U, 0) == 0) return;
  // gVisor before 2023 has no such call. What is closed is not listed any more, so that no offset is right.
  bool found = true;
  while (found) {
    const UniqueFd folder(open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    alignas(dirent64) char entries[4096];
    found = false;
    const ssize_t size = getdents64(folder.get(), entries, sizeof entries);
    for (ssize_t at = 0; at < size;) {
      const auto* entry = reinterpret_cast<const dirent64*>(entries + at);
      at += entry->d_reclen;
      int fd = -1;
      std::from_chars(entry->d_name, entry->d_name + std::strlen(entry->d_name), fd);
      if (fd >= first && fd != folder.get() && close(fd) == 0) found = true;
    }
  }
}

}  // namespace hutch::agent
