#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/sha256.h"
#include "base/sys.h"
#include "runtime/tar.h"
#include "runtime/tree_process.h"
#include "sandbox/archive_filter.h"
#include "sandbox/template_archive.h"

namespace hutch::sandbox {

namespace {

using nlohmann::json;
using runtime::TreeProcess;

class TemplateWriter {
 public:
  TemplateWriter(LayerStore& layers, const Template& exported, int out, const ArchiveProgress& progress)
      : exported_(exported), out_(out), progress_(progress) {
    for (const auto& id : exported_.base.layers) {
      Part part{.layer = layers.use(id), .tree = {}};
      part.tree = part.layer->on_disk()
                      ? UniqueFd(::openat(part.layer->mount().get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC))
                      : sys::open(part.layer->files(), O_RDONLY | O_DIRECTORY);
      if (!part.tree) throw sys_error(errno, "open", id);
      parts_.push_back(std::move(part));
    }
  }

  ExportedTemplate run() {
    const std::string manifest = manifest_text();
    put_file(TemplateArchive::kManifest, manifest);
    json digests{{"manifest", "sha256:" + sha256_hex(manifest)}, {"layers", json::array()}};
    for (size_t i = 0; i < parts_.size(); ++i)
      digests["layers"].push_back(put_layer(parts_[i], fmt::format("layers/{}/", i)));
    put_file(TemplateArchive::kDigests, digests.dump(2) + "\n");
    put(runtime::tar_end());
    return done_;
  }

 private:
  struct Part {
    std::shared_ptr<const runtime::SealedLayer> layer;
    UniqueFd tree;
  };

  std::string manifest_text() {
    json layers = json::array();
    for (const Part& part : parts_) {
      const auto found = TreeProcess::count(part.tree.get(), part.layer->facts().first_id).wait().packed;
      layers.push_back({{"entries", found.entries}, {"bytes", found.bytes}});
      done_.left_out += found.left_out;
    }
    return json{{"format", "hutch-template"},
                {"version", TemplateArchive::kVersion},
                {"template", json::parse(to_json_text(exported_))},
                {"layers", std::move(layers)}}
               .dump(2) +
           "\n";
  }

  void put_file(const char* name, const std::string& content) {
    put(runtime::tar_header({.name = name,
                             .mode = 0644,
                             .mtime = {exported_.created_at, 0},
                             .size = content.size(),
                             .stored = content.size()}));
    put(content);
    put(runtime::tar_padding(content.size()));
  }

  std::string put_layer(const Part& part, const std::string& prefix) {
    Sha256 sum;
    TreeProcess::pack_to(
        [&](std::string_view piece) {
          sum.update(piece);
          put(piece);
        },
        part.tree.get(), prefix, part.layer->facts().first_id);
    return "sha256:" + sum.hex();
  }

  void put(std::string_view bytes) {
    try {
      sys::write_all(out_, bytes);
    } catch (Error& e) {
      e.during("writing the archive");
      throw;
    }
    done_.bytes += bytes.size();
    progress_(done_.bytes);
  }

  const Template& exported_;
  const int out_;
  const ArchiveProgress& progress_;
  std::vector<Part> parts_;
  ExportedTemplate done_;
};

/// A file without a name, or where the file system has no such files with one of ours, which gets its own
/// when it is whole.
class NewFile {
 public:
  explicit NewFile(const std::string& path) : path_(std::filesystem::absolute(path)) {
    if (std::filesystem::exists(path_) && !std::filesystem::is_regular_file(path_))
      throw Error(Errc::invalid_argument, path + " is there and is no file")
          .hint("`-` writes to standard output");
    const std::string folder = path_.parent_path();
    fd_ = UniqueFd(::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
    if (fd_) return;
    if (errno != EOPNOTSUPP && errno != EISDIR) throw sys_error(errno, "make a file in", folder);
    name_ = hidden_name();
    fd_ = sys::open(name_, O_RDWR | O_CREAT | O_EXCL, 0600);
  }
  ~NewFile() {
    if (!name_.empty()) ::unlink(name_.c_str());
  }
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  int fd() const noexcept { return fd_.get(); }

  void appear() {
    if (::fsync(fd_.get()) != 0) throw sys_error(errno, "sync", path_.string());
    if (name_.empty()) {
      const std::string nameless = fmt::format("/proc/self/fd/{}", fd_.get());
      const auto link_to = [&](const std::string& name) {
        return ::linkat(AT_FDCWD, nameless.c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) == 0;
      };
      if (link_to(path_)) return sync_folder();
      if (errno != EEXIST) throw sys_error(errno, "link", path_.string());
      name_ = hidden_name();
      if (!link_to(name_)) throw sys_error(errno, "link", name_);
    }
    if (::rename(name_.c_str(), path_.c_str()) != 0) throw sys_error(errno, "rename", path_.string());
    name_.clear();
    sync_folder();
  }

 private:
  std::string hidden_name() const {
    return fmt::format("{}/.hutch-{}", path_.parent_path().string(), sys::random_hex(6));
  }
  void sync_folder() const {
    if (::fsync(sys::open(path_.parent_path(), O_RDONLY).get()) != 0)
      throw sys_error(errno, "sync", path_.parent_path().string());
  }

  std::filesystem::path path_;
  std::string name_;
  UniqueFd fd_;
};

}  // namespace

ExportedTemplate export_template(LayerStore& layers, const Template& exported, int out,
                                 const ArchiveProgress& progress) {
  return TemplateWriter(layers, exported, out, progress).run();
}

ExportedTemplate export_template_file(LayerStore& layers, const Template& exported, const std::string& path,
                                      const ArchiveProgress& progress) {
  NewFile file(path);
  ArchiveFilter filter = ArchiveFilter::compress(path, file.fd());
  try {
    const ExportedTemplate done = export_template(layers, exported, filter.stream(), progress);
    filter.finish();
    file.appear();
    return done;
  } catch (const Error& e) {
    if (e.os_error() == EPIPE) filter.finish();  // knows why it has ended
    throw;
  }
}

}  // namespace hutch::sandbox
