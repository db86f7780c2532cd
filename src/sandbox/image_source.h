#pragma once

#include <string>
#include <vector>

#include "sandbox/image_reference.h"
#include "sandbox/image_tool.h"

namespace hutch::sandbox {

/// Where work on one image is done.
struct ImageWork {
  std::string folder;  // ours alone, goes with everything in it
  runtime::StageProcess& stage;
  const std::string& data_folder;
  const ImageBounds& bounds;
  const Progress& progress;

  /// An OCI layout: what an image is turned into, wherever it comes from.
  std::string layout() const { return folder + "/layout"; }
};

/// From its registry, by skopeo, which finds credentials where `podman login` and `docker login` leave them
/// and compares digests. `insecure_registries`: see the configuration.
void fetch_image(const ImageReference& reference, const std::vector<std::string>& insecure_registries,
                 const ImageWork& work);

/// By buildah from a Dockerfile, whose commands run on this host as the server's user, in a folder of their
/// own but with the host's network: it is to be trusted. `context`: the folder that it copies from.
void build_image(const std::string& context, const std::string& dockerfile,
                 const std::vector<std::string>& insecure_registries, const ImageWork& work);

/// Of an image with layers that are compressed by zstd, which umoci 0.4 does not know: a layout of the same
/// files in the same folder, by gzip, whose digests are others.
std::string layout_for_umoci(const ImageWork& work);

/// From a file or folder of this host: an OCI layout, an archive of one, what `docker save` writes, or a tar
/// of a root file system; archives also compressed by gzip. Returns in words which it is.
std::string copy_local_image(const std::string& path, const ImageWork& work);

}  // namespace hutch::sandbox
