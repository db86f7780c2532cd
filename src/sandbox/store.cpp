#include "sandbox/store.h"

#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <thread>

#include "base/log.h"
#include "base/sys.h"
#include "runtime/block_groups.h"
#include "runtime/layer.h"

namespace hutch::sandbox {

using namespace std::chrono_literals;

namespace {

/// Names that begin with a dot belong to what is not finished yet.
std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> out = sys::list_folder(folder);
  std::erase_if(out, [](const std::string& name) { return name.front() == '.'; });
  return out;
}

/// With the lock of the folder held: whoever began these is dead.
void remove_unfinished(const std::string& folder) {
  for (const auto& name : sys::list_folder(folder))
    if (name.front() == '.') sys::remove_tree(folder + "/" + name);
}

/// Empty when somebody alive holds it.
UniqueFd try_lock(const std::string& path) {
  UniqueFd fd = sys::open_if_exists(path, O_RDWR);
  if (fd && ::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) fd.reset();
  return fd;
}

WallClock::time_point last_use(const std::string& folder) {
  struct stat st {};
  if (::stat((folder + "/record").c_str(), &st) != 0) return {};
  return WallClock::time_point(std::chrono::duration_cast<WallClock::duration>(
      std::chrono::seconds(st.st_mtim.tv_sec) + std::chrono::nanoseconds(st.st_mtim.tv_nsec)));
}

bool remove_cgroups(const runtime::Cgroup& cgroup, Clock::time_point deadline) {
  for (;;) {
    cgroup.kill_all();
    if (cgroup.remove()) return true;
    if (Clock::now() > deadline) return false;
    std::this_thread::sleep_for(2ms);  // the kernel frees a group a moment after its last process
  }
}

/// What is still being made, by a stage process that has not noticed its server's end, is made a moment
/// longer.
bool remove_with_patience(const std::string& folder) {
  for (const auto deadline = Clock::now() + 200ms;; std::this_thread::sleep_for(2ms)) {
    if (sys::remove_tree(folder)) return true;
    if (Clock::now() > deadline) return false;
  }
}

/// Then there is nothing to remove, and the lock is free at once for the next server, which takes them up.
bool all_live_on(const std::string& sandboxes) noexcept {
  try {
    return std::ranges::all_of(names_in(sandboxes), [&](const std::string& id) {
      const auto record = read_record(sandboxes + "/" + id + "/record");
      return record && lives_on(*record);
    });
  } catch (const std::exception&) {
    return false;
  }
}

}  // namespace

void Store::close(bool collects_layers) noexcept {
  if (folder_.empty()) return;
  if (!collects_layers && ::rmdir((folder_ + "/sandboxes").c_str()) == 0) {
    sys::remove_tree(folder_);
  } else if (collects_layers || !all_live_on(folder_ + "/sandboxes")) {
    try {
      sys::Pipe end = sys::pipe();
      hutch::Process::spawn({.argv = {"/proc/self/exe", "--remove", folder_},
                             .env = {},
                             .fds = {{lock_.get(), 3}, {end.read_end.get(), kServerEndFd}}})
          .detach();
      (void)end.write_end.release();  // closed by the end of this process
    } catch (const Error& e) {
      log::warning("{}: the next server removes {}", e.what(), folder_);
    }
  }
  lock_.reset();
  folder_.clear();
}

void Store::open() {
  if (!folder_.empty()) return;
  try {
    // Others may pass through, since sandboxes' roots do, but not look around.
    sys::make_dirs(home_, 0711);
    sys::make_dirs(home_ + "/servers", 0711);
    const UniqueFd turn = sys::lock_folder(home_ + "/servers");
    remove_unfinished(home_ + "/servers");
    const std::string id = sys::random_hex(6);
    const std::string building = fmt::format("{}/servers/.{}", home_, id);
    sys::make_dirs(building + "/sandboxes", 0711);
    runtime::spread_subfolders(building + "/sandboxes");
    UniqueFd lock = sys::open(building + "/lock", O_RDWR | O_CREAT, 0600);
    if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) throw sys_error(errno, "lock", building);
    // Under its final name it is locked from the first moment: nobody can take it for a dead one.
    const std::string folder = fmt::format("{}/servers/{}", home_, id);
    if (::rename(building.c_str(), folder.c_str()) != 0) throw sys_error(errno, "rename", folder);
    lock_ = std::move(lock);
    server_id_ = id;
    folder_ = folder;
    ledger_.open(home_);
    ledger_.release_of([&](const std::string& server) { return !sys::exists(home_ + "/servers/" + server); });
  } catch (Error& e) {
    e.during("setting up the data folder " + home_);
    e.hint(
        "name a folder that you can write to and that has room, with $HUTCH_HOME or `home` in the "
        "configuration");
    throw;
  }
}

void note_last_use(const UniqueFd& record, WallClock::time_point when) noexcept {
  const auto since = when.time_since_epoch();
  const auto seconds = std::chrono::floor<std::chrono::seconds>(since);
  const timespec time{.tv_sec = seconds.count(),
                      .tv_nsec = std::chrono::nanoseconds(since - seconds).count()};
  const timespec times[2] = {time, time};
  (void)::futimens(record.get(), times);
}

std::string home_of(const std::string& server_folder) {
  return server_folder.substr(0, server_folder.rfind("/servers/"));
}

bool lives_on(const Record& record) {
  return record.state == "running" && record.outlives_server && !record.about.is_over() &&
         recorded_agent(record);
}

