#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

/// Small files of the kernel. Absent: there is no such file, or it says something else.
namespace hutch::runtime {

/// Throws not_found when there is none.
std::string read_value(const std::string& path);
std::optional<uint64_t> read_number(const std::string& path) noexcept;
/// The number behind `key` in a file of "key value" lines.
std::optional<uint64_t> read_keyed(const std::string& path, std::string_view key) noexcept;

}  // namespace hutch::runtime
