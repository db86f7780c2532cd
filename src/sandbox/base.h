#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace hutch::sandbox {

/// What lies below the files that a sandbox writes: the host's programs or an image, and the layers of a
/// template on top.
struct Base {
  std::string image;                // its digest; empty = the host's programs
  std::string template_name;        // that the sandbox was made from; empty = none
  std::vector<std::string> layers;  // ids, the lowest first; an image is the first of them
  // What an image says of commands; empty where it says nothing.
  std::string user, workdir;
  std::map<std::string, std::string> env;

  bool host_files() const noexcept { return image.empty(); }
  /// Two sandboxes whose bases have the same key have the same files at first.
  std::string key() const {
    return layers.empty() ? "" : (image.empty() ? "host/" : "image/") + layers.back();
  }
};

}  // namespace hutch::sandbox
