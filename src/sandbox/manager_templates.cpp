#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <atomic>
#include <ctime>
#include <future>
#include <thread>

#include "base/log.h"
#include "sandbox/manager.h"

/// What the manager does with the files of whole sandboxes: templates and forks.
namespace hutch::sandbox {

namespace {

/// Each costs a mount at every start, and a look at every file that is not above it.
constexpr size_t kMostLayers = 64;

Error in_use(const std::string& name, const std::vector<std::string>& users) {
  return Error(Errc::conflict, fmt::format("template '{}' is in use by {}", name, fmt::join(users, ", ")))
      .hint("sandbox_destroy ends a sandbox, sandbox_delete_template deletes a template that builds on it");
}

/// fn(0) to fn(count - 1), as many side by side as there are processors. After an error no further one is
/// begun.
void side_by_side(int count, const std::function<void(int)>& fn) {
  std::atomic<int> next{0};
  std::vector<std::future<void>> running;
  const int processors = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  for (int i = std::min(count, processors); i > 0; --i)
    running.push_back(std::async(std::launch::async, [&] {
      try {
        for (int turn = 0; (turn = next++) < count;) fn(turn);
      } catch (...) {
        next = count;
        throw;
      }
    }));
  for (const auto& one : running) one.wait();
  for (auto& one : running) one.get();
}

}  // namespace

Template Manager::save_template(const std::string& id_or_name, const std::string& name,
                                const std::string& description, bool overwrite) {
  const CallGauge::Scope running(builder_.calls());
  check_name(name, "template");
  const auto sandbox = id_or_name.empty() ? default_sandbox().sandbox : find(id_or_name);
  const Description about = sandbox->about();
  if (about.base.layers.size() >= kMostLayers)
    throw Error(Errc::limit_exceeded, fmt::format("a template can have {} layers, one for each that it was "
                                                  "made from in turn",
                                                  kMostLayers))
        .hint("sandbox_create with an earlier `template`, and make it anew from that");
  bases().templates().check_free(name, overwrite);
  return writing_to_disk([&] { return seal_template(*sandbox, about, name, description, overwrite); });
}

Template Manager::seal_template(const Sandbox& sandbox, const Description& about, const std::string& name,
                                const std::string& description, bool overwrite) {
  const auto sealed = builder_.seal(*entry_of(sandbox), true, disk_guard_);
  Template made{.name = name,
                .description = description,
                .parent = about.base.template_name,
                .base = about.base,
                .size_bytes = sealed.manifest.size_bytes,
                .created_at = ::time(nullptr),
                .hutch_version = HUTCH_VERSION};
  made.base.template_name = name;
  made.base.layers.push_back(sealed.manifest.id);
  made.base.workdir = about.workdir;
  bases().templates().add(made, overwrite);
  const std::lock_guard lock(mutex_);
  collect_ = collect_ || overwrite;  // the layer of the one before
  return made;
}

void Manager::remove_template(const std::string& name) {
  const CallGauge::Scope running(builder_.calls());
  prepare();
  const Template gone = bases().templates().find(name);
  std::vector<std::string> kinds;
  if (!gone.base.layers.empty()) {
    const auto users = bases().users_of(gone.base.layers.back());
    if (!users.empty()) throw in_use(name, users);
    const std::lock_guard lock(mutex_);
    const auto& layer = gone.base.layers.back();
    for (const auto& [kind, of] : derived_kinds_)
      if (std::ranges::find(of.second.layers, layer) != of.second.layers.end()) kinds.push_back(kind);
  }
  bases().templates().remove(name);
  for (const auto& kind : kinds) pool_.drop(kind);
  const std::lock_guard lock(mutex_);
  for (const auto& kind : kinds) derived_kinds_.erase(kind);
  collect_ = true;
  look_again_ = true;
  changed_.notify_all();
}

std::vector<std::shared_ptr<Sandbox>> Manager::fork(const std::string& id_or_name, int count,
                                                    const std::string& name) {
  const CallGauge::Scope running(builder_.calls());
  const auto sandbox = id_or_name.empty() ? default_sandbox().sandbox : find(id_or_name);
  Description about = sandbox->about();
  if (about.base.layers.size() >= kMostLayers)
    throw Error(Errc::limit_exceeded, fmt::format("a fork of a fork goes {} deep", kMostLayers))
        .hint("sandbox_fork one of the earlier ones");
  check_may_have_network(config_, about.profile, about.network);
  auto sealed = writing_to_disk([&] { return builder_.seal(*entry_of(*sandbox), false, disk_guard_); });
  about.base.layers.push_back(sealed.manifest.id);
  about.expires_at = {};
  std::vector<std::shared_ptr<Sandbox>> forks(static_cast<size_t>(count));
  try {
    side_by_side(count, [&](int i) {
      Description own = about;
      own.name = name.empty() || count == 1 ? name : fmt::format("{}-{}", name, i + 1);
      if (!own.name.empty()) check_name(own.name, "sandbox");
      own.created_at = WallClock::now();
      forks[static_cast<size_t>(i)] = create({}, std::move(own), false, false);
    });
  } catch (...) {
    for (const auto& made : forks) {
      std::string ignored;
      if (made) destroy(made->id(), ignored);
    }
    sealed.layer.reset();  // or it would still be in use
    const std::lock_guard lock(mutex_);
    collect_ = look_again_ = true;
    changed_.notify_all();
    throw;
  }
  return forks;
}

/// Without the lock: it removes files. By the housekeeper, so that no call waits for it.
void Manager::collect_layers() {
  {
    const std::lock_guard lock(mutex_);
    if (!std::exchange(collect_, false)) return;
  }
  try {
    if (const uint64_t freed = bases().collect(); freed > 0) log::info("layers of {} bytes removed", freed);
  } catch (const std::exception& e) {
    log::warning("layers that nobody needs stay for now: {}", e.what());
  }
}

}  // namespace hutch::sandbox
