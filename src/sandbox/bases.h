#pragma once

#include <set>
#include <string>

#include "config/config.h"
#include "sandbox/layer_store.h"
#include "sandbox/template_store.h"

namespace hutch::sandbox {

/// What sandboxes can be made from, as the data folder has it, and who needs which of its layers.
class Bases {
 public:
  explicit Bases(const std::string& home) : layers_(home), templates_(home) {}

  /// What a call asks for, and where it asks for nothing, what its profile says. Throws not_found.
  Base resolve(const std::string& template_name, const std::string& image,
               const config::Profile& profile) const;

  /// Sandboxes of all servers that have the layer, and templates that build on it. Empty when it is free.
  std::vector<std::string> users_of(const std::string& layer) const;
  /// Removes layers that nothing refers to. Returns the bytes that were freed.
  uint64_t collect();

  LayerStore& layers() noexcept { return layers_; }
  const TemplateStore& templates() const noexcept { return templates_; }

 private:
  LayerStore layers_;
  TemplateStore templates_;
};

}  // namespace hutch::sandbox
