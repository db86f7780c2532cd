#include "sandbox/bases.h"

#include <fmt/format.h>

#include <algorithm>

#include "sandbox/store.h"

namespace hutch::sandbox {

Base Bases::resolve(const Wanted& wanted, const config::Profile& profile) const {
  if (!wanted.template_name.empty() && !wanted.image.empty())
    throw Error(Errc::invalid_argument, "`template` and `image` exclude each other")
        .hint("leave `image` out: a template has its image in it");
  const bool asked = !wanted.template_name.empty() || !wanted.image.empty();
  const std::string& name = asked ? wanted.template_name : profile.template_name;
  const std::string& image = asked ? wanted.image : profile.image;
  if (!name.empty()) return templates_.find(name).base;
  if (!image.empty()) return images_.get(image, wanted.progress, wanted.stop).base();
  return {};
}

std::vector<std::string> Bases::users_of(const std::string& layer) const {
  const auto has = [&](const std::vector<std::string>& layers) {
    return std::ranges::find(layers, layer) != layers.end();
  };
  std::vector<std::string> users;
  for (const Record& record : all_records(layers_.home()))
    if (record.state == "running" && has(record.layers)) users.push_back(record.id);
  for (const Template& one : templates_.list())
    if (has(one.base.layers) && one.base.layers.back() != layer)
      users.push_back(fmt::format("template {}", one.name));
  return users;
}

/// Before the layers: with a setup its own goes.
void Bases::forget_setups() const {
  std::set<std::string> bases = images_.layers();
  for (const Template& one : templates_.list())
    if (!one.base.layers.empty()) bases.insert(one.base.layers.back());
  setups_.forget(bases);
}

uint64_t Bases::collect() {
  forget_setups();
  return layers_.collect([&] {
    std::set<std::string> wanted = images_.layers();
    for (const Template& one : setups_.list()) wanted.insert(one.base.layers.begin(), one.base.layers.end());
    for (const Record& record : all_records(layers_.home()))
      wanted.insert(record.layers.begin(), record.layers.end());
    for (const Template& one : templates_.list())
      wanted.insert(one.base.layers.begin(), one.base.layers.end());
    return wanted;
  });
}

}  // namespace hutch::sandbox
