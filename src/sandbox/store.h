#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/sys.h"
#include "sandbox/ledger.h"
#include "sandbox/record.h"

namespace hutch::sandbox {

/// A sandbox of a dead server.
struct Leftover {
  Record record;
  std::string folder;
  WallClock::time_point last_used;
};

/// The time of the record file says when its sandbox was used last.
void note_last_use(const UniqueFd& record, WallClock::time_point when) noexcept;

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
  /// `collects_layers`: that process also removes layers that nothing refers to any more.
  void close(bool collects_layers = false) noexcept;
  const std::string& home() const noexcept { return home_; }
  const std::string& server_id() const noexcept { return server_id_; }
  /// The server's own; empty before open().
  const std::string& folder() const noexcept { return folder_; }

  Ledger& ledger() noexcept { return ledger_; }
  const Ledger& ledger() const noexcept { return ledger_; }

  struct Leftovers {
    std::vector<Leftover> adopted;  // alive: moved into the server's own folder, under their ids
    std::vector<Leftover> removed;  // all of them is gone: processes, cgroups, folders
  };
  /// Goes through what servers that are dead left behind. Those that live on, and whose time has not come,
  /// are this server's from then on when it `adopts`, otherwise they stay where they are. All else is
  /// removed. Of two servers that do it at once each sandbox is one's.
  Leftovers take_leftovers(bool adopts);

  /// Of all servers' sandboxes together, what their files take on the host's disk now.
  uint64_t written_bytes() const;
  std::string sandbox_folder(const std::string& id) const;
  void create_sandbox_folder(const std::string& id) const;
  /// The record of the sandbox: kept open, since a claim is one append to it.
  UniqueFd open_record(const std::string& id) const;
  /// Appends a line to the sandbox's record: the first one before anything else is made, then one for each
  /// change. No rename and no sync: it has to survive the death of a process, not of the machine, and ext4
  /// writes a file that replaces another out to the disk at once.
  static void write_record(const UniqueFd& file, const Record& record) {
    sys::write_all(file.get(), to_line(record));
  }
  /// False when something stays, which the next server removes.
  bool remove_sandbox_folder(const std::string& id, const sys::RemoveBounds& bounds) const noexcept;

 private:
  std::string home_, server_id_, folder_;
  UniqueFd lock_;
  Ledger ledger_;
};

/// What `hutch --remove FOLDER` inherits: it begins when this reads as ended, which is when the server is
/// dead.
inline constexpr int kServerEndFd = 4;

/// The data folder that a server's folder is in.
std::string home_of(const std::string& server_folder);

/// Whether a dead server's sandbox can be taken up: somebody had claimed it, its agent runs, and its lifetime
/// is not over.
bool lives_on(const Record& record);

/// Of all sandboxes of all servers, whoever they are and whether they live.
std::vector<Record> all_records(const std::string& home);

/// Removes all of a dead server's sandboxes for which `keep` does not say otherwise, with what their records
/// name: processes, cgroups, files; and its folder when nothing is left in it. The caller holds its lock.
/// Returns those of which nothing is left; of the others the record stays, for the next try.
std::vector<Leftover> remove_server_folder(const std::string& folder,
                                           const std::function<bool(const Leftover&)>& keep);

/// The sandboxes that dead servers left and that live on, until the next server takes them up.
std::vector<Leftover> left_behind(const std::string& home);

/// Of all servers: those that run, and those that a server alive is making.
std::vector<Record> existing_sandboxes(const std::string& home);

/// Does the same for every dead server below the data folder.
std::vector<Leftover> remove_dead_servers(const std::string& home,
                                          const std::function<bool(const Leftover&)>& keep);

}  // namespace hutch::sandbox
