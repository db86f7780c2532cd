#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "config/config.h"
#include "sandbox/base.h"
#include "sandbox/disk_guard.h"
#include "sandbox/image_source.h"
#include "sandbox/layer_store.h"

namespace hutch::sandbox {

/// What is on disk about an image, images/<digits of its digest>.json.
struct Image {
  std::string digest;                   // sha256: of its manifest
  std::string layer = {};               // with its files, see LayerStore
  std::string user = {}, workdir = {};  // what it says of commands; empty where it says nothing
  std::map<std::string, std::string> env = {};
  std::string architecture = {};        // as Go calls it; empty when it does not say
  uint64_t size_bytes = 0;              // that it takes on the disk
  int64_t created_at = 0;               // here, in seconds since 1970
  std::vector<std::string> names = {};  // in full; kept in images/names.json

  /// Of sandboxes that are made from it.
  Base base() const;
};

/// Root file systems from registries and archives, unpacked once into the data folder and shared read-only by
/// the sandboxes of all servers. Thread-safe.
class ImageStore {
 public:
  ImageStore(LayerStore& layers, const config::Config& config)
      : layers_(layers), settings_(config.images), disk_(config.home, config.limits) {}

  /// Who needs a layer, in words: sandboxes and templates, see Bases::users_of().
  using UsersOf = std::function<std::vector<std::string>(const std::string& layer)>;

  /// What is here under that name ("python:3.12", also in full), digest, or beginning of a digest of at least
  /// 12 digits.
  std::optional<Image> find(const std::string& reference) const;
  /// The same; what is not here is pulled where the settings allow it. For creating sandboxes.
  Image get(const std::string& reference, const Progress& progress, const std::stop_token& stop);
  /// Makes it local; what is here is not asked for again, unless it is to be made `anew`. Of several servers
  /// that want the same at once one does it.
  Image pull(const std::string& reference, bool anew, const Progress& progress, const std::stop_token& stop);
  /// From a file or folder of this host, see copy_local_image(). It takes the name from whatever has it.
  Image import(const std::string& path, const std::string& name, const Progress& progress,
               const std::stop_token& stop);
  /// From a Dockerfile, see build_image().
  Image build(const std::string& context, const std::string& dockerfile, const std::string& name,
              const Progress& progress, const std::stop_token& stop);
  /// The same for somebody who keeps it under a name of his own: it is none of the images here, and its layer
  /// is nobody's unless somebody refers to it before this goes.
  struct Loose {
    Image image;
    std::shared_ptr<const runtime::SealedLayer> layer;
  };
  Loose build_loose(const std::string& context, const std::string& dockerfile, const Progress& progress,
                    const std::stop_token& stop);
  std::vector<Image> list() const;

  /// Their layers are nobody's then: Bases::collect() gives their space back.
  struct Removed {
    std::vector<std::string> names;    // that are names no more
    std::vector<std::string> digests;  // of images that are gone
    uint64_t freed_bytes = 0;          // by what was given up
  };
  /// By a name: that name, and the image with its last one. By digest: the image with all its names. Throws
  /// not_found, and conflict, which names who needs its layer.
  Removed remove(const std::string& reference, const UsersOf& users_of);
  /// Images without names that nobody needs, and what was given up half done.
  Removed collect(const UsersOf& users_of);
  /// The ids of those that are images' files.
  std::set<std::string> layers() const;

 private:
  using Names = std::map<std::string, std::string>;  // to digests
  using Make = std::function<void(const ImageWork&)>;
  using IsHere = std::function<bool(const std::string& digest)>;
  std::string folder() const { return layers_.home() + "/images"; }
  std::string file_of(const std::string& digest) const;
  Names read_names() const;
  void write_names(const Names& names) const;
  std::optional<Image> load(const std::string& digest, const Names& names) const;
  std::optional<Image> find_in(const Names& names, const std::string& reference) const;
  Loose bring_here(const Progress& progress, const std::stop_token& stop, const Make& bring,
                   const IsHere& is_here);
  Image make(const std::string& name, const Progress& progress, const std::stop_token& stop,
             const Make& bring);
  Image keep(Image image, const std::string& name) const;

  LayerStore& layers_;
  const config::Images settings_;
  const DiskGuard disk_;
};

}  // namespace hutch::sandbox
