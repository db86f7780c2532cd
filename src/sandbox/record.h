#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/process.h"
#include "base/unique_fd.h"
#include "runtime/disk_image.h"
#include "sandbox/description.h"
#include "sandbox/process_table.h"

namespace hutch::sandbox {

/// What is on disk about one sandbox: written before anything of it is made, and appended to at each change.
/// Enough to remove all of it after a crash, and to take it up again while it lives.
struct Record {
  std::string id, runtime;
  std::string state = "creating";  // creating, warm (nobody's yet), running, ending
  int64_t pid = 0;                 // of the agent; 0 = not known yet
  uint64_t start_time = 0;         // of that process, see process_start_time()
  bool cgroup_v2 = false;
  std::map<std::string, std::string> cgroups;
  uint32_t first_id = 0;                // of its range of host ids; 0 = none of its own
  std::optional<runtime::DiskId> disk;  // that its files lie on, where it has one
  std::vector<std::string> layers;      // ids of those below, see LayerStore

  // From its claim on:
  Description about;
  std::string owner;             // of the server that made it, see owner_key()
  bool is_default = false;       // that server's default sandbox
  bool outlives_server = false;  // the next one takes it up
  bool paused = false;           // by a caller
  std::vector<KeptProcess> processes;
};

/// A line of JSON, with its end.
std::string to_line(const Record& record);
/// The last whole line counts: a process may die while it writes one. Nothing when there is none. A field
/// that the line lacks, since another version wrote it, is as in a new Record.
std::optional<Record> read_record(const std::string& path);

/// The agent that the record names, when it still is that process.
UniqueFd recorded_agent(const Record& record);
/// Kills it and waits for its end: as PID 1 of its namespace it takes everything inside with it. False when
/// it has not ended by `deadline`.
bool end_recorded_agent(const Record& record, Clock::time_point deadline);

}  // namespace hutch::sandbox
