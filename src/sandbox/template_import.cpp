#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <nlohmann/json.hpp>

#include "base/sha256.h"
#include "base/sys.h"
#include "runtime/beneath.h"
#include "runtime/tar.h"
#include "runtime/tree_process.h"
#include "sandbox/admission.h"
#include "sandbox/archive_filter.h"
#include "sandbox/template_archive.h"

namespace hutch::sandbox {

namespace {

using nlohmann::json;
using runtime::TreeProcess;

constexpr uint64_t kMiB = 1u << 20;
constexpr size_t kMostJson = 1 * kMiB;
constexpr int kMostDepth = 16;             // nested deeper, the JSON library would run out of stack
constexpr size_t kMostArchiveLayers = 64;  // as sandbox_create_template makes
constexpr uint64_t kInodeBytes = 256, kBytesPerInode = 8192;  // of the images of layers

[[noreturn]] void refuse_archive(const std::string& why) {
  throw Error(Errc::invalid_argument, "bad archive: " + why);
}

json parse_part(const std::string& text, const char* name) {
  json parsed = json::parse(
      text,
      [](int depth, json::parse_event_t, json&) {
        if (depth > kMostDepth) refuse_archive("JSON that is nested too deep");
        return true;
      },
      false);
  if (!parsed.is_object()) refuse_archive(fmt::format("{} is no JSON object", name));
  return parsed;
}

/// What the archive says of a layer, and what nobody has checked.
struct Declared {
  uint64_t entries = 0, bytes = 0;
  uint64_t on_disk() const { return bytes + entries * kInodeBytes; }
};

struct ArchiveManifest {
  Template made;
  std::vector<Declared> layers;
};

bool is_plain(const std::string& text, std::string_view allowed) {
  return text.size() <= 200 && std::ranges::all_of(text, [&](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  allowed.find(c) != std::string_view::npos;
         });
}

/// What others rely on of a template that was made here.
void check_foreign(const Template& made) {
  constexpr int64_t kLastDay = 253'402'300'799;  // of the year 9999
  const Base& base = made.base;
  if (!made.parent.empty()) check_name(made.parent, "template");
  if (!is_plain(base.image, ":_-")) refuse_archive("its image has no digest for a name");
  if (!is_plain(made.hutch_version, "+._~-")) refuse_archive("no version of hutch is called so");
  if (made.created_at < 0 || made.created_at > kLastDay) refuse_archive("it was made at no time");
  std::string words = made.description + base.user + base.workdir;
  for (const auto& [name, value] : base.env) {
    if (name.empty() || name.find('=') != std::string::npos) refuse_archive("a variable without a name");
    words += name + value;
  }
  if (words.find('\0') != std::string::npos) refuse_archive("a text with a zero in it");
  if (!base.workdir.empty() && base.workdir.front() != '/')
    refuse_archive("a working folder that is no path");
}

ArchiveManifest parse_manifest(const std::string& text) {
  try {
    const json parsed = parse_part(text, TemplateArchive::kManifest);
    if (parsed.at("format") != "hutch-template") refuse_archive("it is no template of hutch");
    if (const int version = parsed.at("version"); version != TemplateArchive::kVersion)
      throw Error(Errc::unavailable, fmt::format("the archive has version {} of the format, this is {}",
                                                 version, TemplateArchive::kVersion))
          .hint("`hutch version`: a newer one may read it");
    ArchiveManifest out{template_from_json(parsed.at("template").dump()), {}};
    check_foreign(out.made);
    for (const json& layer : parsed.at("layers")) {
      const Declared declared{layer.at("entries").get<uint64_t>(), layer.at("bytes").get<uint64_t>()};
      if (declared.entries > UINT32_MAX || declared.bytes >> 50 != 0)
        refuse_archive("more in a layer than there can be");
      out.layers.push_back(declared);
    }
    if (out.layers.empty() || out.layers.size() > kMostArchiveLayers ||
        out.layers.size() != out.made.base.layers.size())
      refuse_archive(
          fmt::format("{} layers, the template has {}", out.layers.size(), out.made.base.layers.size()));
    return out;
  } catch (const json::exception& e) {
    refuse_archive(fmt::format("{}: {}", TemplateArchive::kManifest, e.what()));
  }
}

/// Of the image that a layer of this size fits in, with some room: of few different sizes, since a formatted
/// one is kept for each.
uint64_t image_bytes(const Declared& declared) {
  const uint64_t least = 64 * kMiB + std::max(declared.bytes + declared.on_disk() / 8,
                                              declared.entries * kBytesPerInode + declared.entries);
  const uint64_t step = std::bit_floor(least) / 4;
  return (least + step - 1) / step * step;
}

/// A layer that is being read. What it holds goes in the reverse order.
struct Part {
  LayerDraft draft;
  DraftFiles files;
  UniqueFd stream;
  TreeProcess process;
  Sha256 sum;
};

class TemplateReader {
 public:
  TemplateReader(LayerStore& layers, const TemplateStore& templates, int in, const DiskGuard& disk,
                 const ArchiveProgress& progress)
      : layers_(layers), templates_(templates), reader_(in), disk_(disk), progress_(progress) {}

