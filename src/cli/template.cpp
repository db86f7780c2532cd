#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>

#include "base/sys.h"
#include "cli/commands.h"
#include "cli/print.h"
#include "sandbox/admission.h"
#include "sandbox/bases.h"
#include "sandbox/template_archive.h"

namespace hutch::cli {

namespace {

using nlohmann::json;
using sandbox::Bases;
using sandbox::Template;

/// A line on a terminal that is written again and again.
class Progress {
 public:
  explicit Progress(const char* what) : what_(what), shown_(::isatty(STDERR_FILENO) == 1) {}
  ~Progress() {
    if (last_ > 0) fmt::print(stderr, "\r\033[K");
  }
  void operator()(uint64_t bytes) {
    constexpr uint64_t kStep = 16u << 20;
    if (!shown_ || bytes < last_ + kStep) return;
    last_ = bytes;
    fmt::print(stderr, "\r{} {} MiB", what_, bytes >> 20);
  }

 private:
  const char* what_;
  bool shown_;
  uint64_t last_ = 0;
};

json described(const Template& one) {
  return {{"name", one.name},
          {"description", one.description},
          {"parent", one.parent},
          {"image", one.base.image},
          {"layers", one.base.layers},
          {"size_bytes", one.size_bytes},
          {"created_at", one.created_at},
          {"hutch_version", one.hutch_version}};
}

/// `all`: also what setup commands have made.
int list_templates(Bases& bases, bool all, bool as_json) {
  std::vector<Template> found = bases.templates().list();
  if (all) std::ranges::move(bases.setups().list(), std::back_inserter(found));
  json report = json::array();
  std::vector<std::vector<std::string>> rows{{"NAME", "MIB", "LAYERS", "CREATED", "PARENT"}};
  for (const Template& one : found) {
    report.push_back(described(one));
    rows.push_back({one.name, std::to_string(one.size_bytes >> 20), std::to_string(one.base.layers.size()),
                    fmt::format("{:%Y-%m-%d %H:%M}", fmt::localtime(one.created_at)),
                    one.parent.empty() ? "-" : one.parent});
  }
  if (as_json)
    fmt::print("{}\n", json{{"templates", report}}.dump(2));
  else
    fmt::print("{}", rows.size() == 1 ? "there is no template\n" : columns(rows));
  return 0;
}

int remove_templates(Bases& bases, const std::vector<std::string>& names, bool as_json) {
  for (const auto& name : names) {
    const bool is_setup = !bases.templates().find_if_exists(name) && bases.setups().has(name);
    if (is_setup) continue;  // whoever has it keeps its files, and the next one makes it anew
    const Template one = bases.templates().find(name);
    if (one.base.layers.empty()) continue;
    if (const auto users = bases.users_of(one.base.layers.back()); !users.empty())
      throw Error(Errc::conflict, fmt::format("template '{}' is in use by {}", name, fmt::join(users, ", ")))
          .hint("hutch rm ends sandboxes, hutch template rm removes templates that build on it");
  }
  for (const auto& name : names) {
    if (bases.templates().find_if_exists(name))
      bases.templates().remove(name);
    else
      bases.setups().remove(name);
    if (!as_json) fmt::print("removed {}\n", name);
  }
  (void)bases.collect();
  if (as_json) fmt::print("{}\n", json{{"removed", names}}.dump(2));
  return 0;
}

int export_one(Bases& bases, const std::vector<std::string>& words, bool as_json) {
  const Template one = bases.templates().find(words[0]);
  const std::string& path = words[1];
  const bool to_pipe = path == "-";
  if (to_pipe && ::isatty(STDOUT_FILENO) == 1)
    throw Error(Errc::invalid_argument, "an archive is nothing for a terminal")
        .hint("hutch template export NAME FILE, or `| ssh HOST hutch template import -`");
  sandbox::ExportedTemplate done;
  {
    Progress progress("exported");
    done = to_pipe ? sandbox::export_template(bases.layers(), one, STDOUT_FILENO, std::ref(progress))
                   : sandbox::export_template_file(bases.layers(), one, path, std::ref(progress));
  }
  if (done.left_out > 0) fmt::print(stderr, "{} devices are left out\n", done.left_out);
  if (to_pipe) return 0;
  if (as_json)
    fmt::print("{}\n",
               json{{"template", one.name}, {"bytes", done.bytes}, {"left_out", done.left_out}}.dump(2));
  else
    fmt::print("exported {} to {}\n", one.name, path);
  return 0;
}

int import_one(Bases& bases, const config::Config& config, const Options& options) {
  (void)bases.collect();  // what an import that was killed has left takes room
  const std::string& path = options.words[1];
  const UniqueFd file = path == "-" ? UniqueFd() : sys::open(path, O_RDONLY);
  sandbox::ImportedTemplate done;
  {
    Progress progress("imported");
    done = during("importing " + path, [&] {
      return sandbox::import_template(bases.layers(), bases.templates(), file ? file.get() : STDIN_FILENO,
                                      options.name.value_or(""), options.overwrite,
                                      sandbox::DiskGuard(config.home, config.limits), std::ref(progress));
    });
  }
  if (options.overwrite) (void)bases.collect();
  if (options.json) {
    json report = described(done.made);
    report["owners_lost"] = done.owners_lost;
    report["attributes_dropped"] = done.attributes_dropped;
    fmt::print("{}\n", report.dump(2));
    return 0;
  }
  fmt::print("imported {}, {} MiB\n", done.made.name, done.made.size_bytes >> 20);
  if (done.owners_lost > 0)
    fmt::print(
        "{} files had other owners and belong to root inside: only a server that is root can keep them\n",
        done.owners_lost);
  if (done.attributes_dropped > 0)
    fmt::print("{} extended attributes are dropped that no template may have\n", done.attributes_dropped);
  return 0;
}

/// Its own layer is the image's files.
int build_one(Bases& bases, const std::string& folder, const Options& options) {
  if (!options.name)
    throw Error(Errc::invalid_argument, "the template needs a name")
        .hint("hutch template build --name NAME [-f DOCKERFILE] DIR");
  sandbox::check_name(*options.name, "template");
  bases.templates().check_free(*options.name, options.overwrite);
  (void)bases.collect();  // what a build that was killed has left takes room
  const auto progress = [](std::string_view line) { fmt::print(stderr, "{}\n", line); };
  const auto built =
      bases.images().build_loose(folder, options.dockerfile.value_or(folder + "/Dockerfile"), progress, {});
  Template made{.name = *options.name,
                .description = "",
                .parent = "",
                .base = built.image.base(),
                .size_bytes = built.image.size_bytes,
                .created_at = built.image.created_at,
                .hutch_version = version()};
  made.base.template_name = made.name;
  bases.templates().add(made, options.overwrite);
  if (options.overwrite) (void)bases.collect();
  if (options.json)
    fmt::print("{}\n", described(made).dump(2));
  else
    fmt::print("built {}, {} MiB\n", made.name, made.size_bytes >> 20);
  return 0;
}

}  // namespace

int templates(const Options& options) {
  const auto& words = options.words;
  const std::string verb = words.empty() ? "" : words[0];
  const std::vector<std::string> rest(words.begin() + (words.empty() ? 0 : 1), words.end());
  const config::Config config = load_settings(options).config;
  Bases bases(config);
  ::signal(SIGPIPE, SIG_IGN);
  if (verb == "ls" && rest.empty()) return list_templates(bases, options.all, options.json);
  if (verb == "rm" && !rest.empty()) return remove_templates(bases, rest, options.json);
  if (verb == "export" && rest.size() == 2) return export_one(bases, rest, options.json);
  if (verb == "import" && rest.size() == 1) return import_one(bases, config, options);
  if (verb == "build" && rest.size() == 1) return build_one(bases, rest[0], options);
  throw Error(Errc::invalid_argument,
              "hutch template ls, rm NAME..., export NAME FILE, import FILE or build --name NAME DIR")
      .hint("hutch template --help");
}

}  // namespace hutch::cli
