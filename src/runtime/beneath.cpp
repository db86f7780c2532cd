#include "runtime/beneath.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/limits.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/sys.h"

namespace hutch::runtime {

UniqueFd open_folder_beneath(int root, std::string_view path) {
  UniqueFd folder;
  const std::string_view all = path;
  do {
    // As many names as one call takes.
    std::string_view part = path.substr(0, PATH_MAX - 1);
    if (part.size() < path.size() && path[part.size()] != '/') part = part.substr(0, part.rfind('/'));
    path.remove_prefix(std::min(part.size() + 1, path.size()));
    open_how how{};
    how.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV;
    const std::string name = part.empty() ? "." : std::string(part);
    const int at = folder ? folder.get() : root;
    UniqueFd next(static_cast<int>(
        sys::retry_eintr([&] { return ::syscall(SYS_openat2, at, name.c_str(), &how, sizeof how); })));
    if (!next) throw sys_error(errno, "open", shown_name(all));
    folder = std::move(next);
  } while (!path.empty());
  return folder;
}

std::string shown_name(std::string_view name) {
  constexpr size_t kMost = 200;
  std::string out;
  for (const char c : name.substr(0, kMost)) {
    const auto byte = static_cast<unsigned char>(c);
    out += byte < 0x20 || byte >= 0x7f ? fmt::format("\\x{:02x}", byte) : std::string(1, c);
  }
  return name.size() > kMost ? out + "..." : out;
}

}  // namespace hutch::runtime
