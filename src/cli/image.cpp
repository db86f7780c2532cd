#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/print.h"
#include "sandbox/bases.h"

namespace hutch::cli {

namespace {

using nlohmann::ordered_json;
using sandbox::Image;

/// The part of a digest by which people tell images apart.
std::string short_digest(const std::string& digest) {
  return digest.substr(std::string_view("sha256:").size(), 12);
}

std::string size_in_words(uint64_t bytes) {
  return bytes < 10u << 20 ? fmt::format("{:.1f} MB", static_cast<double>(bytes) / (1 << 20))
                           : fmt::format("{} MB", bytes >> 20);
}

ordered_json described(const Image& image) {
  ordered_json out{{"digest", image.digest},
                   {"names", image.names},
                   {"layer", image.layer},
                   {"size_bytes", image.size_bytes},
                   {"created_at", image.created_at},
                   {"architecture", image.architecture},
                   {"user", image.user},
                   {"workdir", image.workdir},
                   {"env", image.env}};
  return out;
}

int show_image(const Options& options, const Image& image) {
  if (options.json) {
    fmt::print("{}\n", described(image).dump(2, ' ', false, ordered_json::error_handler_t::replace));
    return 0;
  }
  for (const auto& name : image.names) fmt::print("{}\n", sandbox::short_image_name(name));
  fmt::print("{} ({})\n", image.digest, size_in_words(image.size_bytes));
  return 0;
}

int show_removed(const Options& options, const sandbox::ImageStore::Removed& removed) {
  if (options.json) {
    fmt::print("{}\n", ordered_json{{"names", removed.names},
                                    {"digests", removed.digests},
                                    {"freed_bytes", removed.freed_bytes}}
                           .dump(2));
    return 0;
  }
  for (const auto& name : removed.names) fmt::print("removed the name {}\n", sandbox::short_image_name(name));
  for (const auto& digest : removed.digests) fmt::print("removed {}\n", digest);
  fmt::print("freed {}\n", size_in_words(removed.freed_bytes));
  return 0;
}

int list_images(const Options& options, const sandbox::ImageStore& store) {
  ordered_json report = ordered_json::array();
  std::vector<std::vector<std::string>> rows{{"IMAGE", "DIGEST", "SIZE", "HERE SINCE"}};
  for (const Image& image : store.list()) {
    report.push_back(described(image));
    const std::vector<std::string> about{
        short_digest(image.digest), size_in_words(image.size_bytes),
        time_in_words(std::max<int64_t>(0, ::time(nullptr) - image.created_at))};
    for (const auto& name : image.names.empty() ? std::vector<std::string>{"-"} : image.names)
      rows.push_back({sandbox::short_image_name(name), about[0], about[1], about[2]});
  }
  if (options.json)
    fmt::print("{}\n",
               ordered_json{{"images", report}}.dump(2, ' ', false, ordered_json::error_handler_t::replace));
  else
    fmt::print("{}", report.empty() ? "there is no image: hutch image pull NAME\n" : columns(rows));
  return 0;
}

const std::string& only_word(const Options& options, const char* what) {
  if (options.words.size() != 2)
    throw Error(Errc::invalid_argument, fmt::format("{} one {}", options.words[0], what))
        .hint("usage: `hutch image --help`");
  return options.words[1];
}

}  // namespace

int image(const Options& options) {
  const config::LoadedConfig settings = load_settings(options);
  sandbox::Bases bases(settings.config);
  sandbox::ImageStore& store = bases.images();
  const auto users_of = [&](const std::string& layer) { return bases.users_of(layer); };
  const auto removed = [&](sandbox::ImageStore::Removed what) {
    what.freed_bytes += bases.collect();
    return show_removed(options, what);
  };
  const auto progress = [](std::string_view line) { fmt::print(stderr, "{}\n", line); };
  const std::string verb = options.words.empty() ? "" : options.words[0];
  if (verb == "pull")
    return show_image(options, store.pull(only_word(options, "image"), options.force, progress, {}));
  if (verb == "import") {
    if (!options.name)
      throw Error(Errc::invalid_argument, "the image needs a name")
          .hint("hutch image import PATH --name NAME");
    return show_image(options, store.import(only_word(options, "path"), *options.name, progress, {}));
  }
  if (verb == "build") {
    if (!options.name)
      throw Error(Errc::invalid_argument, "the image needs a name")
          .hint("hutch image build DIR --name NAME [--file DOCKERFILE]");
    const std::string& context = only_word(options, "folder");
    return show_image(options, store.build(context, options.dockerfile.value_or(context + "/Dockerfile"),
                                           *options.name, progress, {}));
  }
  if (verb == "ls") return list_images(options, store);
  if (verb == "rm") return removed(store.remove(only_word(options, "image"), users_of));
  if (verb == "gc") return removed(store.collect(users_of));
  throw Error(Errc::invalid_argument, fmt::format("there is no `hutch image {}`", verb))
      .hint("hutch image pull, import, build, ls, rm or gc");
}

}  // namespace hutch::cli
