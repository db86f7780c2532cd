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

constexpr std::string_view kSuffix = ".json", kNewPrefix = ".new-";

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
  for (const auto& entry : std::filesystem::directory_iterator(folder_, gone)) {
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

std::optional<Template> TemplateStore::find_if_exists(const std::string& name) const {
  check_name(name, "template");
  try {
    return template_from_json(sys::read_file(file_of(name)));
  } catch (const Error& e) {
    if (e.code() != Errc::not_found) throw;
  }
  return std::nullopt;
}

Template TemplateStore::find(const std::string& name) const {
  if (auto found = find_if_exists(name)) return std::move(*found);
  std::vector<std::string> names;
  for (const auto& one : list()) names.push_back(one.name);
  throw Error(Errc::not_found, fmt::format("there is no template '{}'", name))
      .hint(names.empty() ? "make one with sandbox_create_template"
                          : fmt::format("there are {}", fmt::join(names, ", ")));
}

void TemplateStore::check_free(const std::string& name, bool overwrite) const {
  if (overwrite || !sys::exists(file_of(name))) return;
  throw Error(Errc::conflict, fmt::format("a template named '{}' exists", name))
      .hint("take another name, or replace it with `overwrite: true`");
}

void TemplateStore::add(const Template& added, bool overwrite) const {
  check_name(added.name, "template");
  sys::make_dirs(folder_, 0700);
  const UniqueFd turn = sys::lock_folder(folder_);
  const std::string path = file_of(added.name);
  check_free(added.name, overwrite);
  for (const auto& name : sys::list_folder(folder_))
    if (name.starts_with(kNewPrefix)) (void)::unlink((folder_ + "/" + name).c_str());  // its maker is dead
  const std::string unfinished = fmt::format("{}/{}{}", folder_, kNewPrefix, sys::random_hex(6));
  try {
    sys::write_file(unfinished, to_json_text(added), 0600);
    sync_file(unfinished);
    if (::rename(unfinished.c_str(), path.c_str()) != 0) throw sys_error(errno, "rename", path);
  } catch (...) {
    ::unlink(unfinished.c_str());
    throw;
  }
  sync_file(folder_);
}

void TemplateStore::remove(const std::string& name) const {
  const UniqueFd turn = sys::lock_folder(folder_);
  if (::unlink(file_of(name).c_str()) != 0 && errno != ENOENT)
    throw sys_error(errno, "unlink", file_of(name));
}

}  // namespace hutch::sandbox
