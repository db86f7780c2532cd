#pragma once

#include <string>
#include <string_view>

#include "base/unique_fd.h"

namespace hutch::runtime {

/// Opens the folder `path` below the folder `root`, by names alone: no links, no other mounts, nothing above.
/// It may be longer than PATH_MAX. Throws.
UniqueFd open_folder_beneath(int root, std::string_view path);

/// A name of a file for people: short, and of one line.
std::string shown_name(std::string_view name);

}  // namespace hutch::runtime
