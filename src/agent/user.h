#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string_view>

/// The sandbox's users, by its own /etc/passwd and /etc/group. Not by NSS: that would load libraries of the
/// sandbox into PID 1.
namespace hutch::agent {

/// Who a command runs as. Plain data: PID 1 looks it up, and hands it to a supervisor in shared memory.
struct User {
  static constexpr size_t kMaxGroups = 256;
  static constexpr size_t kVariables = 3;  // HOME, USER, LOGNAME

  uid_t uid = 0;
  gid_t gid = 0;
  uint32_t group_count = 0;
  gid_t groups[kMaxGroups] = {};
  char variables[kVariables][320] = {};  // NAME=VALUE; empty: there is nothing to say

  /// The agent's own: nothing is changed for it.
  bool is_root() const { return uid == 0 && gid == 0; }
};

/// NAME, UID, NAME:GROUP and so on, with the meaning that images give them: a number needs no entry, and a
/// user without one is in group 0; a group that is named is the only one. Empty: root. nullptr, or with errno
/// what failed, valid until the next call.
const char* find_user(std::string_view asked, User& user);

/// Changes of the calling process, which ends in an exec: streams, groups, ids. Only system calls. False with
/// errno when one is refused; then the process must end.
bool become(const User& user);

/// Gives a folder to the user that is root's and empty, so that nothing of root's goes with it, and that not
/// everybody can write to already. 0 or an errno.
int give_folder(int folder, const User& user);

}  // namespace hutch::agent
