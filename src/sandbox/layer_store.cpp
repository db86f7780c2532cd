#include "sandbox/layer_store.h"

#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <future>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "base/sha256.h"
#include "base/sys.h"
#include "runtime/tree_process.h"
#include "sandbox/disk_guard.h"

namespace hutch::sandbox {

using namespace std::chrono_literals;

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(LayerManifest, id, first_id, views, size_bytes, digest,
                                                created_at)

namespace {

constexpr std::string_view kDraftPrefix = ".new-";
constexpr auto kCopyTimeout = 30min;

UniqueFd use_of(const std::string& folder, int operation) {
  UniqueFd fd = sys::open_if_exists(folder, O_RDONLY | O_DIRECTORY);
  if (fd && ::flock(fd.get(), operation | LOCK_NB) != 0) fd.reset();
  return fd;
}

/// The digest of an image is that of its blocks that are not empty, with their numbers: wherever the holes
/// are, the same content has the same one.
std::string digest_of_disk(const std::string& path) {
  constexpr size_t kBlock = 4096;
  static const std::string empty(kBlock, '\0');
  const UniqueFd file = sys::open(path, O_RDONLY);
  Sha256 sum;
  std::string buffer(256 * kBlock, '\0');
  for (off_t at = 0, end = 0; (at = ::lseek(file.get(), at, SEEK_DATA)) >= 0; at = end) {
    end = ::lseek(file.get(), at, SEEK_HOLE);
    while (at < end) {
      const ssize_t n = ::pread(file.get(), buffer.data(), buffer.size(), at);
      if (n <= 0) throw sys_error(n == 0 ? EIO : errno, "read", path);
      const auto whole = static_cast<size_t>(n);
      for (size_t i = 0; i < whole; i += kBlock) {
        const std::string_view block(buffer.data() + i, std::min(kBlock, whole - i));
        if (block == std::string_view(empty).substr(0, block.size())) continue;
        const uint64_t number = (static_cast<uint64_t>(at) + i) / kBlock;
        sum.update({reinterpret_cast<const char*>(&number), sizeof number});
        sum.update(block);
      }
      at += n;
    }
  }
  return "sha256:" + sum.hex();
}

/// Owners begin with 0 in an archive: the same files have the same one.
std::string digest_of_files(const std::string& path, uint32_t first_id) {
  const UniqueFd tree = sys::open(path, O_RDONLY | O_DIRECTORY);
  Sha256 sum;
  runtime::TreeProcess::pack_to([&](std::string_view piece) { sum.update(piece); }, tree.get(), "", first_id);
  return "sha256:" + sum.hex();
}

uint64_t bytes_on_disk(const std::string& folder) {
  struct stat st {};
  if (::stat(runtime::sealed_disk(folder).c_str(), &st) == 0)
    return static_cast<uint64_t>(st.st_blocks) * 512;
  return sys::tree_bytes(runtime::sealed_files(folder));
}

/// All of a folder, or one file.
void sync_path(const std::string& path, bool whole_file_system) {
  const UniqueFd fd = sys::open(path, O_RDONLY);
  if ((whole_file_system ? ::syncfs(fd.get()) : ::fsync(fd.get())) != 0) throw sys_error(errno, "sync", path);
}

}  // namespace

LayerDraft::LayerDraft(const std::string& layers_folder) {
  sys::make_dirs(layers_folder, 0700);
  // Under this lock nobody takes it for given up before it is held.
  const UniqueFd turn = sys::lock_folder(layers_folder);
  folder_ = fmt::format("{}/{}{}", layers_folder, kDraftPrefix, sys::random_hex(6));
  sys::make_dirs(folder_, 0700);
  lock_ = use_of(folder_, LOCK_SH);
}

LayerDraft::~LayerDraft() {
  if (lock_) sys::remove_tree(folder_);
}

void DraftFiles::plan_at(runtime::StagePlan& plan, const std::string& target) {
  if (!disk) return plan.bind(folder, target);
  // Ours stays, so that the device does.
  UniqueFd mount(::fcntl(disk->mount.get(), F_DUPFD_CLOEXEC, 0));
  plan.attach(std::move(mount), target);
}

LayerDraft LayerStore::begin() {
  return LayerDraft(home_ + "/layers");
}

DraftFiles LayerStore::make_files(const LayerDraft& draft, uint64_t max_bytes) const {
  DraftFiles files;
  if (::geteuid() == 0) {
    try {
      files.disk = runtime::make_disk_image(runtime::blank_image(home_, max_bytes),
                                            runtime::sealed_disk(draft.folder()));
      return files;
    } catch (const Error& e) {
      log::info("a layer is made without a disk of its own: {}", e.what());
    }
  }
  files.folder = runtime::sealed_files(draft.folder());
  sys::make_dirs(files.folder, 0755);
  return files;
}

void LayerStore::copy_written(LayerDraft& draft, const runtime::WrittenFiles& from) {
  draft.device_ = runtime::copy_written(from, draft.folder(), stage_, home_, Clock::now() + kCopyTimeout);
}

LayerStore::Finished LayerStore::finish(LayerDraft draft, uint32_t first_id, bool lasts, DraftFiles files) {
  if (files.disk) runtime::unmount_disk_image(std::move(*files.disk));
  const std::string disk = runtime::sealed_disk(draft.folder());
  const bool on_disk = sys::exists(disk);
  if (on_disk && !draft.device_) draft.device_.emplace(disk);
  LayerManifest manifest{
      .id = "layer-" + sys::random_hex(6),
      .first_id = first_id,
      .views = writing_to_loop_device(
          home_, [&] { return runtime::tidy_layer(draft.folder(), on_disk ? &*draft.device_ : nullptr); }),
      .created_at = ::time(nullptr)};
  // Once it can be mounted to be read, whoever wrote it is gone, and its file has all.
  if (on_disk) (void)draft.device_->mount(true);
  std::future<void> synced;  // while the digest is made
  if (lasts) synced = std::async(std::launch::async, sync_path, on_disk ? disk : draft.folder(), !on_disk);
  if (lasts)
    manifest.digest =
        on_disk ? digest_of_disk(disk) : digest_of_files(runtime::sealed_files(draft.folder()), first_id);
  manifest.size_bytes = bytes_on_disk(draft.folder());
  sys::write_file(draft.folder() + "/manifest.json", nlohmann::json(manifest).dump());
  if (lasts) {
    synced.get();
    sync_path(draft.folder() + "/manifest.json", false);
    sync_path(draft.folder(), false);
  }
  if (::rename(draft.folder_.c_str(), folder(manifest.id).c_str()) != 0)
    throw sys_error(errno, "rename", folder(manifest.id));
  if (lasts) sync_path(home_ + "/layers", false);
  auto layer = keep(manifest, std::move(draft.lock_), std::move(draft.device_));
  return {std::move(manifest), std::move(layer)};
}

std::shared_ptr<const runtime::SealedLayer> LayerStore::keep(const LayerManifest& manifest, UniqueFd in_use,
                                                             std::optional<runtime::ImageDevice> device) {
  auto held = std::make_shared<Open>(
      Open{std::move(in_use),
           runtime::SealedLayer(folder(manifest.id),
                                {.id = manifest.id, .first_id = manifest.first_id, .views = manifest.views},
                                std::move(device))});
  const std::lock_guard lock(mutex_);
  open_[manifest.id] = held;
  return {held, &held->layer};
}

LayerManifest LayerStore::manifest(const std::string& id) const {
  try {
    return nlohmann::json::parse(sys::read_file(folder(id) + "/manifest.json")).get<LayerManifest>();
  } catch (const nlohmann::json::exception& e) {
    throw Error(Errc::internal, fmt::format("the manifest of {} cannot be read: {}", id, e.what()));
  }
}

std::shared_ptr<const runtime::SealedLayer> LayerStore::use(const std::string& id) {
  {
    const std::lock_guard lock(mutex_);
    const auto it = open_.find(id);
    if (const auto held = it != open_.end() ? it->second.lock() : nullptr) return {held, &held->layer};
  }
  UniqueFd in_use = use_of(folder(id), LOCK_SH);
  if (!in_use) throw Error(Errc::not_found, fmt::format("layer {} does not exist any more", id));
  return keep(manifest(id), std::move(in_use), {});
}

uint64_t LayerStore::collect(const std::function<std::set<std::string>()>& wanted) {
  const std::string layers = home_ + "/layers";
  if (!sys::exists(layers)) return 0;
  const UniqueFd turn = sys::lock_folder(layers);
  std::map<std::string, UniqueFd> only_ours;
  const std::set<std::string> before = wanted();
  for (const auto& name : sys::list_folder(layers)) {
    if (before.contains(name)) continue;
    if (UniqueFd held = use_of(layers + "/" + name, LOCK_EX)) only_ours.emplace(name, std::move(held));
  }
  if (only_ours.empty()) return 0;
  const std::set<std::string> now = wanted();
  uint64_t freed = 0;
  for (const auto& [name, _] : only_ours) {
    if (now.contains(name)) continue;
    freed += bytes_on_disk(layers + "/" + name);
    // The manifest first: what is half removed must not be a layer.
    ::unlink((layers + "/" + name + "/manifest.json").c_str());
    sys::remove_tree(layers + "/" + name);
  }
  const std::lock_guard lock(mutex_);
  std::erase_if(open_, [](const auto& entry) { return entry.second.expired(); });
  return freed;
}

}  // namespace hutch::sandbox
