#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "config/config.h"
#include "sandbox/admission.h"
#include "sandbox/audit_log.h"
#include "sandbox/builder.h"
#include "sandbox/control_socket.h"
#include "sandbox/disk_guard.h"
#include "sandbox/egress_gate.h"
#include "sandbox/ports.h"
#include "sandbox/pressure_monitor.h"
#include "sandbox/warm_pool.h"

namespace hutch::sandbox {

/// A sandbox that is no more, and why: kept so that the next call can be told.
struct Ended {
  Description about;
  std::string cause;
  WallClock::time_point ended_at;
};

/// All sandboxes of this server. Thread-safe. Nothing happens on the host before the first call of a method.
class Manager {
 public:
  /// `keeps`: sandboxes live on when this process is killed, the next server takes them up, and so does this
  /// one with those of servers before it. For a program that runs one command it is false.
  explicit Manager(const config::Config& config, bool keeps = false);
  /// Ends all sandboxes, however long that takes; shutdown() bounds it.
  ~Manager();

  std::shared_ptr<Sandbox> create(const CreateRequest& request);
  /// By id or name. Throws not_found, which names the live ones and says why an ended one has ended.
  std::shared_ptr<Sandbox> find(const std::string& id_or_name);
  /// The one for calls that name none, made at the first such call; `fresh` tells whether it was made now.
  struct DefaultSandbox {
    std::shared_ptr<Sandbox> sandbox;
    bool fresh = false;
    std::string previous_cause;  // why the one before ended; empty when there was none
  };
  /// `progress` and `stop`: see CreateRequest.
  DefaultSandbox default_sandbox(const Progress& progress = {}, const std::stop_token& stop = {});
  std::vector<std::shared_ptr<Sandbox>> list();
  std::vector<Ended> ended() const;

  /// Changes it as its owner asks, within what the host has.
  void update(const std::string& id_or_name, Changes changes);

  /// Keeps all files that it has as a template, see TemplateStore.
  Template save_template(const std::string& id_or_name, const std::string& name,
                         const std::string& description, bool overwrite);
  /// Throws conflict when it is in use.
  void remove_template(const std::string& name);
  /// Running copies of its files as they are now, with limits and a lifetime of their own; processes are not
  /// copied. All or none. `name`: of the only one, or with `-1`, `-2` and so on.
  std::vector<std::shared_ptr<Sandbox>> fork(const std::string& id_or_name, int count,
                                             const std::string& name);

  /// Ends it and removes everything of it. False when there was none of that name (any more).
  bool destroy(const std::string& id_or_name, std::string& id);
  /// Ends everything and removes what can be removed until `deadline`; what is left is marked for the next
  /// server. Those that were taken up and never used are left to the next one as they are, and with `on_exit:
  /// keep` all.
  void shutdown(Clock::time_point deadline);

  const config::Config& config() const noexcept { return config_; }
  /// Whether there was a first call; before it there is neither a sandbox nor a folder.
  bool prepared() const noexcept { return prepared_; }
  /// Of this server, in the data folder; once prepared.
  const std::string& folder() const noexcept { return builder_.folder(); }
  Clock::time_point started_at() const noexcept { return started_at_; }
  runtime::CgroupHost& cgroups() { return builder_.cgroups(); }
  WarmPool& pool() noexcept { return pool_; }
  PressureMonitor& pressure() noexcept { return pressure_; }
  const DiskGuard& disk_guard() const noexcept { return disk_guard_; }
  const VolumeStore& volumes() const noexcept { return builder_.volumes(); }
  /// What answers the requests that come in on the server's control socket; before the first call.
  void answer_control(ControlSocket::Handler handler) { control_handler_ = std::move(handler); }
  /// The kind of warm sandboxes that serves a profile: named after the first profile with the same runtime
  /// and hardening, and after what it is made from. All else is attached at the claim. Empty when that is not
  /// known yet.
  std::string kind_of(const std::string& profile) const;
  Bases& bases() noexcept { return builder_.bases(); }
  Ports& ports() noexcept { return ports_; }

 private:
  using Entries = std::map<std::string, std::shared_ptr<Entry>>;  // by id

