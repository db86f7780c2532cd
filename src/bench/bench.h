#pragma once

#include <optional>
#include <string>
#include <vector>

/// Measures this program as an MCP client sees it, the least that the machine needs for such things, and
/// other programs that do such work. A client like any other: it knows nothing of how hutch works.
namespace hutch::bench {

enum class Length { quick, usual, full };

struct BenchOptions {
  Length length = Length::usual;
  std::vector<std::string> only;          // beginnings of names; empty: all
  std::optional<std::string> json_file;   // where the full result goes
  std::optional<std::string> peers_file;  // otherwise what is found
  std::string version;                    // of this program
};

/// Prints tables to stdout and progress to stderr. Returns the exit code: 0, 1 when something failed, 130
/// when it was interrupted. Throws Error(invalid_argument) for an unknown name or a wrong peers file.
int run(const BenchOptions& options);

}  // namespace hutch::bench