  /// To its end. Nothing can be seen of it yet.
  void read(std::string name, bool overwrite) {
    if (!reader_.next() || reader_.entry().name != TemplateArchive::kManifest)
      refuse_archive("it is no template of hutch");
    const std::string text = whole_content();
    manifest_ = parse_manifest(text);
    manifest_digest_ = "sha256:" + sha256_hex(text);
    if (!name.empty()) manifest_.made.name = std::move(name);
    manifest_.made.base.template_name = manifest_.made.name;
    check_name_is_free(overwrite);
    check_room();
    read_layers();
  }

  ImportedTemplate keep(bool overwrite) {
    std::vector<LayerStore::Finished> finished;
    Template& made = manifest_.made;
    made.base.layers.clear();
    try {
      for (Part& part : parts_) {
        finished.push_back(layers_.finish(std::move(part.draft), 0, true, std::move(part.files)));
        made.base.layers.push_back(finished.back().manifest.id);
        made.size_bytes = finished.back().manifest.size_bytes;
      }
      templates_.add(made, overwrite);
    } catch (...) {
      for (const auto& one : finished) sys::remove_tree(layers_.folder(one.manifest.id));
      throw;
    }
    imported_.made = made;
    imported_.bytes = reader_.bytes();
    return imported_;
  }

 private:
  std::string whole_content() {
    std::string out;
    if (reader_.entry().kind != runtime::TarEntry::Kind::file || reader_.entry().stored > kMostJson)
      refuse_archive(fmt::format("{} is no small file", runtime::shown_name(reader_.entry().name)));
    for (std::string_view piece; !(piece = reader_.content()).empty();) out += piece;
    return out;
  }

  void check_name_is_free(bool overwrite) const {
    check_name(manifest_.made.name, "template");
    templates_.check_free(manifest_.made.name, overwrite);
  }

  void check_room() const {
    sys::make_dirs(layers_.home() + "/layers", 0700);
    uint64_t needed = 0;
    for (const Declared& layer : manifest_.layers) needed += layer.on_disk();
    disk_.check_room_for(needed);
  }

  void read_layers() {
    std::optional<size_t> current;
    while (reader_.next()) {
      if (reader_.entry().name == TemplateArchive::kDigests) return read_digests();
      const size_t index = layer_of(reader_.entry().name);
      if (index >= manifest_.layers.size() || (current && index < *current))
        refuse_archive("its layers are not in order");
      while (!current || *current != index) {
        current = current ? *current + 1 : 0;
        begin_layer(*current);
      }
      pass_on(parts_.back());
      progress_(reader_.bytes());
    }
    refuse_archive("it has no digests");
  }

  static size_t layer_of(const std::string& name) {
    constexpr std::string_view kPrefix = "layers/";
    size_t index = 0;
    if (name.starts_with(kPrefix)) {
      const char* const first = name.data() + kPrefix.size();
      const auto [end, err] = std::from_chars(first, name.data() + name.size(), index);
      if (err == std::errc() && *end == '/' && prefix_of(index) == name.substr(0, prefix_of(index).size()))
        return index;
    }
    refuse_archive(fmt::format("{} is in no layer", runtime::shown_name(name)));
  }

