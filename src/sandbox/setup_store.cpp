#include "sandbox/setup_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ctime>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "base/sha256.h"
#include "base/sys.h"
#include "sandbox/admission.h"

namespace hutch::sandbox {

namespace {

constexpr const char* kSetupPrefix = "setup-";
constexpr size_t kSetupDigits = 24;

bool is_unused(const std::string& path) {
  struct stat st {};
  constexpr time_t kDay = 86'400;
  return ::stat(path.c_str(), &st) == 0 && st.st_mtime + SetupStore::kKeptDays * kDay < ::time(nullptr);
}

}  // namespace

std::string SetupStore::name_of(const config::Profile& profile, const Base& base) {
  const nlohmann::json made_from{{"version", 1},
                                 {"commands", profile.setup},
                                 {"base", base.key()},
                                 {"user", user_of(profile, base)},
                                 {"env", profile.env},
                                 {"workdir", profile.workdir},
                                 {"host_paths", profile.host_paths}};
  const std::string text = made_from.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  return kSetupPrefix + sha256_hex(text).substr(0, kSetupDigits);
}

std::optional<Template> SetupStore::use(const std::string& name) const {
  auto found = kept_.find_if_exists(name);
  if (found) (void)::utimensat(AT_FDCWD, kept_.file_of(name).c_str(), nullptr, 0);
  return found;
}

Turn SetupStore::begin(const std::string& name, const Progress& progress, const std::stop_token& stop) const {
  sys::make_dirs(kept_.folder(), 0700);
  return {kept_.folder(), name, "waiting for another one that runs the same setup", progress, stop};
}

void SetupStore::remove(const std::string& name) const {
  kept_.remove(name);
  (void)::unlink(log_of(name).c_str());
}

void SetupStore::forget(const std::set<std::string>& bases) const {
  for (const Template& one : list()) {
    const auto& layers = one.base.layers;
    const bool has_base = layers.size() < 2 || bases.contains(layers[layers.size() - 2]);
    if (has_base && !is_unused(kept_.file_of(one.name))) continue;
    log::info("{} is removed: {}", one.name, has_base ? "nobody has used it" : "its base is gone");
    remove(one.name);
  }
  for (const auto& name : sys::list_folder(kept_.folder()))  // logs of those that failed
    if (name.ends_with(".log") && is_unused(kept_.folder() + "/" + name))
      (void)::unlink((kept_.folder() + "/" + name).c_str());
}

}  // namespace hutch::sandbox