std::vector<Leftover> remove_server_folder(const std::string& folder,
                                           const std::function<bool(const Leftover&)>& keep) {
  std::vector<Leftover> removed;
  for (const auto& id : names_in(folder + "/sandboxes")) {
    Leftover leftover{.record = {}, .folder = folder + "/sandboxes/" + id, .last_used = {}};
    leftover.record.id = id;
    leftover.last_used = last_use(leftover.folder);
    bool gone = true;
    if (auto record = read_record(leftover.folder + "/record")) {
      leftover.record = std::move(*record);
      if (keep(leftover)) continue;
      const runtime::Cgroup cgroup(leftover.record.cgroup_v2, leftover.record.cgroups);
      (void)end_recorded_agent(leftover.record, Clock::now() + 5s);
      gone = remove_cgroups(cgroup, Clock::now() + 2s);
    }
    // The record goes last: as long as something is left, the next try must find it.
    if (gone && remove_with_patience(leftover.folder)) removed.push_back(std::move(leftover));
  }
  const bool empty = names_in(folder + "/sandboxes").empty();
  if (!empty && removed.empty()) return removed;
  const std::string home = home_of(folder);
  Ledger ledger;
  ledger.open(home);
  for (const auto& leftover : removed) ledger.release(leftover.record.id);
  if (!empty) return removed;
  // Also what it had taken for sandboxes of which it made nothing yet. Before the folder goes: whoever is
  // killed in between leaves something that the next one finds.
  const std::string server = folder.substr(home.size() + std::string_view("/servers/").size());
  ledger.release_of([&](const std::string& owner) { return owner == server; });
  sys::remove_tree(folder);
  return removed;
}

std::vector<Record> all_records(const std::string& home) {
  std::vector<Record> out;
  for (const auto& server : names_in(home + "/servers")) {
    const std::string sandboxes = home + "/servers/" + server + "/sandboxes";
    for (const auto& id : names_in(sandboxes)) {
      try {
        if (auto record = read_record(sandboxes + "/" + id + "/record")) out.push_back(std::move(*record));
      } catch (const Error&) {
        // It is just being removed.
      }
    }
  }
  return out;
}

std::vector<Leftover> left_behind(const std::string& home) {
  std::vector<Leftover> out;
  for (const auto& server : names_in(home + "/servers")) {
    const std::string sandboxes = home + "/servers/" + server + "/sandboxes";
    if (!try_lock(home + "/servers/" + server + "/lock")) continue;
    for (const auto& id : names_in(sandboxes)) {
      const std::string folder = sandboxes + "/" + id;
      if (auto record = read_record(folder + "/record"); record && lives_on(*record))
        out.push_back({std::move(*record), folder, last_use(folder)});
    }
  }
  return out;
}

std::vector<Record> existing_sandboxes(const std::string& home) {
  std::vector<Record> out;
  for (const auto& server : names_in(home + "/servers")) {
    const std::string folder = home + "/servers/" + server;
    for (const auto& id : names_in(folder + "/sandboxes")) {
      auto record = read_record(folder + "/sandboxes/" + id + "/record");
      if (!record) continue;
      const bool exists =
          record->pid > 0 ? static_cast<bool>(recorded_agent(*record)) : !try_lock(folder + "/lock");
      if (exists) out.push_back(std::move(*record));
    }
  }
  return out;
}

std::vector<Leftover> remove_dead_servers(const std::string& home,
                                          const std::function<bool(const Leftover&)>& keep) {
  std::vector<Leftover> removed;
  for (const auto& server : names_in(home + "/servers")) {
    const std::string folder = home + "/servers/" + server;
    if (!sys::exists(folder + "/lock")) {
      sys::remove_tree(folder);  // it was being removed: all else had gone before its lock
      continue;
    }
    const UniqueFd lock = try_lock(folder + "/lock");
    if (!lock) continue;
    for (auto& leftover : remove_server_folder(folder, keep)) {
      log::info("removed {}, which server {} left behind", leftover.record.id, server);
      removed.push_back(std::move(leftover));
    }
  }
  return removed;
}

Store::Leftovers Store::take_leftovers(bool adopts) {
  Leftovers out;
  out.removed = remove_dead_servers(home_, [&](const Leftover& leftover) {
    if (!lives_on(leftover.record)) return false;
    const std::string folder = sandbox_folder(leftover.record.id);
    // In one step: whoever is killed next to it, it lies in the folder of exactly one server.
    if (adopts && ::rename(leftover.folder.c_str(), folder.c_str()) == 0)
      out.adopted.push_back({leftover.record, folder, leftover.last_used});
    return true;
  });
  return out;
}

uint64_t Store::written_bytes() const {
  uint64_t sum = 0;
  for (const auto& server : names_in(home_ + "/servers")) {
    const std::string sandboxes = home_ + "/servers/" + server + "/sandboxes/";
    for (const auto& id : names_in(sandboxes)) {
      struct stat st {};
      if (::stat(runtime::layer_image(sandboxes + id).c_str(), &st) == 0)
        sum += static_cast<uint64_t>(st.st_blocks) * 512;
    }
  }
  return sum;
}

std::string Store::sandbox_folder(const std::string& id) const {
  return folder_ + "/sandboxes/" + id;
}

void Store::create_sandbox_folder(const std::string& id) const {
  sys::make_dirs(sandbox_folder(id), 0711);
}

UniqueFd Store::open_record(const std::string& id) const {
  return sys::open(sandbox_folder(id) + "/record", O_WRONLY | O_APPEND | O_CREAT, 0600);
}

bool Store::remove_sandbox_folder(const std::string& id, const sys::RemoveBounds& bounds) const noexcept {
  return sys::remove_tree(sandbox_folder(id), bounds);
}

}  // namespace hutch::sandbox
