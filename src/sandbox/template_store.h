#pragma once

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "sandbox/base.h"
#include "sandbox/layer_store.h"

namespace hutch::sandbox {

/// What is on disk about a template: `<name>.json` in the store's folder.
struct Template {
  std::string name, description;
  std::string parent;       // the template that its sandbox was made from; empty = none
  Base base;                // of the sandboxes that are made from it: its own layer is the last one
  uint64_t size_bytes = 0;  // of its own layer
  int64_t created_at = 0;   // seconds since 1970
  std::string hutch_version;
};

/// Named states of root file systems in a folder of the data folder, shared by all servers.
class TemplateStore {
 public:
  explicit TemplateStore(const std::string& home, const char* folder = "templates")
      : folder_(home + "/" + folder) {}

  std::vector<Template> list() const;
  std::optional<Template> find_if_exists(const std::string& name) const;
  /// Throws not_found, which names those there are.
  Template find(const std::string& name) const;
  /// Throws conflict when there is one of that name and it is not to be replaced.
  void check_free(const std::string& name, bool overwrite) const;
  /// Makes it visible, and lasting. Throws conflict when there is one of that name and it is not to be
  /// replaced.
  void add(const Template& added, bool overwrite) const;
  void remove(const std::string& name) const;

  const std::string& folder() const noexcept { return folder_; }
  std::string file_of(const std::string& name) const { return folder_ + "/" + name + ".json"; }

 private:
  std::string folder_;
};

std::string to_json_text(const Template& value);
/// A field that is missing is as in a new one. Throws invalid_argument.
Template template_from_json(const std::string& text);

}  // namespace hutch::sandbox
