#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "bench/samples.h"

/// What the kernel says about the machine and about processes on it.
namespace hutch::bench {

/// {"cpu", "cores", "memory_bytes", "kernel", "cgroup"}.
Json describe_machine();
/// How this program was built: {"version", "optimized", "sanitizer"}; `warnings` get a line each for what
/// makes its times worthless.
Json describe_build(const std::string& version, std::vector<std::string>& warnings);

/// Processor time that all processors together have spent since boot on anything, in ms: user, nice, system,
/// irq and softirq of /proc/stat. Counted by the kernel in steps of 10 ms.
double machine_busy_ms();
/// Share of all processors that is busy while this program waits `seconds`: the noise of the machine.
double background_load(double seconds);

uint64_t memory_available_bytes();
uint64_t resident_bytes(pid_t pid);
/// Processor time of all threads of a process so far, in ms; 0 when it is gone or the kernel does not count
/// it.
double process_cpu_ms(pid_t pid);

/// Of the file system that a folder lies on: its name, or its number when that is not known here.
std::string file_system_of(const std::string& folder);
/// Whether two files there can have the same blocks.
bool shares_blocks(const std::string& folder);

/// The user wants the run to end. Not an Error: a scenario that fails is noted and the next one begins, this
/// ends all.
struct Interrupted {
  int signal;
};
/// Holds SIGINT, SIGTERM and SIGHUP back in this thread and those that it starts; what was started gets
/// cleaned up.
void hold_signals();
/// The one that has come, or 0.
int interrupted() noexcept;
/// Throws Interrupted once one of them has come.
void check_interrupted();
/// Throws Interrupted.
void sleep_ms(double ms);

}  // namespace hutch::bench
