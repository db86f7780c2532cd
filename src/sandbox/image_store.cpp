#include "sandbox/image_store.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "base/process.h"
#include "base/sys.h"
#include "sandbox/image_unpack.h"
#include "sandbox/turn.h"

namespace hutch::sandbox {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(Image, digest, layer, user, workdir, env, architecture,
                                                size_bytes, created_at)

namespace {

constexpr std::string_view kWorkPrefix = ".work-", kImageSuffix = ".json";
constexpr size_t kDigestDigits = 64;

/// What buildah made for an ordinary user has owners that only it can act as.
void remove_work(const std::string& folder) noexcept {
  constexpr auto kTimeout = std::chrono::seconds(60);
  const char* home = std::getenv("HOME");
  if (sys::remove_tree(folder) || ::geteuid() == 0 || home == nullptr) return;
  try {
    (void)Process::spawn(
        {.argv = {find_image_tool("buildah"), "unshare", "rm", "-rf", "--", folder},
         .env = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", std::string("HOME=") + home, "TMPDIR=" + folder}})
        .wait(Clock::now() + kTimeout);
  } catch (const std::exception& e) {
    log::warning("{} stays for now: {}", folder, e.what());
  }
}

/// Under the lock of `folder`.
uint64_t remove_given_up_work(const std::string& folder) {
  uint64_t freed = 0;
  for (const auto& name : sys::list_folder(folder)) {
    const std::string path = folder + "/" + name;
    if (name.find(".json.") != name.npos)
      ::unlink(path.c_str());  // of replace_file(), which needs the lock too
    if (!name.starts_with(kWorkPrefix)) continue;
    const UniqueFd work = sys::open_if_exists(path, O_RDONLY | O_DIRECTORY);
    if (!work || ::flock(work.get(), LOCK_EX | LOCK_NB) != 0) continue;
    freed += sys::tree_bytes(path);
    remove_work(path);
  }
  return freed;
}

/// Goes with the object, and after a crash when the next one is made.
class WorkFolder {
 public:
  explicit WorkFolder(const std::string& images) {
    const UniqueFd turn = sys::lock_folder(images);
    remove_given_up_work(images);
    path_ = fmt::format("{}/{}{}", images, kWorkPrefix, sys::random_hex(6));
    sys::make_dirs(path_, 0700);
    lock_ = sys::open(path_, O_RDONLY | O_DIRECTORY);
    if (::flock(lock_.get(), LOCK_SH | LOCK_NB) != 0) throw sys_error(errno, "lock", path_);
  }
  ~WorkFolder() { remove_work(path_); }
  WorkFolder(const WorkFolder&) = delete;
  WorkFolder& operator=(const WorkFolder&) = delete;
  const std::string& path() const noexcept { return path_; }

 private:
  std::string path_;
  UniqueFd lock_;
};

/// On the host's disk when this returns.
void replace_lasting(const std::string& folder, const std::string& path, const std::string& text) {
  sys::replace_file(path, text, 0600);
  for (const auto& written : {path, folder})
    if (const UniqueFd fd = sys::open(written, O_RDONLY); ::fsync(fd.get()) != 0)
      throw sys_error(errno, "sync", written);
}

Error no_such_image(const std::string& reference, const std::vector<Image>& images) {
  std::string known;
  for (const auto& image : images)
    for (const auto& name : image.names) known += (known.empty() ? "" : ", ") + short_image_name(name);
  return Error(Errc::not_found, fmt::format("there is no image '{}' here{}", reference,
                                            known.empty() ? "" : "; there are " + known))
      .hint("hutch image pull NAME, or hutch image import PATH --name NAME");
}

/// Also where nobody listens.
Progress audible(const Progress& progress) {
  return progress ? progress : [](std::string_view) {};
}

/// Of an image that does not come from a registry.
std::string name_to_give(const std::string& name) {
  const ImageReference wanted = parse_image_reference(name);
  if (!wanted.digest.empty())
    throw Error(Errc::invalid_argument, fmt::format("'{}' is a digest, which is not to be chosen", name))
        .hint("a name such as `mine:1`, without @sha256:...");
  return wanted.name();
}

}  // namespace

Base Image::base() const {
  Base base;
  base.image = digest;
  base.layers = {layer};
  base.user = user;
  base.workdir = workdir;
  base.env = env;
  return base;
}

std::string ImageStore::file_of(const std::string& digest) const {
  return fmt::format("{}/{}{}", folder(), image_digest_digits(digest), kImageSuffix);
}

ImageStore::Names ImageStore::read_names() const {
  const std::string path = folder() + "/names.json";
  if (!sys::exists(path)) return {};
  try {
    return nlohmann::json::parse(sys::read_file(path)).get<Names>();
  } catch (const nlohmann::json::exception& e) {
    throw Error(Errc::internal, fmt::format("{} cannot be read: {}", path, e.what()))
        .hint("remove that file: images stay, and `hutch image pull` gives them their names again");
  }
}

void ImageStore::write_names(const Names& names) const {
  replace_lasting(folder(), folder() + "/names.json", nlohmann::json(names).dump(1));
}

/// Nothing when there is none, or when its files are gone.
std::optional<Image> ImageStore::load(const std::string& digest, const Names& names) const {
  try {
    auto image = nlohmann::json::parse(sys::read_file(file_of(digest))).get<Image>();
    if (image.layer.empty() || !sys::exists(layers_.folder(image.layer))) return std::nullopt;
    for (const auto& [name, of] : names)
      if (of == image.digest) image.names.push_back(name);
    return image;
  } catch (const Error&) {
  } catch (const nlohmann::json::exception& e) {
    log::warning("image {} cannot be read: {}", digest, e.what());
  }
  return std::nullopt;
}

std::vector<Image> ImageStore::list() const {
  const Names names = read_names();
  std::vector<Image> images;
  for (const auto& file : sys::list_folder(folder())) {
    if (file.size() != kDigestDigits + kImageSuffix.size() || !file.ends_with(kImageSuffix)) continue;
    if (auto image = load(file.substr(0, kDigestDigits), names)) images.push_back(std::move(*image));
  }
  return images;
}

std::optional<Image> ImageStore::find_in(const Names& names, const std::string& reference) const {
  const std::string digits = image_digest_digits(reference);
  std::string named;
  try {
    const ImageReference parsed = parse_image_reference(reference);
    if (const auto it = names.find(parsed.name()); it != names.end()) return load(it->second, names);
    if (!parsed.digest.empty()) return load(parsed.digest, names);
  } catch (const Error&) {
    if (digits.empty()) throw;
  }
  if (digits.empty()) return std::nullopt;
  std::optional<Image> found;
  for (auto& image : list()) {
    const auto fits = [&](const std::string& text) {
      const size_t at = text.find("sha256:");
      return at != text.npos && text.compare(at + 7, digits.size(), digits) == 0;
    };
    if (!fits(image.digest) && std::ranges::none_of(image.names, fits)) continue;
    if (found)
      throw Error(Errc::conflict, fmt::format("several images begin with '{}'", reference))
          .hint("more digits: `hutch image ls --json` shows them");
    found = std::move(image);
  }
  return found;
}

std::optional<Image> ImageStore::find(const std::string& reference) const {
  return find_in(read_names(), reference);
}

Image ImageStore::get(const std::string& reference, const Progress& progress, const std::stop_token& stop) {
  if (auto found = find(reference)) return std::move(*found);
  if (settings_.pull == "never" || !image_digest_digits(reference).empty())
    throw no_such_image(reference, list());
  return pull(reference, false, progress, stop);
}

Image ImageStore::pull(const std::string& reference, bool anew, const Progress& progress,
                       const std::stop_token& stop) {
  const ImageReference wanted = parse_image_reference(reference);
  sys::make_dirs(folder(), 0700);
  const Turn turn(folder(), wanted.name(), "waiting for another server that pulls it", progress, stop);
  if (!anew || turn.waited())
    if (auto found = find(reference)) return std::move(*found);
  return make(wanted.name(), progress, stop,
              [&](const ImageWork& work) { fetch_image(wanted, settings_.insecure_registries, work); });
}

Image ImageStore::import(const std::string& path, const std::string& name, const Progress& progress,
                         const std::stop_token& stop) {
  const std::string full = name_to_give(name);
  sys::make_dirs(folder(), 0700);
  return during("importing " + path, [&] {
    return make(full, progress, stop, [&](const ImageWork& work) { (void)copy_local_image(path, work); });
  });
}

Image ImageStore::build(const std::string& context, const std::string& dockerfile, const std::string& name,
                        const Progress& progress, const std::stop_token& stop) {
  const std::string full = name_to_give(name);
  sys::make_dirs(folder(), 0700);
  return during("building " + dockerfile, [&] {
    return make(full, progress, stop, [&](const ImageWork& work) {
      build_image(context, dockerfile, settings_.insecure_registries, work);
    });
  });
}

ImageStore::Loose ImageStore::build_loose(const std::string& context, const std::string& dockerfile,
                                          const Progress& progress, const std::stop_token& stop) {
  sys::make_dirs(folder(), 0700);
  const auto build = [&](const ImageWork& work) {
    build_image(context, dockerfile, settings_.insecure_registries, work);
  };
  return during("building " + dockerfile, [&] {
    return writing_to_disk(
        [&] { return bring_here(progress, stop, build, [](const std::string&) { return false; }); });
  });
}

/// Nothing is unpacked of what is here already, by its digest.
ImageStore::Loose ImageStore::bring_here(const Progress& progress, const std::stop_token& stop,
                                         const Make& bring, const IsHere& is_here) {
  const ImageBounds bounds{.max_bytes = settings_.max_size.value,
                           .deadline = Clock::now() + std::chrono::seconds(settings_.pull_timeout_s),
                           .stop = stop};
  disk_.check_room_for_create();
  const WorkFolder folder_for_it(folder());
  const Progress told = audible(progress);
  const ImageWork work{folder_for_it.path(), layers_.stage(), layers_.home(), bounds, told};
  bring(work);
  const LayoutImage facts = read_layout(work.layout());
  Image image{.digest = facts.digest,
              .user = facts.user,
              .workdir = facts.workdir,
              .env = facts.env,
              .architecture = facts.architecture,
              .created_at = ::time(nullptr)};
  if (is_here(facts.digest)) return {std::move(image), nullptr};
  const std::string layout = facts.has_zstd ? layout_for_umoci(work) : work.layout();
  const auto unpacked = unpack_image(layout, facts, work.folder, layers_, bounds, told);
  image.layer = unpacked.manifest.id;
  image.size_bytes = unpacked.manifest.size_bytes;
  return {std::move(image), unpacked.layer};
}

Image ImageStore::make(const std::string& name, const Progress& progress, const std::stop_token& stop,
                       const Make& bring) {
  return writing_to_disk([&] {
    const Loose made = bring_here(progress, stop, bring,
                                  [this](const std::string& digest) { return load(digest, {}).has_value(); });
    return keep(made.image, name);
  });
}

/// Makes it visible, all at once. Of an image that another server has brought here meanwhile only the name is
/// new; our layer is nobody's then.
Image ImageStore::keep(Image image, const std::string& name) const {
  const UniqueFd turn = sys::lock_folder(folder());
  Names names = read_names();
  if (!load(image.digest, names)) {
    if (image.layer.empty())
      throw Error(Errc::conflict,
                  fmt::format("image {} was removed while it got the name {}", image.digest, name))
          .hint("`hutch image pull` or `import` it again");
    replace_lasting(folder(), file_of(image.digest), nlohmann::json(image).dump(1));
  }
  names[name] = image.digest;
  write_names(names);
  return load(image.digest, names).value();
}

std::set<std::string> ImageStore::layers() const {
  std::set<std::string> out;
  for (const auto& image : list()) out.insert(image.layer);
  return out;
}

ImageStore::Removed ImageStore::remove(const std::string& reference, const UsersOf& users_of) {
  sys::make_dirs(folder(), 0700);
  const UniqueFd turn = sys::lock_folder(folder());
  Names names = read_names();
  const auto image = find_in(names, reference);
  if (!image) throw no_such_image(reference, list());
  Removed removed;
  removed.names = image->names;
  if (image->names.size() > 1)
    for (const auto& name : image->names)
      if (image_digest_digits(reference).empty() && name == parse_image_reference(reference).name())
        removed.names = {name};
  for (const auto& name : removed.names) names.erase(name);
  if (removed.names.size() == image->names.size()) {
    if (const auto users = users_of(image->layer); !users.empty())
      throw Error(Errc::conflict,
                  fmt::format("image '{}' is in use by {}", reference, fmt::join(users, ", ")))
          .hint("`hutch rm` ends sandboxes, sandbox_delete_template removes templates");
    write_names(names);
    (void)::unlink(file_of(image->digest).c_str());
    removed.digests.push_back(image->digest);
  } else {
    write_names(names);
  }
  return removed;
}

ImageStore::Removed ImageStore::collect(const UsersOf& users_of) {
  Removed removed;
  if (sys::exists(folder())) {
    const UniqueFd turn = sys::lock_folder(folder());
    removed.freed_bytes += remove_given_up_work(folder());
    for (const auto& image : list()) {
      if (!image.names.empty() || !users_of(image.layer).empty()) continue;
      (void)::unlink(file_of(image.digest).c_str());
      removed.digests.push_back(image.digest);
    }
  }
  return removed;
}

}  // namespace hutch::sandbox
