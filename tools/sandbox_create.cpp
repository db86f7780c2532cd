#include "tools/sandbox_create.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace hutch::tools {

SandboxView view_of(const sandbox::Description& about, std::string_view state) {
  SandboxView view;
  view.sandbox_id = about.id;
  if (!about.name.empty()) view.name = about.name;
  view.state = state;
  view.profile = about.profile;
  if (!about.base.template_name.empty()) view.template_name = about.base.template_name;
  if (!about.base.image.empty()) view.image = about.base.image;
  view.runtime = about.runtime;
  for (const auto& [name, item] : about.isolation)
    view.isolation.push_back({name, item.enforced, item.detail});
  view.limits = {.memory = {about.limits.memory_bytes},
                 .cpus = about.limits.cpus,
                 .pids = about.limits.pids,
                 .open_files = static_cast<int64_t>(about.limits.open_files),
                 .disk = {about.limits.disk_bytes},
                 .shm = {about.limits.shm_bytes}};
  view.workdir = about.workdir;
  view.user = about.user.empty() ? "root" : about.user;
  view.writable_paths = {"/"};
  for (const auto& volume : about.volumes)
    view.volumes.push_back(
        {volume.name, volume.target, volume.read_only, {volume.size_bytes}, volume.used_bytes});
  if (!about.user.empty()) view.writable_paths = {about.workdir, "/tmp", "/var/tmp", "/dev/shm"};
  if (about.has_end()) view.expires_at = iso_time(about.expires_at);
  view.idle_timeout_s = about.idle_timeout.count();
  view.warm = about.warm;
  view.create_ms = static_cast<double>(about.create_time.count()) / 1000;
  return view;
}

std::string text_of(const SandboxView& view) {
  std::string text =
      fmt::format("limits: memory {}, cpus {}, pids {}, disk {}, open files {}, /dev/shm {}\n",
                  to_string(view.limits.memory), view.limits.cpus, view.limits.pids,
                  to_string(view.limits.disk), view.limits.open_files, to_string(view.limits.shm));
  text += fmt::format(
      "works in {} as {} inside (no power outside); {} can be written\n", view.workdir, view.user,
      view.user == "root" ? "every path" : fmt::format("{}", fmt::join(view.writable_paths, ", ")));
  for (const auto& volume : view.volumes)
    text +=
        fmt::format("{} is the volume {} of {}{}{}\n", volume.target, volume.name, to_string(volume.size),
                    volume.used_bytes
                        ? fmt::format(", {} in use", size_in_words(static_cast<uint64_t>(*volume.used_bytes)))
                        : "",
                    volume.read_only ? ", read-only" : "");
  std::vector<std::string> held, open;
  for (const auto& item : view.isolation)
    (item.enforced ? held : open)
        .push_back(item.enforced ? item.name : fmt::format("{} ({})", item.name, item.detail));
  text += fmt::format("profile {}{}, runtime {}; enforced: {}\n", view.profile,
                      view.template_name ? fmt::format(", template {}", *view.template_name) : "",
                      view.runtime, fmt::join(held, ", "));
  if (!open.empty()) text += fmt::format("NOT enforced: {}\n", fmt::join(open, "; "));
  if (view.expires_at) text += fmt::format("ends at {}", *view.expires_at);
  if (view.idle_timeout_s > 0)
    text += fmt::format("{} {} s without use", view.expires_at ? ", or after" : "ends after",
                        view.idle_timeout_s);
  if (!text.ends_with('\n')) text += '\n';
  return text;
}

void add_sandbox_create(mcp::ToolRegistry& registry, Services& services) {
  registry.add<SandboxCreateArgs, SandboxView>(
      {.name = "sandbox_create",
       .title = "Create a sandbox",
       .description =
           "Makes an isolated Linux sandbox with the host's programs and none of its files. Calls without "
           "sandbox_id share a default one. Files live until sandbox_destroy, ttl_s, or 30 minutes without "
           "use.",
       .toolset = "core",
       .lean = true,
       .always_load = true},
      [&services](const SandboxCreateArgs& args, mcp::CallContext& context) {
        sandbox::CreateRequest request{.profile = args.profile,
                                       .name = args.name,
                                       .runtime = args.runtime,
                                       .workdir = args.workdir,
                                       .template_name = args.template_name,
                                       .image = args.image,
                                       .network = args.network};
        if (args.memory) request.memory_bytes = args.memory->value;
        request.cpus = args.cpus;
        request.pids = args.pids;
        if (args.disk) request.disk_bytes = args.disk->value;
        request.ttl_s = args.ttl_s;
        request.idle_timeout_s = args.idle_timeout_s;
        request.env = args.env;
        request.labels = args.labels;
        request.volumes = args.volumes;
        request.stop = context.stop();
        request.progress = progress_of(context);
        request.allow = args.allow;
        return view_of(services.manager.create(request)->about(), "running");
      },
      [](const SandboxView& view) {
        return mcp::Reply{fmt::format("created {}{} in {} ms{}\n{}", view.sandbox_id,
                                      view.name ? fmt::format(" ({})", *view.name) : "", view.create_ms,
                                      view.warm ? " (it was ready)" : "", text_of(view))};
      });
}

}  // namespace hutch::tools