  static std::string prefix_of(size_t index) { return fmt::format("layers/{}/", index); }

  void begin_layer(size_t index) {
    end_layer();
    LayerDraft draft = layers_.begin();
    const uint64_t most = image_bytes(manifest_.layers[index]);
    DraftFiles files = layers_.make_files(draft, most);
    const UniqueFd tree =
        files.disk ? UniqueFd(::openat(files.disk->mount.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC))
                   : sys::open(files.folder, O_RDONLY | O_DIRECTORY);
    if (!tree) throw sys_error(errno, "open", "the new layer");
    sys::Pipe stream = sys::pipe();
    ::fcntl(stream.read_end.get(), F_SETPIPE_SZ, static_cast<int>(kMiB));  // an optimisation
    TreeProcess process = TreeProcess::unpack(tree.get(), stream.read_end.get(), prefix_of(index), most);
    parts_.push_back(
        {std::move(draft), std::move(files), std::move(stream.write_end), std::move(process), {}});
  }

  void pass_on(Part& part) {
    std::string_view piece = reader_.header();
    try {
      do {
        part.sum.update(piece);
        sys::write_all(part.stream.get(), piece);
      } while (!(piece = reader_.content_and_padding()).empty());
    } catch (const Error& e) {
      if (e.os_error() == EPIPE) end_layer();  // its process knows why it has ended
      throw;
    }
  }

  /// No error that leaves this is one of ours: it tells of the archive, or of the disk.
  void end_layer() {
    if (parts_.empty() || !parts_.back().stream) return;
    parts_.back().stream.reset();
    try {
      const runtime::Unpacked done = parts_.back().process.wait().unpacked;
      imported_.owners_lost += done.owners_lost;
      imported_.attributes_dropped += done.attributes_dropped;
    } catch (const Error& e) {
      const int err = e.os_error();
      if ((err == ENOSPC || err == EDQUOT || err == EIO) && is_disk_full(layers_.home())) throw full_disk();
      if (err == ENOSPC)
        throw Error(Errc::invalid_argument, "bad archive: there is more in a layer than it says");
      throw;
    }
  }

  void read_digests() {
    const json digests = parse_part(whole_content(), TemplateArchive::kDigests);
    if (reader_.next()) refuse_archive("something follows its digests");
    reader_.expect_nothing_more();
    while (parts_.size() < manifest_.layers.size()) begin_layer(parts_.size());
    end_layer();
    try {
      if (digests.at("manifest") != manifest_digest_)
        refuse_archive(fmt::format("{} has another digest than it says", TemplateArchive::kManifest));
      if (digests.at("layers").size() != parts_.size()) refuse_archive("a layer without a digest");
      for (size_t i = 0; i < parts_.size(); ++i)
        if (digests["layers"].at(i) != "sha256:" + parts_[i].sum.hex())
          refuse_archive(fmt::format("layer {} has another digest than it says", i));
    } catch (const json::exception& e) {
      refuse_archive(fmt::format("{}: {}", TemplateArchive::kDigests, e.what()));
    }
  }

  LayerStore& layers_;
  const TemplateStore& templates_;
  runtime::TarReader reader_;
  const DiskGuard& disk_;
  const ArchiveProgress& progress_;
  ArchiveManifest manifest_;
  std::string manifest_digest_;
  std::vector<Part> parts_;
  ImportedTemplate imported_;
};

}  // namespace

ImportedTemplate import_template(LayerStore& layers, const TemplateStore& templates, int in, std::string name,
                                 bool overwrite, const DiskGuard& disk, const ArchiveProgress& progress) {
  return writing_to_disk([&] {
    ArchiveFilter filter = ArchiveFilter::decompress(in);
    TemplateReader reader(layers, templates, filter.stream(), disk, progress);
    reader.read(std::move(name), overwrite);
    filter.finish();  // a checksum at its end may be wrong
    return reader.keep(overwrite);
  });
}

}  // namespace hutch::sandbox
