#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "runtime/layer.h"
#include "runtime/sealed_layer.h"

namespace hutch::sandbox {

/// What is on disk about a layer, beside its files.
struct LayerManifest {
  std::string id;
  uint32_t first_id = 0;           // see SealedLayer::Facts
  std::vector<std::string> views;  // the same
  uint64_t size_bytes = 0;         // that it takes on the disk
  std::string digest;              // sha256: of its disk's blocks, or of the archive that its files give
  int64_t created_at = 0;          // seconds since 1970
};

/// A layer that is being made: a folder that nobody else looks at. Removed with the object, and after a crash
/// by the next collect(), unless it was finished.
class LayerDraft {
 public:
  explicit LayerDraft(const std::string& layers_folder);
  ~LayerDraft();
  LayerDraft(LayerDraft&&) noexcept = default;
  LayerDraft& operator=(LayerDraft&&) = delete;

  /// Ours alone; its files go to sealed_disk() or sealed_files() of it.
  const std::string& folder() const noexcept { return folder_; }

 private:
  friend class LayerStore;
  std::string folder_;
  UniqueFd lock_;
  std::optional<runtime::ImageDevice> device_;
};

/// Where the trees of a draft are written that do not come from a sandbox: the mount of an image of its own,
/// where the server can have one, otherwise the draft's folder `files`.
struct DraftFiles {
  std::optional<runtime::DiskImage> disk;
  std::string folder;  // empty with a disk
  /// Has a stage process put it there. Once.
  void plan_at(runtime::StagePlan& plan, const std::string& target);
};

/// Read-only layers in the data folder, `layers/<id>`, shared by all servers. Who refers to them (templates,
/// images, records of sandboxes) is not known here. Thread-safe.
class LayerStore {
 public:
  explicit LayerStore(std::string home) : home_(std::move(home)) {}

  LayerDraft begin();
  /// An empty layer to be filled. With loop devices no more than `max_bytes` fit in; otherwise nothing limits
  /// it.
  DraftFiles make_files(const LayerDraft& draft, uint64_t max_bytes) const;
  /// Copies what a sandbox wrote into the draft, whose processes must be held still.
  void copy_written(LayerDraft& draft, const runtime::WrittenFiles& from);
  /// Makes it a layer. `lasts`: with a digest, and on the host's disk when this returns. `files` of
  /// make_files() are given back here.
  struct Finished {
    LayerManifest manifest;
    std::shared_ptr<const runtime::SealedLayer> layer;
  };
  Finished finish(LayerDraft draft, uint32_t first_id, bool lasts, DraftFiles files = {});

  /// Throws not_found. While somebody holds it, collect() leaves it alone.
  std::shared_ptr<const runtime::SealedLayer> use(const std::string& id);
  LayerManifest manifest(const std::string& id) const;
  /// Removes layers that nobody holds, of any server, and that are not among `wanted`, and what is half made
  /// and was given up. Returns the bytes that were freed. `wanted` is asked again when nobody can get hold of
  /// what is to go any more: a layer that was just finished may be wanted by now.
  uint64_t collect(const std::function<std::set<std::string>()>& wanted);

  std::string folder(const std::string& id) const { return home_ + "/layers/" + id; }
  const std::string& home() const noexcept { return home_; }
  /// For what else has to run in a stage process.
  runtime::StageProcess& stage() noexcept { return stage_; }

 private:
  struct Open {
    UniqueFd in_use;  // a shared lock on its folder
    runtime::SealedLayer layer;
  };
  std::shared_ptr<const runtime::SealedLayer> keep(const LayerManifest& manifest, UniqueFd in_use,
                                                   std::optional<runtime::ImageDevice> device);

  const std::string home_;
  runtime::StageProcess stage_;
  std::mutex mutex_;
  std::map<std::string, std::weak_ptr<Open>> open_;
};

}  // namespace hutch::sandbox
