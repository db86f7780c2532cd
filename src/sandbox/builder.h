#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "config/config.h"
#include "sandbox/bases.h"
#include "sandbox/call_gauge.h"
#include "sandbox/id_ranges.h"
#include "sandbox/io_thread.h"
#include "sandbox/sandbox.h"
#include "sandbox/store.h"
#include "sandbox/volumes.h"

namespace hutch::sandbox {

/// One sandbox of this server from the moment it has an id: what has to be removed at its end, whole or half
/// made.
struct Entry {
  std::string id;
  runtime::Cgroup cgroup;
  uint32_t first_id = 0;  // of its range of host ids; 0 = none of its own
  // The manager's lock guards these.
  bool claimed = false;    // somebody's; otherwise being built for nobody, or warm
  bool published = false;  // its owner can name it
  bool adopted = false;    // from a server that is dead
  bool gives_way = false;  // warm or soon warm, but a caller needs its place
  std::string name;        // of its owner's choice

  std::mutex mutex;  // guards what follows
  Record record;
  UniqueFd record_file;
  std::shared_ptr<Sandbox> sandbox;                                 // null until it is whole
  std::vector<std::shared_ptr<const runtime::SealedLayer>> layers;  // their devices stay with it

  std::shared_ptr<Sandbox> whole() {
    const std::lock_guard lock(mutex);
    return sandbox;
  }
};

/// Makes what a sandbox consists of on this host, and removes it again. Knows the runtimes, the data folder
/// and the host's cgroups; nothing of callers. Thread-safe.
class Builder {
 public:
  explicit Builder(const config::Config& config)
      : config_(config), store_(config.home), bases_(config), volumes_(config.home, config.volumes) {}

  /// The data folder, and what dead servers left in it: once, before anything else.
  Store::Leftovers prepare(bool adopts);
  /// Gives everything its name. Nothing is made yet.
  std::shared_ptr<Entry> name_one();
  /// Takes up one that lives on: its agent has answered, its limits hold. Throws when that cannot be; then
  /// remove() ends it.
  std::shared_ptr<Entry> name_adopted(const Leftover& leftover);
  void adopt(Entry& entry, WallClock::time_point last_used);
  /// What one is built for. `profile` tells the hardening, `runtime` may be `auto`.
  struct Build {
    std::string profile, runtime;
    Base base;
    runtime::Limits limits;
    std::string trusted_certificate{};  // see SandboxSpec
  };
  /// Makes it whole: its agent has answered, its limits hold from the start. On an Error the entry holds
  /// whatever was made, for remove(). `volumes` are those that it cannot be given later.
  void build(Entry& entry, const Build& wanted, std::vector<AttachedVolume>* volumes = nullptr);
  /// Copies what the sandbox has written to a layer of its own, if `disk` has room for it. `lasts`: see
  /// LayerStore::finish().
  LayerStore::Finished seal(Entry& entry, bool lasts, const DiskGuard& disk);
  /// Whether sandboxes of the runtime can be given volumes when they are whole.
  bool attaches_volumes(const std::string& runtime);
  /// Of one that has run nothing yet. Those that do not exist are made, and all are noted in its record.
  void attach_volumes(Entry& entry, const std::string& runtime, std::vector<AttachedVolume>& volumes);
  /// Of one that nobody has used: the host's network, but for what is not public and not in `allow`.
  void attach_network(Entry& entry, const Description& about);
  /// Waits for its end and removes all of it. False when something stays behind, which the next server
  /// removes.
  bool remove(Entry& entry, Clock::time_point deadline, const sys::RemoveBounds& bounds);
  /// Notes in the entry's record, and on disk, what it is now.
  void set_state(Entry& entry, const std::string& state);
  template <class Change>
  void note(Entry& entry, Change change) {
    const std::lock_guard lock(entry.mutex);
    change(entry.record);
    Store::write_record(entry.record_file, entry.record);
  }
  /// Counts the sandbox with that much from now on, or throws limit_exceeded.
  void charge(const std::string& id, const Charge& charge);
  /// The same for one that exists already, whatever the host has.
  void charge_anyway(const std::string& id, const Charge& charge) {
    store_.ledger().charge(store_.server_id(), id, charge, {Ledger::kMaxLines, UINT64_MAX, UINT64_MAX});
  }
  void release(const std::string& id) noexcept { store_.ledger().release(id); }
  Totals totals() const { return store_.ledger().totals(); }
  void close(bool collects_layers) noexcept { store_.close(collects_layers); }

  runtime::CgroupHost& cgroups();
  IoThread& io() noexcept { return io_; }
  CallGauge& calls() noexcept { return calls_; }
  Bases& bases() noexcept { return bases_; }
  const std::string& folder() const noexcept { return store_.folder(); }
  const VolumeStore& volumes() const noexcept { return volumes_; }

 private:
  runtime::Runtime& choose_runtime(const std::string& wanted);
  std::vector<runtime::VolumeMount> open_volumes(Entry& entry, std::vector<AttachedVolume>& volumes,
                                                 bool by_server);
  HostTotals host_totals(uint64_t written_bytes) const;
  Body body_of(const Entry& entry, const runtime::Limits& limits, const std::string& user,
               runtime::Container container, std::shared_ptr<Channel> channel) const;

  const config::Config& config_;
  Store store_;
  Bases bases_;
  const VolumeStore volumes_;
  IdRanges ids_;
  CallGauge calls_;
  std::mutex mutex_;  // guards the two below, and the store's opening
  std::optional<runtime::CgroupHost> cgroups_;
  std::map<std::string, std::vector<std::unique_ptr<runtime::Runtime>>> runtimes_;
  IoThread io_;
};

}  // namespace hutch::sandbox
