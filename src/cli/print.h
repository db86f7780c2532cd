#pragma once

#include <cstdint>
#include <string>
#include <vector>

/// Words and columns for people.
namespace hutch::cli {

/// Lines of columns that begin below each other; the first row is the heading. Nothing for a heading alone.
std::string columns(const std::vector<std::vector<std::string>>& rows);

/// "8 s", "12 min", "3 h 5 min", "2 d 4 h".
std::string time_in_words(int64_t seconds);

/// For how long a sandbox has not been used.
std::string idle_in_words(bool in_use, int64_t seconds);

}  // namespace hutch::cli
