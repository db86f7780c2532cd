#include "runtime/sealed_layer.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/sys.h"

namespace hutch::runtime {

std::string sealed_disk(const std::string& folder) {
  return folder + "/disk";
}

std::string sealed_files(const std::string& folder) {
  return folder + "/files";
}

std::string view_name(std::string_view target) {
  std::string name = "root";
  if (target == "/") return name;
  for (const char c : target) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '_' || c == '.';
    name += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return name;
}

SealedLayer::SealedLayer(const std::string& folder, Facts facts, std::optional<ImageDevice> device)
    : facts_(std::move(facts)), disk_(std::move(device)) {
  if (disk_) return;
  if (sys::exists(sealed_disk(folder)))
    disk_.emplace(sealed_disk(folder));
  else if (sys::exists(sealed_files(folder)))
    files_ = sealed_files(folder);
  else
    throw Error(Errc::not_found, fmt::format("layer {} has lost its files", facts_.id));
}

bool SealedLayer::has(const std::string& view) const noexcept {
  return std::ranges::find(facts_.views, view) != facts_.views.end();
}

}  // namespace hutch::runtime