  void prepare();
  void adopt(const Leftover& leftover);
  void remember_end(const Description& about, const std::string& cause);
  Template seal_template(const Sandbox& sandbox, const Description& about, const std::string& name,
                         const std::string& description, bool overwrite);
  Base base_of(const CreateRequest& request, const std::string& profile);
  Template seal_setup(const Sandbox& sandbox, const Base& base, const std::string& name,
                      const std::string& description);
  Base after_setup(const CreateRequest& request, const std::string& profile, const Base& base);
  std::shared_ptr<Sandbox> create(const CreateRequest& request, bool is_default);
  std::shared_ptr<Sandbox> create(const CreateRequest& request, Description about, bool is_default,
                                  bool warm_allowed = true);
  std::shared_ptr<Entry> entry_of(const Sandbox& sandbox);
  std::string kind_of(const Description& about);
  std::shared_ptr<Entry> reserve(const Description& about, bool warm_allowed, bool own_base);
  void use_kind(const std::string& profile, const std::string& kind);
  void charge(const std::string& id, const Charge& charge);
  bool make_room(const std::string& for_id);
  std::shared_ptr<Entry> take_warm(const std::string& kind, bool rare);
  std::shared_ptr<Sandbox> claim(Entry& entry, const CreateRequest& request, Description about,
                                 Clock::time_point asked_at, bool is_default);
  void watch(const std::shared_ptr<Entry>& entry);
  bool stays(Entry& entry) const;
  static void leave(Entry& entry);
  void remove(const std::string& id);
  Clock::time_point end_overdue(const std::vector<std::shared_ptr<Sandbox>>& sandboxes);
  Clock::time_point pause_idle(const std::vector<std::shared_ptr<Sandbox>>& sandboxes);
  void collect_layers();
  void guard_disk(const std::vector<std::shared_ptr<Sandbox>>& sandboxes);
  void housekeep(const std::stop_token& stop);
  Entries::iterator find_entry(const std::string& id_or_name);
  Error unknown(const std::string& id_or_name) const;

  PressureHooks pressure_hooks();
  std::vector<PressuredSandbox> pressured();
  std::shared_ptr<Sandbox> published(const std::string& id);
  PoolHooks pool_hooks();
  std::string build_warm(const std::string& kind);
  void start_interpreter(Sandbox& sandbox, const std::string& name, const config::Profile& profile);
  PoolHooks::Health check_warm(const std::string& id);
  PoolHooks::Room room(uint64_t memory_bytes);

  const config::Config config_;
  const bool keeps_;
  const std::string owner_;
  const Clock::time_point started_at_ = Clock::now();
  const std::map<std::string, std::string> kinds_;
  AuditLog audit_;
  Builder builder_;
  EgressGate egress_;
  Ports ports_;
  DiskGuard disk_guard_;
  std::atomic<bool> prepared_{false};
  std::mutex prepare_mutex_, default_mutex_;

  mutable std::mutex mutex_;
  std::condition_variable_any changed_;  // there is something for the housekeeper
  std::condition_variable_any settled_;  // a build or a removal is over
  Entries entries_;
  std::deque<Ended> ended_;            // the latest last, bounded
  std::deque<std::string> to_remove_;  // ended by themselves, to be cleaned up
  bool look_again_ = false;            // for the housekeeper: something came that ends sooner
  Clock::time_point next_look_;        // of the housekeeper
  std::set<std::string> removing_;     // whose removal is under way
  bool collect_ = false;               // for the housekeeper: layers may have lost their last user
  /// Kinds of warm sandboxes that are not those of profiles: by name, the kind of its profile and its base.
  std::map<std::string, std::pair<std::string, Base>> derived_kinds_;
  std::map<std::string, std::string> used_kinds_;  // of those, by profile: that of its own base
  bool stopping_ = false;
  std::string default_id_;

  WarmPool pool_;
  ControlSocket::Handler control_handler_;
  std::optional<ControlSocket> control_;
  std::jthread housekeeper_;  // ends what is over its time, removes what has ended; uses all of the above
  PressureMonitor pressure_;  // last: so does its thread
};

}  // namespace hutch::sandbox
