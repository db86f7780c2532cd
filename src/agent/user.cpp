#include "agent/user.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <climits>
#include <cstdio>
#include <cstring>

#include "agent/file_path.h"
#include "agent/sys.h"

namespace hutch::agent {
namespace {

constexpr size_t kMaxFileBytes = 1 << 20;

/// In the bss: untouched pages take no memory.
char passwd_bytes[kMaxFileBytes], group_bytes[kMaxFileBytes];

struct Table {
  const char* path;
  char* bytes;
  size_t size = 0;

  /// 0 or an errno. A file that does not exist is empty.
  int load();
  std::string_view text() const { return {bytes, size}; }
};

int Table::load() {
  // Not blocking: it may be a FIFO.
  const UniqueFd fd(open_beneath(path, O_RDONLY | O_NONBLOCK | O_NOCTTY));
  struct stat status {};
  if (!fd) return errno == ENOENT ? 0 : errno;
  if (fstat(fd.get(), &status) != 0) return errno;
  if (!S_ISREG(status.st_mode)) return EINVAL;
  for (;;) {
    const ssize_t count = retry_eintr([&] { return read(fd.get(), bytes + size, kMaxFileBytes - size); });
    if (count < 0) return errno;
    if (count == 0) return size < kMaxFileBytes ? 0 : EFBIG;
    size += static_cast<size_t>(count);
  }
}

/// Takes what is before `separator` off the front of `rest`.
std::string_view take(std::string_view& rest, char separator) {
  const size_t end = rest.find(separator);
  const std::string_view part = rest.substr(0, end);
  rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
  return part;
}

std::string_view field(std::string_view line, int number) {
  std::string_view found;
  for (int i = 0; i <= number; ++i) found = take(line, ':');
  return found;
}

/// At most INT_MAX: 4294967295 would mean to the kernel that an id stays as it is, which is root's.
bool parse_id(std::string_view text, uint32_t& id) {
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, id);
  return result.ec == std::errc() && result.ptr == end && id <= INT_MAX;
}

/// The first line whose first field is `name`, or whose third one is a number that `name` is too; empty when
/// there is none.
std::string_view find_line(std::string_view text, std::string_view name) {
  uint32_t wanted = 0, id = 0;
  const bool by_id = parse_id(name, wanted);
  while (!text.empty()) {
    const std::string_view line = take(text, '\n');
    const bool found =
        by_id ? parse_id(field(line, 2), id) && id == wanted : !name.empty() && field(line, 0) == name;
    if (found) return line;
  }
  return {};
}

bool add_groups(std::string_view text, std::string_view name, User& user) {
  while (!text.empty()) {
    const std::string_view line = take(text, '\n');
    std::string_view members = field(line, 3);
    bool is_member = false;
    while (!members.empty() && !is_member) is_member = take(members, ',') == name;
    uint32_t id = 0;
    if (!is_member || !parse_id(field(line, 2), id)) continue;
    if (user.group_count == User::kMaxGroups) return false;
    user.groups[user.group_count++] = id;
  }
  return true;
}

bool set_variable(char (&variable)[320], const char* name, std::string_view value) {
  const int size =
      snprintf(variable, sizeof variable, "%s=%.*s", name, static_cast<int>(value.size()), value.data());
  return size >= 0 && static_cast<size_t>(size) < sizeof variable;
}

const char* failed(int error, const char* what, std::string_view name, const char* path) {
  static char text[400];
  constexpr size_t kShown = 300;
  snprintf(text, sizeof text, "%s '%.*s' in %s", what, static_cast<int>(std::min(name.size(), kShown)),
           name.data(), path);
  errno = error;
  return text;
}

}  // namespace

const char* find_user(std::string_view asked, User& user) {
  user = User();
  if (asked.empty()) return nullptr;
  Table passwd{"/etc/passwd", passwd_bytes}, groups{"/etc/group", group_bytes};
  std::string_view group = asked;
  const std::string_view name = take(group, ':');
  if (const int error = passwd.load(); error != 0) return failed(error, "look for user", name, passwd.path);
  const std::string_view line = find_line(passwd.text(), name);
  if (!line.empty()) {
    if (!parse_id(field(line, 2), user.uid) || !parse_id(field(line, 3), user.gid))
      return failed(EINVAL, "understand user", name, passwd.path);
  } else if (!parse_id(name, user.uid)) {
    return failed(ENOENT, "find user", name, passwd.path);
  }
  if (const int error = groups.load(); error != 0) return failed(error, "look for user", name, groups.path);
  if (!group.empty() && !parse_id(group, user.gid)) {
    const std::string_view found = find_line(groups.text(), group);
    if (found.empty()) return failed(ENOENT, "find group", group, groups.path);
    if (!parse_id(field(found, 2), user.gid)) return failed(EINVAL, "understand group", group, groups.path);
  }
  const std::string_view login = line.empty() ? name : field(line, 0), home = field(line, 5);
  if (group.empty() && !line.empty() && !add_groups(groups.text(), login, user))
    return failed(E2BIG, "count the groups of user", name, groups.path);
  const bool fits = set_variable(user.variables[0], "HOME", home.empty() ? "/" : home) &&
                    set_variable(user.variables[1], "USER", login) &&
                    set_variable(user.variables[2], "LOGNAME", login);
  return fits ? nullptr : failed(ENAMETOOLONG, "take the home folder of user", name, passwd.path);
}

/// With calls of the kernel alone: those of libc want to change all threads of a process, and this one shares
/// its memory with its supervisor.
bool become(const User& user) {
  if (user.is_root()) return true;
  for (const int fd : {0, 1, 2}) {
    // So that it can open /dev/stdout and its terminal anew.
    struct stat status {};
    if (fstat(fd, &status) == 0 && (S_ISFIFO(status.st_mode) || isatty(fd) == 1))
      (void)fchown(fd, user.uid, status.st_gid);
  }
  if (syscall(SYS_setgroups, user.group_count, user.groups) != 0) return false;
  if (syscall(SYS_setresgid, user.gid, user.gid, user.gid) != 0) return false;
  if (syscall(SYS_setresuid, user.uid, user.uid, user.uid) != 0) return false;
  // Where fs.suid_dumpable is 1 that has made the memory traceable: the supervisor's, until the exec.
  return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0;
}

int give_folder(int folder, const User& user) {
  struct stat status {};
  if (fstat(folder, &status) != 0) return errno;
  if (user.is_root() || status.st_uid != 0 || (status.st_mode & S_IWOTH) != 0) return 0;
  alignas(dirent64) char entries[4096];
  for (;;) {
    const ssize_t size = getdents64(folder, entries, sizeof entries);
    if (size < 0) return errno;
    if (size == 0) break;
    for (ssize_t at = 0; at < size;) {
      const auto* entry = reinterpret_cast<const dirent64*>(entries + at);
      at += entry->d_reclen;
      if (std::strcmp(entry->d_name, ".") != 0 && std::strcmp(entry->d_name, "..") != 0) return 0;
    }
  }
  return fchown(folder, user.uid, user.gid) == 0 ? 0 : errno;
}

}  // namespace hutch::agent
