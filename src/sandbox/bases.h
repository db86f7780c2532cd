#pragma once

#include <set>
#include <stop_token>
#include <string>
#include <vector>

#include "config/config.h"
#include "sandbox/image_store.h"
#include "sandbox/layer_store.h"
#include "sandbox/setup_store.h"
#include "sandbox/template_store.h"

namespace hutch::sandbox {

/// What sandboxes can be made from, as the data folder has it, and who needs which of its layers.
class Bases {
 public:
  explicit Bases(const config::Config& config)
      : layers_(config.home), templates_(config.home), setups_(config.home), images_(layers_, config) {}

  explicit Bases(const std::string& home) : Bases(config::Config{.home = home}) {}

  /// What a call asks for, and where it asks for nothing, what its profile says. An image that is not here is
  /// pulled where the settings allow it. Throws not_found.
  struct Wanted {
    std::string template_name, image;
    Progress progress;
    std::stop_token stop;
  };
  Base resolve(const Wanted& wanted, const config::Profile& profile) const;

  /// Sandboxes of all servers that have the layer, and templates that build on it. Empty when it is free.
  std::vector<std::string> users_of(const std::string& layer) const;
  /// Removes setups that nobody needs, see SetupStore, and layers that nothing refers to. Returns the bytes
  /// that were freed.
  uint64_t collect();

  LayerStore& layers() noexcept { return layers_; }
  const TemplateStore& templates() const noexcept { return templates_; }
  const SetupStore& setups() const noexcept { return setups_; }
  ImageStore& images() noexcept { return images_; }

 private:
  void forget_setups() const;

  LayerStore layers_;
  TemplateStore templates_;
  SetupStore setups_;
  mutable ImageStore images_;
};

}  // namespace hutch::sandbox
