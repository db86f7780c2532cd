#include "sandbox/store.h"

#include <dirent.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <thread>

#include "base/log.h"
#include "base/sys.h"
#include "runtime/block_groups.h"

namespace hutch::sandbox {

using namespace std::chrono_literals;
using nlohmann::json;

namespace {

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> out;
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(::opendir(folder.c_str()), ::closedir);
  if (!stream) return out;
  while (const dirent* entry = ::readdir(stream.get()))
    if (entry->d_name[0] != '.') out.emplace_back(entry->d_name);
  return out;
}

/// Empty when somebody alive holds it.
UniqueFd try_lock(const std::string& path) {
  UniqueFd fd = sys::open_if_exists(path, O_RDWR);
  if (fd && ::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) fd.reset();
  return fd;
}

/// The last whole line counts; a server that dies while it writes leaves a broken one behind it.
std::optional<Record> read_record(const std::string& folder) {
  std::optional<Record> found;
  if (!sys::exists(folder + "/record")) return found;
  std::istringstream lines(sys::read_file(folder + "/record"));
  for (std::string line; std::getline(lines, line);) {
    try {
      const json j = json::parse(line);
      Record r;
      r.id = j.at("id");
      r.state = j.at("state");
      r.pid = j.at("pid");
      r.start_time = j.at("start_time");
      r.cgroup_v2 = j.at("cgroup_v2");
      r.cgroups = j.at("cgroups");
      found = std::move(r);
    } catch (const json::exception&) {
      break;
    }
  }
  return found;
}

bool remove_cgroups(const runtime::Cgroup& cgroup, Clock::time_point deadline) {
  for (;;) {
    cgroup.kill_all();
    if (cgroup.remove()) return true;
    if (Clock::now() > deadline) return false;
    std::this_thread::sleep_for(2ms);  // the kernel frees a group a moment after its last process
  }
}

}  // namespace

bool end_recorded_agent(const Record& record, Clock::time_point deadline) {
  if (record.pid <= 0) return true;
  try {
    const UniqueFd pidfd = pidfd_open(static_cast<pid_t>(record.pid));
    // Compared after the pidfd is held, so that the number cannot change its owner in between.
    if (process_start_time(static_cast<pid_t>(record.pid)) != record.start_time) return true;
    pidfd_signal(pidfd.get(), SIGKILL);
    runtime::Cgroup(record.cgroup_v2, record.cgroups).thaw();
    return wait_for_end(pidfd.get(), deadline);
  } catch (const Error&) {
    return true;  // there is no such process
  }
}

void Store::close() noexcept {
  if (folder_.empty()) return;
  if (::rmdir((folder_ + "/sandboxes").c_str()) == 0) {
    sys::remove_tree(folder_);
  } else {
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
  } catch (Error& e) {
    e.during("setting up the data folder " + home_);
    e.hint(
        "name a folder that you can write to and that has room, with $HUTCH_HOME or `home` in the "
        "configuration");
    throw;
  }
}

std::vector<std::string> remove_server_folder(const std::string& folder) {
  std::vector<std::string> removed;
  for (const auto& id : names_in(folder + "/sandboxes")) {
    const std::string sandbox = folder + "/sandboxes/" + id;
    bool gone = true;
    if (const auto record = read_record(sandbox)) {
      (void)end_recorded_agent(*record, Clock::now() + 5s);
      gone = remove_cgroups(runtime::Cgroup(record->cgroup_v2, record->cgroups), Clock::now() + 2s);
    }
    // The record goes last: as long as something is left, the next try must find it.
    if (gone && sys::remove_tree(sandbox)) removed.push_back(id);
  }
  if (names_in(folder + "/sandboxes").empty()) sys::remove_tree(folder);
  return removed;
}

std::vector<std::string> Store::remove_leftovers() {
  std::vector<std::string> removed;
  for (const auto& server : names_in(home_ + "/servers")) {
    const std::string folder = home_ + "/servers/" + server;
    if (folder == folder_) continue;
    const UniqueFd lock = try_lock(folder + "/lock");
    if (!lock) continue;
    for (auto& id : remove_server_folder(folder)) removed.push_back(std::move(id));
    log::info("removed what server {} left behind", server);
  }
  return removed;
}

std::string Store::sandbox_folder(const std::string& id) const {
  return folder_ + "/sandboxes/" + id;
}

UniqueFd Store::create_sandbox_folder(const std::string& id) const {
  sys::make_dirs(sandbox_folder(id), 0711);
  return sys::open(sandbox_folder(id) + "/record", O_WRONLY | O_APPEND | O_CREAT, 0600);
}

void Store::write_record(const UniqueFd& file, const Record& record) {
  const json j = {{"id", record.id},
                  {"name", record.name},
                  {"profile", record.profile},
                  {"runtime", record.runtime},
                  {"state", record.state},
                  {"pid", record.pid},
                  {"start_time", record.start_time},
                  {"cgroup_v2", record.cgroup_v2},
                  {"cgroups", record.cgroups}};
  sys::write_all(file.get(), j.dump(-1, ' ', true) + "\n");
}

bool Store::remove_sandbox_folder(const std::string& id, const sys::RemoveBounds& bounds) const noexcept {
  return sys::remove_tree(sandbox_folder(id), bounds);
}

}  // namespace hutch::sandbox
