#include "sandbox/image_unpack.h"

#include <fmt/format.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "base/sha256.h"
#include "base/sys.h"
#include "sandbox/disk_guard.h"
#include "sandbox/image_reference.h"
#include "sandbox/image_tree.h"

namespace hutch::sandbox {

namespace {

using nlohmann::json;

constexpr size_t kBlobBytes = 4 << 20;  // of a manifest or a configuration
constexpr int kDepth = 32;              // a deeper value would overflow our stack
constexpr uint64_t kMiB = 1u << 20;

Error broken(const std::string& what) {
  return Error(Errc::invalid_argument, "the image is broken: " + what);
}

json parse_image_json(const std::string& text, const std::string& what) {
  bool too_deep = false;
  json value = json::parse(
      text,
      [&](int depth, json::parse_event_t, json&) {
        too_deep = too_deep || depth > kDepth;
        return depth <= kDepth;
      },
      false);
  if (too_deep || !value.is_object()) throw broken(what + " is no JSON object");
  return value;
}

/// What the digest promises, or an Error.
json read_blob(const std::string& layout, const json& descriptor) {
  const std::string digest = descriptor.at("digest").get<std::string>(), digits = image_digest_digits(digest);
  if (digits.size() != 64) throw broken(fmt::format("'{}' is no digest", digest));
  const std::string text = sys::read_file(layout + "/blobs/sha256/" + digits, kBlobBytes);
  if (sha256_hex(text) != digits) throw broken("the content of " + digest + " has another digest");
  return parse_image_json(text, digest);
}

std::string config_text(const json& object, const char* key) {
  const auto it = object.find(key);
  const std::string text = it != object.end() && it->is_string() ? it->get<std::string>() : "";
  return text.find('\0') == text.npos ? text : "";
}

void read_config(const json& config, LayoutImage& image) {
  image.architecture = config_text(config, "architecture");
  const auto it = config.find("config");
  if (it == config.end() || !it->is_object()) return;
  image.user = config_text(*it, "User");
  image.workdir = config_text(*it, "WorkingDir");
  if (!image.workdir.empty() && image.workdir.front() != '/') image.workdir.insert(0, "/");
  const auto env = it->find("Env");
  if (env == it->end() || !env->is_array()) return;
  for (const json& line : *env) {
    const std::string text = line.is_string() ? line.get<std::string>() : "";
    const size_t equals = text.find('=');
    if (equals != text.npos && equals > 0 && text.find('\0') == text.npos)
      image.env[text.substr(0, equals)] = text.substr(equals + 1);
  }
}

/// What umoci says that is of use stands behind a cross.
Error unpacking_failed(Error& e, const ImageBounds& bounds, const std::string& data_folder) {
  constexpr std::string_view kCross = "⨯ ";
  const std::string_view said = e.what();
  // Where the files lie on an image, that says EIO when the disk below it is full.
  const bool is_lost =
      says_disk_full(e) || e.os_error() == EIO || said.find("nput/output error") != said.npos;
  if (is_lost && is_disk_full(data_folder)) return full_disk();
  if (said.find("no space left on device") != said.npos)
    return Error(Errc::limit_exceeded,
                 fmt::format("unpacked, the image is larger than {} bytes, which one may take at most",
                             bounds.max_bytes))
        .hint("raise `images.max_size` in the configuration, if you trust it");
  const size_t cross = said.rfind(kCross);
  if (cross == said.npos) return std::move(e);
  std::string cause(said.substr(cross + kCross.size()));
  cause.erase(cause.find_last_not_of(" \n") + 1);
  return Error(Errc::unavailable, "umoci: " + cause);
}

}  // namespace

LayoutImage read_layout(const std::string& layout) {
  try {
    const json index = parse_image_json(sys::read_file(layout + "/index.json", kBlobBytes), "its index");
    const json& entries = index.at("manifests");
    if (!entries.is_array() || entries.size() != 1)
      throw broken(fmt::format("its index names {} images, not one", entries.size()));
    LayoutImage image{.digest = entries[0].at("digest").get<std::string>()};
    const json manifest = read_blob(layout, entries[0]);
    image.layers = manifest.at("layers").size();
    for (const json& layer : manifest.at("layers"))
      image.has_zstd = image.has_zstd || config_text(layer, "mediaType").ends_with("+zstd");
    read_config(read_blob(layout, manifest.at("config")), image);
    return image;
  } catch (const json::exception& e) {
    throw broken(e.what());
  }
}

LayerStore::Finished unpack_image(const std::string& layout, const LayoutImage& image,
                                  const std::string& work, LayerStore& layers, const ImageBounds& bounds,
                                  const Progress& progress) {
  LayerDraft draft = layers.begin();
  DraftFiles files = layers.make_files(draft, (bounds.max_bytes + kMiB - 1) / kMiB * kMiB);
  // Opened before anything is written, so that it learns of what could not be written to the host's disk.
  UniqueFd top = files.disk
                     ? UniqueFd(::openat(files.disk->mount.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC))
                     : sys::open(files.folder, O_RDONLY | O_DIRECTORY);
  if (!top) throw sys_error(errno, "open", "the image's disk");
  ImageTool umoci{.program = "umoci", .arguments = {"raw", "unpack"}, .work = work};
  std::string target = files.folder;
  if (files.disk) {
    target = work + "/mount";
    sys::make_dirs(target, 0700);
    umoci.before.private_mounts();
    files.plan_at(umoci.before, target);
  } else {
    umoci.grows = {files.folder};
  }
  if (::geteuid() != 0) umoci.arguments.push_back("--rootless");
  for (const auto& word : {std::string("--image"), layout + ":" + kLayoutTag, target + "/root"})
    umoci.arguments.push_back(word);
  progress(fmt::format("unpacking {} layer{}", image.layers, image.layers == 1 ? "" : "s"));
  try {
    run_image_tool(std::move(umoci), layers.stage(), layers.home(), bounds);
    const UniqueFd root(::openat(top.get(), "root", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!root) throw sys_error(errno, "open", "the image's root");
    prepare_image_tree(root.get());
    if (files.disk && ::syncfs(top.get()) != 0)
      throw sys_error(errno, "write", "the image to the host's disk");
  } catch (Error& e) {
    Error cause = unpacking_failed(e, bounds, layers.home());
    throw cause.during("unpacking " + image.digest);
  }
  top.reset();
  return layers.finish(std::move(draft), 0, true, std::move(files));
}

}  // namespace hutch::sandbox
