#pragma once

#include <cstdint>
#include <string>

namespace hutch::runtime {

/// Bytes of a file whose blocks other files have too: the first write to one takes a new block, though the
/// file grows by nothing. 0 on file systems that share none, and where it cannot be told.
uint64_t shared_bytes(const std::string& path) noexcept;

/// Whether a copy of the file in that folder can have the same blocks.
bool can_share_blocks(const std::string& path, const std::string& folder) noexcept;

}  // namespace hutch::runtime
