#pragma once

#include <climits>
#include <string_view>

#include "agent/user.h"
#include "base/unique_fd.h"

/// Paths of requests, resolved by the kernel beneath the sandbox's root and never through /proc links.
namespace hutch::agent {

/// Where a file is to be written: its folder, and its name in there. The name was no symbolic link when it
/// was looked at; callers use O_NOFOLLOW.
struct Place {
  UniqueFd folder;
  char name[NAME_MAX + 1] = {};
};

/// Opens an existing file of the sandbox; -1 with errno.
int open_beneath(std::string_view path, uint64_t flags);

/// Follows symbolic links up to the file itself, which need not exist: so writing through a link changes
/// the link's target. `makes_parents`: whose folders are that are made on the way; nullptr: none are. 0 or an
/// errno.
int find_place(std::string_view path, const User* makes_parents, Place& place);

/// A folder and those above it; `owner` gets what is made. 0 or an errno.
int make_folder(std::string_view path, const User& owner);

}  // namespace hutch::agent
