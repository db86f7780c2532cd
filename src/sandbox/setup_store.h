#pragma once

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "config/config.h"
#include "sandbox/template_store.h"
#include "sandbox/turn.h"

namespace hutch::sandbox {

/// What the setup commands of profiles have made, `setups/` in the data folder: templates that nobody has
/// named, found by what they were made from. Shared by all servers.
class SetupStore {
 public:
  explicit SetupStore(const std::string& home) : kept_(home, "setups") {}

  /// The same for all that leads to the same files: the commands, what they begin with, and in which
  /// surroundings they run as whom.
  static std::string name_of(const config::Profile& profile, const Base& base);

  /// One that is asked for is in use: forget() leaves it for kKeptDays more.
  std::optional<Template> use(const std::string& name) const;
  /// Held while one is made.
  Turn begin(const std::string& name, const Progress& progress, const std::stop_token& stop) const;
  void add(const Template& made) const { kept_.add(made, true); }
  /// What its commands have printed, also when one has failed.
  std::string log_of(const std::string& name) const { return kept_.folder() + "/" + name + ".log"; }

  std::vector<Template> list() const { return kept_.list(); }
  bool has(const std::string& name) const { return kept_.find_if_exists(name).has_value(); }
  void remove(const std::string& name) const;
  /// Those that nobody has used for kKeptDays, and those whose base, the layer below theirs, is not among
  /// `bases` any more.
  void forget(const std::set<std::string>& bases) const;

  static constexpr int kKeptDays = 30;

 private:
  TemplateStore kept_;
};

}  // namespace hutch::sandbox
