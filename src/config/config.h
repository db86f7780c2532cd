#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "schema/describe.h"

/// All settings. Add one here and nowhere else: the loader, `hutch config`, the JSON Schema in schemas/ and
/// the table in README.md are made from describe().
namespace hutch::config {

/// What a sandbox gets when neither the call nor its profile says otherwise.
struct SandboxDefaults {
  Bytes memory = gib(1);
  double cpus = 2;
  int64_t pids = 512;
  int64_t open_files = 65536;
  Bytes disk = gib(2);
  Bytes shm = mib(64);
  int64_t ttl_s = 0;
  int64_t idle_timeout_s = 1800;
  int64_t pause_after_s = 0;
  int64_t orphan_ttl_s = 600;
  int64_t exec_timeout_s = 120;
  int64_t exec_yield_s = 55;
  int64_t background_keeps_alive_s = 86'400;
  int64_t output_limit = 10'000;
  int64_t read_limit = 30'000;

  template <class V>
  void describe(V& v) {
    v.optional("memory", memory, "Memory of a sandbox; no swap.", {.min = 16 << 20});
    v.optional("cpus", cpus, "Processors, at most those of the host.", {.min = 0.05, .max = 1024});
    v.optional("pids", pids, "Processes and threads.", {.min = 8, .max = 4'194'304});
    v.optional("open_files", open_files, "Open files of one process, at most the host's hard limit.",
               {.min = 64, .max = 1'048'576});
    v.optional("disk", disk, "Disk that its files may take; a write past it gets ENOSPC inside.",
               {.min = 16 << 20});
    v.optional("shm", shm, "Size of /dev/shm.");
    v.optional("ttl_s", ttl_s, "Seconds after which a sandbox ends whatever it does; 0: never.", {.min = 0});
    v.optional("idle_timeout_s", idle_timeout_s, "Seconds without use after which it ends; 0: never.",
               {.min = 0});
    v.optional(
        "pause_after_s", pause_after_s,
        "Seconds without use after which its processes are frozen until the next call; 0: never. Nothing "
        "that runs a command is.",
        {.min = 0});
    v.optional("orphan_ttl_s", orphan_ttl_s, "Seconds that it lives on without a server.", {.min = 1});
    v.optional("exec_timeout_s", exec_timeout_s,
               "Seconds that a command may run unless the call says otherwise.", {.min = 1, .max = 3600});
    v.optional("exec_yield_s", exec_yield_s,
               "Seconds after which a command goes on in the background unless the call says otherwise.",
               {.min = 1, .max = 3600});
    v.optional("background_keeps_alive_s", background_keeps_alive_s,
               "Seconds for which a background process keeps its sandbox from being idle.", {.min = 0});
    v.optional("output_limit", output_limit, "Characters of output in one result.",
               {.min = 200, .max = 1'000'000});
    v.optional("read_limit", read_limit, "Characters of a file in one result.",
               {.min = 200, .max = 1'000'000});
  }
};

/// What one caller can cost at most.
struct Limits {
  Bytes message_max = mib(16);
  int64_t json_depth = 100;
  int64_t pending_requests = 256;
  int64_t worker_threads = 64;
  int64_t max_sandboxes = 64;
  double memory_overcommit = 4;
  double disk_overcommit = 2;
  Bytes disk_reserve = gib(2);
  double disk_reserve_percent = 5;
  Bytes sandbox_memory, sandbox_disk;
  double sandbox_cpus = 0;
  int64_t sandbox_pids = 32'768;
  Bytes file_max = mib(256);
  Bytes log_max = mib(64);
  Bytes logs_max = mib(256);

