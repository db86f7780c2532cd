#include "agent/proc_tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <string_view>

#include "agent/sys.h"
#include "base/unique_fd.h"

namespace hutch::agent {
namespace {

struct Stat {
  char state = 0;
  pid_t parent = 0;
};

/// "PID (name) S PPID ...": the name can hold anything, a ')' too, so the last one counts.
bool parse_stat(std::string_view text, Stat& stat) {
  const size_t name_end = text.rfind(')');
  if (name_end == std::string_view::npos || text.size() < name_end + 5) return false;
  stat.state = text[name_end + 2];
  const char* end = text.data() + text.size();
  return std::from_chars(text.data() + name_end + 4, end, stat.parent).ec == std::errc();
}

bool read_stat(std::string_view pid, Stat& stat) {
  char path[32] = {};
  std::copy(pid.begin(), pid.end(), path);
  std::memcpy(path + pid.size(), "/stat", 6);
  UniqueFd fd(openat(kProcFd, path, O_RDONLY | O_CLOEXEC));
  if (!fd) return false;
  char text[512];
  const ssize_t size = retry_eintr([&] { return read(fd.get(), text, sizeof text); });
  return size > 0 && parse_stat({text, static_cast<size_t>(size)}, stat);
}

bool parse_pid(std::string_view name, pid_t& pid) {
  const char* end = name.data() + name.size();
  const auto result = std::from_chars(name.data(), end, pid);
  return result.ec == std::errc() && result.ptr == end && name.size() < 12;
}

}  // namespace

void ProcTree::add(pid_t pid) {
  char name[16];
  const auto end = std::to_chars(name, name + sizeof name, pid).ptr;
  Stat stat;
  if (count_ == kCapacity || !read_stat({name, static_cast<size_t>(end - name)}, stat)) return;
  pid_[count_] = pid;
  parent_[count_] = stat.parent;
  zombie_[count_] = stat.state == 'Z' || stat.state == 'X';
  marked_[count_] = false;
  ++count_;
}

bool ProcTree::scan() {
  count_ = 0;
  // Opened anew: the agent and its supervisors share the offset of kProcFd.
  UniqueFd folder(openat(kProcFd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder) return false;
  alignas(dirent64) static char buffer[16384];
  for (;;) {
    const ssize_t size = getdents64(folder.get(), buffer, sizeof buffer);
    if (size <= 0) return size == 0;
    for (ssize_t at = 0; at < size;) {
      const auto* entry = reinterpret_cast<const dirent64*>(buffer + at);
      at += entry->d_reclen;
      pid_t pid = 0;
      if (parse_pid(entry->d_name, pid)) add(pid);
    }
  }
}

size_t ProcTree::find(pid_t pid) const {
  const pid_t* end = pid_ + count_;
  const pid_t* found = std::lower_bound(pid_, end, pid);  // /proc lists processes in ascending order
  return found != end && *found == pid ? static_cast<size_t>(found - pid_) : kCapacity;
}

void ProcTree::mark_descendants(pid_t root) {
  for (size_t i = 0; i < count_; ++i) {
    if (parent_[i] == root) marked_[i] = true;
  }
  mark_descendants_of_marked();
}

void ProcTree::mark_descendants_of_marked() {
  // Mostly one round: a child has a higher number than its parent, unless numbers wrapped around.
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t i = 0; i < count_; ++i) {
      if (marked_[i]) continue;
      const size_t parent = find(parent_[i]);
      if (parent == kCapacity || !marked_[parent]) continue;
      marked_[i] = changed = true;
    }
  }
}

size_t ProcTree::count_living() const {
  size_t living = 0;
  for (size_t i = 0; i < count_; ++i) living += marked_[i] && !zombie_[i];
  return living;
}

void ProcTree::kill_marked(int signal) const {
  // Zombies too: the first thread of a process can be one while other threads run on.
  for (size_t i = 0; i < count_; ++i) {
    if (marked_[i]) (void)kill(pid_[i], signal);
  }
}

ProcTree& proc_tree() {
  static ProcTree tree;
  return tree;
}

}  // namespace hutch::agent
