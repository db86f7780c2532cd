#include "sandbox/image_source.h"

#include <fmt/format.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "base/sha256.h"
#include "base/sys.h"
#include "sandbox/image_unpack.h"

namespace hutch::sandbox {

namespace {

/// Without any policy skopeo copies nothing; whoever has one means it.
bool has_policy() {
  const char* home = std::getenv("HOME");
  return sys::exists("/etc/containers/policy.json") ||
         (home != nullptr && sys::exists(std::string(home) + "/.config/containers/policy.json"));
}

/// The message in `time=... level=fatal msg="..."`, the last line of what it said.
std::string skopeo_message(std::string said) {
  const size_t at = said.rfind("level=fatal msg=\"");
  if (at == said.npos) return said;
  std::string out;
  for (size_t i = at + std::strlen("level=fatal msg=\""); i < said.size() && said[i] != '"'; ++i) {
    if (said[i] == '\\' && i + 1 < said.size()) ++i;
    out += said[i];
  }
  return out;
}

struct Cause {
  const char* said;
  Errc code;
  const char* hint;
};
/// The first that fits. {}: the registry.
constexpr Cause kCauses[] = {
    {"HTTP response to HTTPS client", Errc::unavailable,
     "when {0} is meant to speak without TLS, add it to `images.insecure_registries` in the configuration"},
    {"certificate", Errc::unavailable,
     "add the certificate to /etc/containers/certs.d/{0}, or {0} to `images.insecure_registries`"},
    {"no space left on device", Errc::limit_exceeded,
     "make room on the disk of the data folder: `hutch image gc`"},
    {"unauthorized", Errc::denied, "skopeo login {0}; there may also be no such image"},
    {"authentication required", Errc::denied, "skopeo login {0}; there may also be no such image"},
    {"denied", Errc::denied, "skopeo login {0}; there may also be no such image"},
    {"manifest unknown", Errc::not_found, "check the tag with `skopeo list-tags docker://{0}/...`"},
    {"name unknown", Errc::not_found, "check the name with `skopeo list-tags docker://{0}/...`"},
    {"no image found in", Errc::not_found,
     "the image at {0} is for other processors or systems than this host's"},
    {"digest", Errc::unavailable,
     "what came from {0} is not what it promised: try again, or tell its keeper"},
    {"Digest", Errc::unavailable,
     "what came from {0} is not what it promised: try again, or tell its keeper"},
    {"", Errc::unavailable, "check that {0} can be reached: `skopeo inspect docker://{0}/...`"}};

Error explained(const Error& e, const std::string& registry) {
  if (e.code() != Errc::unavailable ||
      std::string_view(e.what()).find("ended with") == std::string_view::npos)
    return e;
  const std::string said = skopeo_message(e.what());
  for (const auto& cause : kCauses)
    if (said.find(cause.said) != said.npos)
      return Error(cause.code, said).hint(fmt::format(fmt::runtime(cause.hint), registry));
  return e;
}

/// skopeo names each layer when it begins with it.
Progress layer_counter(const Progress& progress) {
  return [&progress, layers = std::set<std::string>()](std::string_view line) mutable {
    constexpr std::string_view kBlob = "Copying blob ";
    if (!line.starts_with(kBlob)) return;
    const std::string digest(line.substr(kBlob.size(), line.find(' ', kBlob.size()) - kBlob.size()));
    if (layers.insert(digest).second) progress(fmt::format("copying layer {}", layers.size()));
  };
}

void skopeo_copy(std::vector<std::string> options, const std::string& source, const std::string& layout,
                 const ImageWork& work) {
  ImageTool skopeo{.program = "skopeo", .arguments = {}, .work = work.folder, .grows = {work.folder}};
  if (!has_policy()) skopeo.arguments.push_back("--insecure-policy");
  skopeo.arguments.push_back("copy");
  options.push_back(source);
  options.push_back(fmt::format("oci:{}:{}", layout, kLayoutTag));
  skopeo.arguments.insert(skopeo.arguments.end(), options.begin(), options.end());
  skopeo.line = layer_counter(work.progress);
  run_image_tool(std::move(skopeo), work.stage, work.data_folder, work.bounds);
}

// -- archives --

constexpr size_t kTarBlock = 512, kMostEntries = 200'000;

/// A header of a tar (POSIX 1988 and later, GNU): those before have no magic, and nobody writes them.
bool is_tar_header(const char* block) {
  return std::memcmp(block + 257, "ustar", 5) == 0;
}

uint64_t tar_size(const char* block) {
  const char* field = block + 124;
  uint64_t size = 0;
  if ((static_cast<unsigned char>(field[0]) & 0x80) != 0) {  // GNU: a number of any size
    for (size_t i = 4; i < 12; ++i) size = size << 8 | static_cast<unsigned char>(field[i]);
    return size;
  }
  for (size_t i = 0; i < 12 && field[i] >= '0' && field[i] <= '7'; ++i)
    size = size * 8 + static_cast<uint64_t>(field[i] - '0');
  return size;
}

/// The names at the top of a tar, as far as they are short. Empty when it is none.
std::set<std::string> top_of_tar(const std::string& path) {
  const UniqueFd file = sys::open(path, O_RDONLY);
  std::set<std::string> names;
  char block[kTarBlock];
  off_t at = 0;
  for (size_t i = 0; i < kMostEntries; ++i) {
    if (::pread(file.get(), block, sizeof block, at) != static_cast<ssize_t>(sizeof block)) break;
    if (!is_tar_header(block)) break;
    std::string name(block, ::strnlen(block, 100));
    if (name.starts_with("./")) name.erase(0, 2);
    names.insert(name.substr(0, name.find('/')));
    const uint64_t size = tar_size(block);
    if (size > static_cast<uint64_t>(INT64_MAX) / 4) break;
    at += static_cast<off_t>(kTarBlock + (size + kTarBlock - 1) / kTarBlock * kTarBlock);
  }
  return names;
}

bool is_gzip(const std::string& path) {
  unsigned char magic[2]{};
  return ::pread(sys::open(path, O_RDONLY).get(), magic, 2, 0) == 2 && magic[0] == 0x1f && magic[1] == 0x8b;
}

void gunzip(const std::string& from, const std::string& to, const ImageWork& work) {
  sys::write_file(to, "", 0600);
  ImageTool gzip{
      .program = "gzip", .arguments = {"-dc", "--", from}, .work = work.folder, .grows = {work.folder}};
  gzip.output = to;
  run_image_tool(std::move(gzip), work.stage, work.data_folder, work.bounds);
}

std::string sha256_of_file(const std::string& path) {
  const UniqueFd file = sys::open(path, O_RDONLY);
  Sha256 sum;
  std::string buffer(1 << 20, '\0');
  for (ssize_t n = 0; (n = ::read(file.get(), buffer.data(), buffer.size())) != 0;) {
    if (n < 0) throw sys_error(errno, "read", path);
    sum.update({buffer.data(), static_cast<size_t>(n)});
  }
  return sum.hex();
}

nlohmann::json add_blob(const std::string& layout, const char* type, const nlohmann::json& content) {
  const std::string text = content.dump(), digits = sha256_hex(text);
  sys::write_file(layout + "/blobs/sha256/" + digits, text);
  return {{"mediaType", type}, {"digest", "sha256:" + digits}, {"size", text.size()}};
}

/// An image of one layer, whose digest depends on the tar alone.
void layout_of_tar(const std::string& tar, const ImageWork& work) {
  const std::string layout = work.layout(), digits = sha256_of_file(tar), digest = "sha256:" + digits;
  sys::make_dirs(layout + "/blobs/sha256", 0700);
  const std::string blob = layout + "/blobs/sha256/" + digits;
  if (::symlink(tar.c_str(), blob.c_str()) != 0) throw sys_error(errno, "symlink", blob);
  struct stat st {};
  if (::stat(tar.c_str(), &st) != 0) throw sys_error(errno, "stat", tar);
  const auto config = add_blob(layout, "application/vnd.oci.image.config.v1+json",
                               {{"os", "linux"},
                                {"architecture", ""},
                                {"config", nlohmann::json::object()},
                                {"rootfs", {{"type", "layers"}, {"diff_ids", {digest}}}}});
  nlohmann::json manifest = add_blob(layout, "application/vnd.oci.image.manifest.v1+json",
                                     {{"schemaVersion", 2},
                                      {"config", config},
                                      {"layers",
                                       {{{"mediaType", "application/vnd.oci.image.layer.v1.tar"},
                                         {"digest", digest},
                                         {"size", st.st_size}}}}});
  manifest["annotations"] = {{"org.opencontainers.image.ref.name", kLayoutTag}};
  sys::write_file(layout + "/index.json",
                  nlohmann::json{{"schemaVersion", 2}, {"manifests", {manifest}}}.dump());
  sys::write_file(layout + "/oci-layout", R"({"imageLayoutVersion":"1.0.0"})");
}

std::string real_path(const std::string& path) {
  const std::unique_ptr<char, void (*)(void*)> real(::realpath(path.c_str(), nullptr), ::free);
  if (!real)
    throw Error(Errc::not_found, fmt::format("{}: {}", path, std::strerror(errno)))
        .hint("an OCI layout, an archive or a tar; `hutch image pull` is for registries");
  return real.get();
}

Error unknown_form(const std::string& path) {
  return Error(
             Errc::invalid_argument,
             fmt::format("{} is no OCI layout, no archive of one, nothing that `docker save` has written and "
                         "no tar of a root file system",
                         path))
      .hint("`tar -C ROOT -c . > root.tar` makes a tar of a root file system");
}

/// Names without a registry mean what they mean everywhere else here.
std::string registries_config(const std::vector<std::string>& insecure_registries) {
  std::string text = "unqualified-search-registries = [\"docker.io\"]\n";
  for (const auto& registry : insecure_registries)
    text += fmt::format("[[registry]]\nlocation = {}\ninsecure = true\n", nlohmann::json(registry).dump());
  return text;
}

/// What an ordinary user lacks is said by buildah in the words of the kernel.
Error explained_build(const Error& e) {
  const std::string_view said = e.what();
  const auto says = [&](std::string_view words) { return said.find(words) != said.npos; };
  if (::geteuid() == 0) return e;
  if (says("determining current user"))
    return Error(Errc::unavailable,
                 fmt::format("buildah works for users that /etc/passwd names, and {} is none", ::geteuid()))
        .hint("run hutch as one that it names, or as root");
  // What it says of an owner comes after pages about the copy, and is cut off.
  const bool no_owner = says("setting owner of") || (says("bulk transfer") && says("no UID ranges"));
  if (no_owner || says("newuidmap") || says("setting supplemental groups") || says("UIDs or GIDs available"))
    return Error(Errc::unavailable,
                 "this Dockerfile needs more ids than the user's own, to run commands (RUN) or to give files "
                 "an owner, and /etc/subuid and /etc/subgid have not enough for this user")
        .hint(
            "as root: `usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER` and `apt-get "
            "install uidmap`; or build as root");
  return e;
}

}  // namespace

void build_image(const std::string& context, const std::string& dockerfile,
                 const std::vector<std::string>& insecure_registries, const ImageWork& work) {
  const std::string folder = real_path(context), file = real_path(dockerfile),
                    registries = work.folder + "/registries.conf", tag = "localhost/hutch-build";
  sys::write_file(registries, registries_config(insecure_registries), 0600);
  const auto buildah = [&](const std::vector<std::string>& words) {
    ImageTool tool{.program = "buildah", .arguments = {}, .work = work.folder, .grows = {work.folder}};
    // vfs works on any file system, and leaves no mounts.
    tool.arguments = {
        "--root", work.folder + "/storage", "--runroot", work.folder + "/run", "--storage-driver", "vfs"};
    tool.arguments.insert(tool.arguments.end(), words.begin(), words.end());
    tool.env = {"CONTAINERS_REGISTRIES_CONF=" + registries};
    tool.line = work.progress;
    tool.has_children = true;
    try {
      run_image_tool(std::move(tool), work.stage, work.data_folder, work.bounds);
    } catch (const Error& e) {
      throw explained_build(e);
    }
  };
  buildah(
      {"build", "--isolation", "chroot", "--format", "oci", "--layers=false", "-f", file, "-t", tag, folder});
  buildah({"push", tag, fmt::format("oci:{}:{}", work.layout(), kLayoutTag)});
}

void fetch_image(const ImageReference& reference, const std::vector<std::string>& insecure_registries,
                 const ImageWork& work) {
  std::vector<std::string> options;
  if (std::ranges::find(insecure_registries, reference.registry) != insecure_registries.end())
    options.push_back("--src-tls-verify=false");
  work.progress("asking " + reference.registry);
  try {
    skopeo_copy(options, "docker://" + reference.name(), work.layout(), work);
  } catch (Error& e) {
    Error cause = explained(e, reference.registry);
    throw cause.during("pulling " + reference.name());
  }
}

std::string layout_for_umoci(const ImageWork& work) {
  const std::string layout = work.folder + "/gzip";
  skopeo_copy({"--dest-compress-format", "gzip"}, fmt::format("oci:{}:{}", work.layout(), kLayoutTag), layout,
              work);
  return layout;
}

std::string copy_local_image(const std::string& path, const ImageWork& work) {
  const std::string real = real_path(path), source = work.folder + "/source";
  struct stat st {};
  if (::stat(real.c_str(), &st) != 0) throw sys_error(errno, "stat", real);
  // By a path of ours: in names that skopeo takes, a colon means something.
  if (S_ISDIR(st.st_mode) || (S_ISREG(st.st_mode) && !is_gzip(real))) {
    if (::symlink(real.c_str(), source.c_str()) != 0) throw sys_error(errno, "symlink", source);
  } else if (S_ISREG(st.st_mode)) {
    gunzip(real, source, work);
  } else {
    throw unknown_form(path);
  }
  const auto copy = [&](const char* form, const char* words) {
    work.progress(fmt::format("{} is {}", path, words));
    // Without it digests change; with it skopeo 1.9 calls plain layers of Docker's formats compressed.
    const bool docker = form == std::string_view("docker-archive");
    skopeo_copy(docker ? std::vector<std::string>{}
                       : std::vector<std::string>{"--dest-oci-accept-uncompressed-layers"},
                fmt::format("{}:{}", form, source), work.layout(), work);
    return std::string(words);
  };
  if (S_ISDIR(st.st_mode)) {
    if (!sys::exists(real + "/oci-layout")) throw unknown_form(path);
    return copy("oci", "an OCI layout");
  }
  const auto names = top_of_tar(source);
  if (names.empty()) throw unknown_form(path);
  if (names.contains("oci-layout")) return copy("oci-archive", "an archive of an OCI layout");
  if (names.contains("manifest.json")) return copy("docker-archive", "an archive of `docker save`");
  const std::string words = "a tar of a root file system";
  work.progress(fmt::format("{} is {}", path, words));
  layout_of_tar(source, work);
  return words;
}

}  // namespace hutch::sandbox