  template <class V>
  void describe(V& v) {
    v.optional("message_max", message_max, "Length of one protocol message.", {.min = 4096, .max = 1 << 30});
    v.optional("json_depth", json_depth, "Nesting of one protocol message.", {.min = 8, .max = 1000});
    v.optional("pending_requests", pending_requests, "Calls that run or wait at once.",
               {.min = 1, .max = 65'536});
    v.optional("worker_threads", worker_threads, "Calls that run at once.", {.min = 1, .max = 1024});
    v.optional("max_sandboxes", max_sandboxes,
               "Sandboxes that exist at once, those of all servers on the data folder together.",
               {.min = 1, .max = 4096});
    v.optional("memory_overcommit", memory_overcommit,
               "How many times the host's memory all sandboxes' limits may add up to.",
               {.min = 0.1, .max = 10});
    v.optional("disk_overcommit", disk_overcommit,
               "How many times the free disk their unwritten limits may add up to.",
               {.min = 0.1, .max = 100});
    v.optional("disk_reserve", disk_reserve,
               "Free disk at which sandboxes can write no more and none is made; this or "
               "`disk_reserve_percent`, whichever is more.");
    v.optional("disk_reserve_percent", disk_reserve_percent, "The same as a part of the disk.",
               {.min = 0, .max = 90});
    v.optional("sandbox_memory", sandbox_memory,
               "The most memory that a caller may ask for one sandbox; 0: the host's.");
    v.optional("sandbox_disk", sandbox_disk, "The most disk; 0: the size of the host's.");
    v.optional("sandbox_cpus", sandbox_cpus, "The most processors; 0: the host's.", {.min = 0, .max = 1024});
    v.optional("sandbox_pids", sandbox_pids, "The most processes.", {.min = 8, .max = 4'194'304});
    v.optional("file_max", file_max, "Largest file that a tool reads or writes.", {.min = 4096});
    v.optional("log_max", log_max, "Output kept of one command.", {.min = 4096});
    v.optional("logs_max", logs_max, "Output kept of all commands of a sandbox.", {.min = 4096});
  }
};

/// Sandboxes that are built before they are asked for.
struct Pool {
  int64_t min = 1;
  int64_t max = 4;
  int64_t cooldown_s = 60;
  std::vector<std::string> interpreters;

  template <class V>
  void describe(V& v) {
    v.optional("min", min, "Sandboxes of a kind that are kept ready without demand.",
               {.min = 0, .max = 1000});
    v.optional("max", max, "Sandboxes of a kind that are kept ready at most; 0: no pool.",
               {.min = 0, .max = 1000});
    v.optional(
        "interpreters", interpreters,
        "Interpreters that are started in each of them, for the first session of sandbox_eval; each costs "
        "its memory (python about 10 MB, javascript about 40 MB).",
        {.one_of = {"python", "javascript"}});
    v.optional("cooldown_s", cooldown_s, "Seconds after which a peak of demand is forgotten.",
               {.min = 1, .max = 86'400});
  }
};

/// When a level of memory pressure begins and when it is over.
struct PressureEdges {
  double enter = 0, leave = 0, psi = 0;

  template <class V>
  void describe(V& v) {
    v.optional("enter", enter, "It begins when less memory than this is available, in percent.",
               {.min = 0, .max = 100});
    v.optional("leave", leave, "It is over when so much is available again.", {.min = 0, .max = 100});
    v.optional("psi", psi,
               "It also begins, from the level below, when tasks wait for memory for this part of the time, "
               "in percent of ten seconds; over at half of it.",
               {.min = 0.1, .max = 101});
  }
};

/// What happens when the host, or the memory group that the server is in, runs out of memory.
struct Pressure {
  bool enabled = true;
  PressureEdges warning{20, 25, 10}, high{12, 16, 20}, critical{6, 9, 40}, emergency{3, 5, 60};
  int64_t min_stay_s = 10;
  int64_t interval_ms = 1000;
  Bytes floor = mib(32);

  template <class V>
  void describe(V& v) {
    v.optional("enabled", enabled, "Whether anything is done.");
    v.optional("warning", warning, "Warm sandboxes are given up.");
    v.optional("high", high, "Running sandboxes are throttled.");
    v.optional("critical", critical, "No sandbox is made, idle ones are frozen until their next call.");
    v.optional("emergency", emergency, "The least valuable sandbox is ended, one after the other.");
    v.optional("min_stay_s", min_stay_s, "Seconds that a level lasts at least.", {.min = 0, .max = 3600});
    v.optional("interval_ms", interval_ms, "Milliseconds between two looks, while there is any sandbox.",
               {.min = 10, .max = 60'000});
    v.optional("floor", floor, "Memory that a sandbox is left at least, unless it asked for less.",
               {.min = 4 << 20});
  }
};

/// Root file systems from registries and archives.
struct Images {
  std::string pull = "missing";
  Bytes max_size = gib(16);
  int64_t pull_timeout_s = 1800;
  std::vector<std::string> insecure_registries;

  template <class V>
  void describe(V& v) {
    v.optional("pull", pull,
               "`missing`: an image that is not here is pulled when it is first asked for; `never`: by "
               "`hutch image` alone.",
               {.one_of = {"missing", "never"}});
    v.optional("max_size", max_size, "What one image may take, unpacked; also what of it is pulled.",
               {.min = 16 << 20});
    v.optional("pull_timeout_s", pull_timeout_s, "Seconds after which a pull or an import is given up.",
               {.min = 1, .max = 86'400});
    v.optional("insecure_registries", insecure_registries,
               "Registries, HOST or HOST:PORT, that are spoken to without TLS or whose certificate is not "
               "checked.");
  }
};

/// Ways from the host's loopback into sandboxes.
struct Ports {
  int64_t shared_port = 0;
  int64_t max_connections = 1024;
  bool other_users = false;

  template <class V>
  void describe(V& v) {
    v.optional("shared_port", shared_port,
               "Port of 127.0.0.1 on which `sandbox_port_url` serves the ports of all sandboxes; 0: any free "
               "one.",
               {.min = 0, .max = 65'535});
    v.optional("max_connections", max_connections, "Connections to that one at once.",
               {.min = 1, .max = 100'000});
    v.optional(
        "other_users", other_users,
        "Whether other users of this host than the server's own, and root, may connect to the listeners "
        "of `sandbox_expose_port`, which have no token.");
  }
};

/// What filtered sandboxes reach of the outside, and how.
struct Egress {
  std::map<std::string, std::vector<std::string>> presets;
  std::string callers_may_allow = "public";
  std::string upstream_proxy = "auto", ca_file;
  int64_t connect_timeout_s = 10;
  int64_t max_connections = 256;
  Bytes bandwidth, max_bytes;

  template <class V>
  void describe(V& v) {
    v.optional("presets", presets,
               "Lists of rules under a name that `allow` can take; there are pypi, npm, github, debian and "
               "others.");
    v.optional("callers_may_allow", callers_may_allow,
               "What calls, and answers to questions, can add to what the profile lets a sandbox reach: "
               "`public` addresses, `none`, or `all`, which is also to choose the network `full`.",
               {.one_of = {"none", "public", "all"}});
    v.optional("upstream_proxy", upstream_proxy,
               "The proxy that this host must use: http://[USER:PASSWORD@]HOST:PORT, `none`, or `auto`: "
               "HTTPS_PROXY and NO_PROXY of the server's environment. Behind one names decide alone, and "
               "addresses are its business.");
    v.optional("ca_file", ca_file,
               "File (PEM) with certificate authorities that are trusted besides the host's, where TLS is "
               "ended for a secret.");
    v.optional("connect_timeout_s", connect_timeout_s, "Seconds for a connection to be made.",
               {.min = 1, .max = 300});
    v.optional("max_connections", max_connections, "Connections of one sandbox at once.",
               {.min = 1, .max = 1024});
    v.optional("bandwidth", bandwidth, "Bytes a second of one sandbox, both ways together; 0: no limit.");
    v.optional("max_bytes", max_bytes, "Bytes of one sandbox in all; 0: no limit.");
  }
};

struct Oci {
  std::string runtime = "auto";

  template <class V>
  void describe(V& v) {
    v.optional(
        "runtime", runtime,
        "`auto` (crun, else runc), `crun`, `runc`, `runsc` (gVisor), or the absolute path of an OCI runtime "
        "with their arguments.");
  }
};

/// Folders that outlive sandboxes.
struct Volumes {
  Bytes default_size = gib(10);
  int64_t max = 64;

  template <class V>
  void describe(V& v) {
    v.optional("default_size", default_size, "Size of a volume that is made by its first use.",
               {.min = 16 << 20});
    v.optional("max", max, "Volumes that exist at most.", {.min = 0, .max = 100'000});
  }
};

/// One of them as a sandbox sees it.
struct VolumeUse {
  std::string name, target;
  bool read_only = false;

  template <class V>
  void describe(V& v) {
    v.required("name", name, "");
    v.required("target", target, "");
    v.optional("read_only", read_only, "");
  }
};

/// Something that code in a sandbox may use and never sees: inside there is only a placeholder for it.
struct Secret {
  std::string env, file;
  std::vector<std::string> command, hosts;
  std::string form = "bearer", header, parameter;
  bool in_body = false;

  template <class V>
  void describe(V& v) {
    v.optional("env", env, "Variable of the server's environment that holds it.");
    v.optional("file", file, "File that holds it; `~/` is the home folder.");
    v.optional("command", command,
               "Program and arguments that print it, within ten seconds; run when it is first needed.");
    v.required(
        "hosts", hosts,
        "Where it may go, over TLS alone: `api.example.org`, `*.example.org`, each with `:PORT` unless "
        "that is 443.",
        {.min = 1});
    v.optional("form", form,
               "Where its placeholder is replaced: `bearer`, in the header Authorization; `basic`, the same "
               "with a name and a password; `header`, in the one that `header` names; `query`, in "
               "`parameter` of the URL.",
               {.one_of = {"bearer", "basic", "header", "query"}});
    v.optional("header", header, "For the form `header`: its name, such as X-Api-Key.");
    v.optional("parameter", parameter, "For the form `query`: its name.");
    v.optional("in_body", in_body, "Also in bodies of requests, up to 1 MiB.");
  }
};

/// A named kind of sandbox. What is left out is taken from `sandbox`.
struct Profile {
  /// Whether its sandboxes begin with anything but the host's programs.
  bool has_own_base() const noexcept { return !image.empty() || !template_name.empty() || !setup.empty(); }

  std::string description;
  std::string runtime = "auto";
  std::optional<Bytes> memory;
  std::optional<double> cpus;
  std::optional<int64_t> pids, open_files;
  std::optional<Bytes> disk, shm;
  std::map<std::string, std::string> env;
  std::string workdir = "/workspace";
  std::string user;
  std::vector<std::string> host_paths;
  std::vector<VolumeUse> volumes;
  std::string image, template_name;
  std::vector<std::string> setup;
  int64_t setup_timeout_s = 1800;
  std::string storage = "disk";
  std::string network = "filtered";
  std::vector<std::string> allow;
  std::vector<std::string> secrets;
  std::optional<int64_t> ttl_s, idle_timeout_s, pause_after_s;

  template <class V>
  void describe(V& v) {
    v.optional("description", description, "For the model: when to take this profile.", {.max = 500});
    v.optional("runtime", runtime,
               "What isolates the sandbox: one of those of `oci.runtime`; `auto` is the one there.");
    v.optional("memory", memory, "Memory; no swap.", {.min = 16 << 20});
    v.optional("cpus", cpus, "Processors, at most those of the host.", {.min = 0.05, .max = 1024});
    v.optional("pids", pids, "Processes and threads.", {.min = 8, .max = 4'194'304});
    v.optional("open_files", open_files, "Open files of one process.", {.min = 64, .max = 1'048'576});
    v.optional("disk", disk, "Disk that its files may take.", {.min = 16 << 20});
    v.optional("shm", shm, "Size of /dev/shm.");
    v.optional("env", env, "Environment variables of every command.");
    v.optional("workdir", workdir, "Folder in which commands start.");
    v.optional(
        "user", user,
        "Who commands run as: a name of the sandbox's /etc/passwd or a number, `user` or `user:group`; left "
        "out: root.",
        {.max = 128});
    v.optional("host_paths", host_paths,
               "Host folders that are visible inside, read-only; `~/` is the home folder.");
    v.optional("volumes", volumes, "Volumes of every sandbox.");
    v.optional("image", image,
               "The image that its root file system is, such as python:3.12; left out: the host's programs.",
               {.max = 500});
    v.optional("template", template_name, "The template that its sandboxes are made from.", {.max = 64});
    v.optional("setup", setup,
               "Shell commands that are run once, in order, when the profile is first used; its sandboxes "
               "begin with what they have written (`hutch run --profile NAME -- true` does it ahead). Run "
               "again when they, the image or template below, or "
               "`user`, `env`, `workdir` or `host_paths` change. What they made is removed when it was not "
               "used for 30 days, when its image or template is removed, or by `hutch template rm` (`ls "
               "--all` shows it). A call that asks for an `image` or `template` begins with that alone.");
    v.optional("setup_timeout_s", setup_timeout_s, "Seconds that all setup commands have together.",
               {.min = 1, .max = 86'400});
    v.optional("storage", storage,
               "Where the files lie that a sandbox writes: `disk`, or `memory`, which counts as its memory "
               "and is gone when its server is killed.",
               {.one_of = {"disk", "memory"}});
    v.optional("network", network,
               "What sandboxes can reach: `none`, `filtered` (the hosts in `allow`, at first none, through a "
               "proxy) or `full` (every public address, and of the others those in `allow`).",
               {.one_of = {"none", "filtered", "full"}});
    v.optional("allow", allow,
               "With `filtered`: hosts, such as `pypi.org`, `*.github.com`, `host:port` or 10.1.0.0/16. With "
               "`full`: private addresses and networks, such as 10.1.0.0/16.");
    v.optional("secrets", secrets, "Secrets that its commands may use, by their names in `secrets`.");
    v.optional("ttl_s", ttl_s, "Seconds after which a sandbox ends; 0: never.", {.min = 0});
    v.optional("idle_timeout_s", idle_timeout_s, "Seconds without use after which it ends; 0: never.",
               {.min = 0});
    v.optional("pause_after_s", pause_after_s,
               "Seconds without use after which it is frozen until the next call; 0: never.", {.min = 0});
  }
};

struct Config {
  std::string home;
  std::string results = "text";
  std::vector<std::string> toolsets = {"core", "files", "ports", "templates"};
  std::string log_level = "warning";
  std::string on_exit = "end";
  std::string default_profile = "default";
  SandboxDefaults sandbox;
  Limits limits;
  Pool pool;
  Pressure pressure;
  Volumes volumes;
  Images images;
  Ports ports;
  Egress egress;
  Oci oci;
  std::map<std::string, Secret> secrets;
  std::map<std::string, Profile> profiles = {{"default", {}}};

  template <class V>
  void describe(V& v) {
    v.optional("home", home,
               "Data folder. Left out: /var/lib/hutch for root, otherwise $XDG_DATA_HOME/hutch "
               "(~/.local/share/hutch).");
    v.optional("results", results,
               "What a tool returns: text for the model, or structured content besides it.",
               {.one_of = {"text", "structured"}});
    v.optional("toolsets", toolsets, "Groups of tools that are offered.", {.min = 1});
    v.optional("log_level", log_level, "What is written to stderr.",
               {.one_of = {"error", "warning", "info", "debug"}});
    v.optional(
        "on_exit", on_exit,
        "What becomes of the sandboxes when the server ends: `end` removes them, `keep` leaves them to the "
        "next server, for `sandbox.orphan_ttl_s`.",
        {.one_of = {"end", "keep"}});
    v.optional("default_profile", default_profile, "Profile of a sandbox whose creator names none.");
    v.optional("sandbox", sandbox, "What every sandbox gets unless its profile or the call says otherwise.");
    v.optional("limits", limits, "What callers can cost at most.");
    v.optional("pool", pool, "Warm sandboxes, ready before they are asked for.");
    v.optional("pressure", pressure, "What is done when the host runs out of memory.");
    v.optional("volumes", volumes, "Folders that outlive sandboxes and that several can share.");
    v.optional("images", images, "Root file systems from registries and archives.");
    v.optional("ports", ports, "Ways from the host's loopback into sandboxes.");
    v.optional("egress", egress, "What filtered sandboxes reach of the outside, and how.");
    v.optional("oci", oci, "OCI runtimes.");
    v.optional("secrets", secrets,
               "Secrets by name. A sandbox whose profile lists one has a variable of that name, with a "
               "placeholder that is replaced on the way to the secret's hosts.");
    v.optional("profiles", profiles, "Named kinds of sandboxes. `default` always exists.");
  }
};

/// What isolates the profile's sandboxes, by name, path or `auto`.
const std::string& runtime_of(const Config& config, const Profile& profile);

/// Who commands of the profile run as; empty = root, however it says that.
std::string user_of(const Profile& profile);

/// `sandbox` with what the profile overrides. Throws Error(not_found) that names the profiles there are.
SandboxDefaults settings_of(const Config& config, const std::string& profile);

}  // namespace hutch::config
