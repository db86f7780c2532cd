#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "sandbox/image_tool.h"
#include "sandbox/layer_store.h"

namespace hutch::sandbox {

/// The one image in an OCI layout, a folder of digests and blobs.
struct LayoutImage {
  std::string digest;  // sha256:..., of its manifest
  size_t layers = 0;
  bool has_zstd = false;  // some of them are compressed by it
  std::string architecture = {}, user = {}, workdir = {};
  std::map<std::string, std::string> env = {};
};
/// By this name programs find it there.
inline constexpr const char* kLayoutTag = "image";
/// Throws invalid_argument, which says what is wrong with it.
LayoutImage read_layout(const std::string& layout);

/// Its files as a layer that lasts. `work`: see ImageTool.
LayerStore::Finished unpack_image(const std::string& layout, const LayoutImage& image,
                                  const std::string& work, LayerStore& layers, const ImageBounds& bounds,
                                  const Progress& progress);

}  // namespace hutch::sandbox
