#include "sandbox/template_store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "base/log.h"
#include "base/sys.h"
#include "sandbox/admission.h"
#include "sandbox/base_json.h"

namespace hutch::sandbox {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(Template, name, description, parent, base, size_bytes,
                                                created_at, hutch_version)

namespace {

constexpr std::string_view kSuffix = ".json";

std::string folder_of(const std::string& home) {
  return home + "/templates";
}

std::string path_of(const std::string& home, const std::string& name) {
  return fmt::format("{}/{}{}", folder_of(home), name, kSuffix);
}

void sync_file(const std::string& path) {
  if (::fsync(sys::open(path, O_RDONLY).get()) != 0) throw sys_error(errno, "sync", path);
}

}  // namespace

std::string to_json_text(const Template& value) {
  return nlohmann::json(value).dump(2, ' ', true, nlohmann::json::error_handler_t::replace) + "\n";
}

Template template_from_json(const std::string& text) {
  try {
    return nlohmann::json::parse(text).get<Template>();
  } catch (const nlohmann::json::exception& e) {
    throw Error(Errc::invalid_argument, fmt::format("the template's manifest cannot be read: {}", e.what()));
  }
}

std::vector<Template> TemplateStore::list() const {
  std::vector<Template> out;
  std::error_code gone;
  for (const auto& entry : std::filesystem::directory_iterator(folder_of(home_), gone)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with('.') || !name.ends_with(kSuffix)) continue;
    try {
      out.push_back(template_from_json(sys::read_file(entry.path().string())));
    } catch (const Error& e) {
      log::warning("template {} is left out: {}", name, e.what());
    }
  }
  std::ranges::sort(out, {}, &Template::name);
  return out;
}

Template TemplateStore::find(const std::string& name) const {
  check_name(name, "template");
  try {
    return template_from_json(sys::read_file(path_of(home_, name)));
  } catch (const Error& e) {
    if (e.code() != Errc::not_found) throw;
  }
  std::vector<std::string> names;
  for (const auto& one : list()) names.push_back(one.name);
  throw Error(Errc::not_found, fmt::format("there is no template '{}'", name))
      .hint(names.empty() ? "make one with sandbox_create_template"
                          : fmt::format("there are {}", fmt::join(names, ", ")));
}

void TemplateStore::check_free(const std::string& name, bool overwrite) const {
  if (overwrite || !sys::exists(path_of(home_, name))) return;
  throw Error(Errc::conflict, fmt::format("a template named '{}' exists", name))
      .hint("take another name, or replace it with `overwrite: true`");
}

void TemplateStore::add(const Template& added, bool overwrite) const {
  check_name(added.name, "template");
  sys::make_dirs(folder_of(home_), 0700);
  const UniqueFd turn = sys::lock_folder(folder_of(home_));
  const std::string path = path_of(home_, added.name);
  check_free(added.name, overwrite);
  const std::string unfinished = fmt::format("{}/.{}", folder_of(home_), sys::random_hex(6));
  try {
    sys::write_file(unfinished, to_json_text(added), 0600);
    sync_file(unfinished);
    if (::rename(unfinished.c_str(), path.c_str()) != 0) throw sys_error(errno, "rename", path);
  } catch (...) {
    ::unlink(unfinished.c_str());
    throw;
  }
  sync_file(folder_of(home_));
}

void TemplateStore::remove(const std::string& name) const {
  const UniqueFd turn = sys::lock_folder(folder_of(home_));
  if (::unlink(path_of(home_, name).c_str()) != 0 && errno != ENOENT)
    throw sys_error(errno, "unlink", path_of(home_, name));
}

}  // namespace hutch::sandbox
