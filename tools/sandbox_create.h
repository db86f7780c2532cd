#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "mcp/tool.h"
#include "sandbox/sandbox.h"
#include "tools/common.h"

namespace hutch::tools {

struct SandboxCreateArgs {
  std::string profile, name, runtime, template_name, image;
  std::optional<Bytes> memory;
  std::optional<double> cpus;
  std::optional<int64_t> pids;
  std::optional<Bytes> disk;
  std::string network;
  std::vector<std::string> allow;
  std::map<std::string, std::string> env;
  std::string workdir;
  std::vector<config::VolumeUse> volumes;
  std::optional<int64_t> ttl_s, idle_timeout_s;
  std::map<std::string, std::string> labels;

  template <class V>
  void describe(V& v) {
    v.optional("profile", profile, "A name.");
    v.optional("template", template_name, "Its name.");
    v.optional("image", image, "Such as python:3.12.");
    v.optional("name", name, "Usable as sandbox_id.");
    v.optional("runtime", runtime, "runsc: gVisor.");
    v.optional("memory", memory, "Default 1g.", {.min = 16 << 20});
    v.optional("cpus", cpus, "Default 2.", {.min = 0.05});
    v.optional("pids", pids, "Default 512.", {.min = 8});
    v.optional("disk", disk, "Default 2g.", {.min = 16 << 20});
    v.optional("network", network, "Or filtered.", {.one_of = {"none", "filtered", "full"}});
    v.optional("allow", allow, "Such as *.x.org, pypi, npm.", {.max = 256});
    v.optional("env", env, "Environment.");
    v.optional("workdir", workdir, "Default /workspace.");
    v.optional("volumes", volumes, "Kept.");
    v.optional("ttl_s", ttl_s, "Seconds to live.", {.min = 0, .max = 31'536'000});
    v.optional("idle_timeout_s", idle_timeout_s, "Without use (default 1800).",
               {.min = 0, .max = 31'536'000});
    v.optional("labels", labels, "For sandbox_list.", {.max = 64});
  }
};

/// One line of what is enforced.
struct IsolationItem {
  std::string name;
  bool enforced = false;
  std::string detail;

  template <class V>
  void describe(V& v) {
    v.required("name", name, "What it is about.");
    v.required("enforced", enforced, "Whether it holds.");
    v.required("detail", detail, "Its value, or why it does not hold.");
  }
};

struct LimitsView {
  Bytes memory;
  double cpus = 0;
  int64_t pids = 0, open_files = 0;
  Bytes disk, shm;

  template <class V>
  void describe(V& v) {
    v.required("memory", memory, "Memory; no swap.");
    v.required("cpus", cpus, "Processors.");
    v.required("pids", pids, "Processes and threads.");
    v.required("open_files", open_files, "Open files of one process.");
    v.required("disk", disk, "Disk of its files.");
    v.required("shm", shm, "Size of /dev/shm.");
  }
};

struct VolumeView {
  std::string name, target;
  bool read_only = false;
  Bytes size;
  std::optional<int64_t> used_bytes;

  template <class V>
  void describe(V& v) {
    v.required("name", name, "Its name.");
    v.required("target", target, "Where it is inside.");
    v.required("read_only", read_only, "Whether it can only be read here.");
    v.required("size", size, "What its files may take.");
    v.optional("used_bytes", used_bytes, "What they take.");
  }
};

/// A sandbox as its caller sees it; shared by sandbox_create and sandbox_info.
struct SandboxView {
  std::string sandbox_id;
  std::optional<std::string> name;
  std::string state, profile, runtime;
  std::optional<std::string> template_name, image;
  std::vector<IsolationItem> isolation;
  LimitsView limits;
  std::string workdir, user;
  std::vector<std::string> writable_paths;
  std::vector<VolumeView> volumes;
  std::optional<std::string> expires_at;
  int64_t idle_timeout_s = 0;
  bool warm = false;
  double create_ms = 0;

  template <class V>
  void describe(V& v) {
    v.required("sandbox_id", sandbox_id, "Its id.");
    v.optional("name", name, "Its name, when it has one.");
    v.required("state", state, "Whether it runs.", {.one_of = {"running", "paused", "ended"}});
    v.required("profile", profile, "Kind of sandbox.");
    v.optional("template", template_name, "What it was made from.");
    v.optional("image", image, "Its root file system, when that is not the host's.");
    v.required("runtime", runtime, "What isolates it.");
    v.required("isolation", isolation, "What is enforced, and what is not.");
    v.required("limits", limits, "Its limits.");
    v.required("workdir", workdir, "Folder in which commands start.");
    v.required("user", user, "User inside; without any power outside.");
    v.required("writable_paths", writable_paths,
               "Where files can be written; all of it but volumes is gone with the sandbox.");
    v.optional("volumes", volumes, "Folders in it that outlive it.");
    v.optional("expires_at", expires_at, "When it ends whatever it does (UTC).");
    v.required("idle_timeout_s", idle_timeout_s, "Seconds without use after which it ends; 0: never.");
    v.required("warm", warm, "Whether it was ready before it was asked for.");
    v.required("create_ms", create_ms, "How long its creation took.");
  }
};

SandboxView view_of(const sandbox::Description& about, std::string_view state);
/// The lines that sandbox_create and sandbox_info share.
std::string text_of(const SandboxView& view);

}  // namespace hutch::tools
