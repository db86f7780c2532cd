#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/process.h"
#include "base/sys.h"
#include "runtime/cgroup.h"

namespace hutch::sandbox {

/// What is on disk about one sandbox, written before anything of it is made: enough to remove all of it after
/// a crash.
struct Record {
  std::string id, name, profile, runtime;
  std::string state = "creating";  // creating, warm (nobody's yet), running, ending
  int64_t pid = 0;                 // of the agent; 0 = not known yet
  uint64_t start_time = 0;         // of that process, see process_start_time()
  bool cgroup_v2 = false;
  std::map<std::string, std::string> cgroups;
};

/// Kills the agent that the record names, if it still is that process, and waits for its end: as PID 1 of its
/// namespace it takes everything inside with it. False when it has not ended by `deadline`.
bool end_recorded_agent(const Record& record, Clock::time_point deadline);

/// The data folder as one server sees it: what all servers share, and a folder of its own under `servers/`,
/// held by a file lock for as long as the process lives.
class Store {
 public:
  /// Makes nothing yet: hosts start servers only to ask for their version.
  explicit Store(std::string home) : home_(std::move(home)) {}
  ~Store() { close(); }
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  /// Makes the folders and takes the lock. Throws an Error that says what to do when the folder cannot be
  /// used.
  void open();
  /// Gives up the server's own folder. What could not be removed in time, such as the gigabytes of a sandbox,
  /// or of which something was still being made, is left to a process of our binary that waits for the end of
  /// this one, does nothing else, and keeps the lock meanwhile; should that be killed too, the next server
  /// does it.
  void close() noexcept;
  const std::string& home() const noexcept { return home_; }
  const std::string& server_id() const noexcept { return server_id_; }
  /// The server's own; empty before open().
  const std::string& folder() const noexcept { return folder_; }

  /// Removes whatever servers that are dead left behind: processes, cgroups, folders. Returns the sandboxes'
  /// ids.
  std::vector<std::string> remove_leftovers();

  std::string sandbox_folder(const std::string& id) const;
  /// Returns the record of the sandbox, open and empty: kept open, since a claim is one append to it.
  UniqueFd create_sandbox_folder(const std::string& id) const;
  /// Appends a line to the sandbox's record: the first one before anything else is made, then one for each
  /// change. No rename and no sync: it has to survive the death of a process, not of the machine, and ext4
  /// writes a file that replaces another out to the disk at once.
  static void write_record(const UniqueFd& file, const Record& record);
  /// False when something stays, which the next server removes.
  bool remove_sandbox_folder(const std::string& id, const sys::RemoveBounds& bounds) const noexcept;

 private:
  std::string home_, server_id_, folder_;
  UniqueFd lock_;
};

/// What `hutch --remove FOLDER` inherits: it begins when this reads as ended, which is when the server is
/// dead.
inline constexpr int kServerEndFd = 4;

/// Removes a dead server's folder with all that its records name: processes, cgroups, files. The caller holds
/// its lock. Returns the sandboxes' ids; one of which something is left keeps its record, for the next try.
std::vector<std::string> remove_server_folder(const std::string& folder);

}  // namespace hutch::sandbox
