#pragma once

#include <string>
#include <string_view>

#include "base/unique_fd.h"

namespace hutch::runtime {

/// A program that this one carries inside itself, byte by byte (embed.py).
struct EmbeddedProgram {
  std::string_view bytes;
  std::string_view digest;  // the first 16 hex digits of its SHA-256, taken when it was built in
};

/// PID 1 of every sandbox.
EmbeddedProgram agent_program();
/// What carries out a StagePlan.
EmbeddedProgram stage_program();

/// The path of a file with the program's content in `folder`, written the first time, under a name that holds
/// the digest. Nothing inside a sandbox can write it: it belongs to the host's root and is bound read-only.
std::string program_file(const EmbeddedProgram& program, const std::string& folder);

/// The program as an anonymous file that nobody can change any more, not even another process of our own
/// user. Empty where the host allows none to be executed (sysctl vm.memfd_noexec=2).
UniqueFd program_memory(const EmbeddedProgram& program);

}  // namespace hutch::runtime
