#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "base/process.h"
#include "base/sys.h"
#include "bench/machine.h"
#include "bench/made.h"
#include "bench/scenarios.h"

/// What sandboxes begin with, and what it takes to keep it: templates, images, volumes, forks.
namespace hutch::bench {

namespace {

constexpr double kPatienceS = 300;  // for what is written before anything is measured

double run_program(std::vector<std::string> argv) {
  argv[0] = find_program(argv[0]);
  return process_ms(argv, own_environment());
}

Operation creation(Made& made) {
  return {.run = [&made] { return made.create_one(); }, .finish = [&made] { made.destroy_all(); }};
}

Request save_template() {
  return Request::tool("sandbox_create_template", {{"name", "bench"}, {"overwrite", true}});
}

/// A shell command in the default sandbox.
void run_inside(McpClient& client, const std::string& command) {
  (void)client.call(Request::tool("sandbox_exec", {{"command", command}, {"timeout_s", kPatienceS}}),
                    "exit 0");
}

/// Makes a folder `change` with files of 1 MiB that nothing can compress.
std::string make_files(size_t mib) {
  return fmt::format("mkdir -p change && head -c {}M /dev/urandom | split -a 4 -b 1M - change/", mib);
}

Json measure_create_template(const Context& context) {
  McpClient client(context.cold_server());
  run_inside(client, make_files(8));
  (void)client.call(save_template());
  Made from_template(client, {{"template", "bench"}}), plain(client);
  return measure_in_turn({{"from a template", creation(from_template)}, {"without", creation(plain)}},
                         context.plan);
}

/// From a tar of an own root file system, which runs nothing.
void import_image(const Context& context, const std::string& name) {
  const std::string root = context.home + "/root", tar = context.home + "/root.tar";
  sys::make_dirs(root + "/usr/share/many", 0755);
  sys::make_dirs(root + "/etc", 0755);
  for (int i = 0; i < 1000; ++i)
    sys::write_file(fmt::format("{}/usr/share/many/{}", root, i), std::string(4096, 'x'));
  (void)run_program({"tar", "-C", root, "-cf", tar, "."});
  (void)process_ms({context.program, "image", "import", tar, "--name", name}, context.server().env);
}

Json measure_create_image(const Context& context) {
  for (const char* program : {"tar", "umoci"})
    if (find_program(program).empty()) return {{"missing", fmt::format("{} is not installed", program)}};
  import_image(context, "bench");
  McpClient client(context.cold_server());
  Made from_image(client, {{"image", "bench"}}), plain(client);
  return measure_in_turn({{"from an image", creation(from_image)}, {"without", creation(plain)}},
                         context.plan);
}

Json measure_create_volume(const Context& context) {
  McpClient client(context.server());
  Made with_volume(client, {{"volumes", {{{"name", "bench"}, {"target", "/data"}}}}}), plain(client);
  Json out =
      measure_in_turn({{"with a volume", creation(with_volume)}, {"without", creation(plain)}}, context.plan);
  out.update(with_volume.counts());
  return out;
}

/// Beside copies on the same file system.
Json measure_template(const Context& context) {
  constexpr size_t kMiB = 200;
  const std::string folder = context.home + "/copied";
  sys::make_dirs(folder, 0755);
  const auto by_shell = [&](const std::string& command) {
    return run_program({"sh", "-c", fmt::format("cd '{}' && {}", folder, command)});
  };
  (void)by_shell(make_files(kMiB));
  McpClient client(context.cold_server());
  run_inside(client, make_files(kMiB));
  const Request save = save_template();
  const auto copy = [&](const char* command) {
    return Operation{.run = [&by_shell, command] { return by_shell(command); },
                     .finish = [&by_shell] { (void)by_shell("rm -r copy"); }};
  };
  Json out = measure_in_turn(
      {{"the template", {.run = [&] { return client.exchange(save); }, .finish = [&] { client.check(); }}},
       {"cp -a and sync", copy("cp -a change copy && sync copy/* copy")},
       {"cp -a", copy("cp -a change copy")}},
      few(context.plan));
  out["what"] =
      fmt::format("sandbox_create_template of a change of {} MiB ({})", kMiB, file_system_of(context.home));
  sys::remove_tree(folder);
  return out;
}

Json measure_fork(const Context& context, size_t count) {
  const size_t mib = context.plan.spaced_n < Plan{}.spaced_n ? 200 : 1024;
  // Nine disks that are promised, whatever the host's has.
  McpClient client(context.server({"POOL__MAX=0", "LIMITS__DISK_OVERCOMMIT=20"}));
  const std::string parent =
      sandbox_id_of(client.call(create_request({{"memory", "64m"}, {"name", "parent"}})));
  (void)client.call(
      Request::tool("sandbox_exec",
                    {{"sandbox_id", parent}, {"command", make_files(mib)}, {"timeout_s", kPatienceS}}),
      "exit 0");
  const Request fork =
      Request::tool("sandbox_fork", {{"sandbox_id", parent}, {"name", "fork"}, {"count", count}});
  Operation operation;
  operation.run = [&] { return client.exchange(fork); };
  operation.finish = [&] {
    client.check();
    for (size_t i = 1; i <= count; ++i)
      (void)client.call(destroy_request(count == 1 ? "fork" : fmt::format("fork-{}", i)));
  };
  operation.batch = 1;
  Json out = measure(operation, few(context.plan));
  out["what"] =
      fmt::format("sandbox_fork, {} of a sandbox with {} MiB of files ({})",
                  count == 1 ? "a copy" : fmt::format("{} copies", count), mib, file_system_of(context.home));
  out["copies"] = count;
  out["shares_blocks"] = shares_blocks(context.home);
  return out;
}

}  // namespace

const std::vector<Scenario>& beginning_scenarios() {
  static const std::vector<Scenario> list = {
      {"from_template", "sandbox_create from a template, nothing prepared", measure_create_template},
      {"from_image", "sandbox_create from an image that is unpacked, nothing prepared", measure_create_image},
      {"with_volume", "sandbox_create with a volume, as a host finds it", measure_create_volume},
      {"template_200m", "sandbox_create_template of a change of 200 MiB", measure_template},
      {"fork", "sandbox_fork, a copy", [](const Context& c) { return measure_fork(c, 1); }},
      {"fork_8", "sandbox_fork, 8 copies", [](const Context& c) { return measure_fork(c, 8); }},
  };
  return list;
}

}  // namespace hutch::bench
