#pragma once

#include "tools/common.h"

namespace hutch::tools {

struct SandboxListArgs {
  std::string state = "running";
  std::map<std::string, std::string> label;

  template <class V>
  void describe(V& v) {
    v.optional("state", state, "Which ones (default running, with those that are paused).",
               {.one_of = {"running", "paused", "ended", "all"}});
    v.optional("label", label, "Only those that have all of these labels.");
  }
};

struct SandboxListEntry {
  std::string sandbox_id;
  std::optional<std::string> name;
  std::string state, profile, created_at;
  std::optional<std::string> template_name;
  std::optional<std::string> last_used_at, expires_at, cause;
  std::optional<int64_t> memory_bytes;
  std::map<std::string, std::string> labels;

  template <class V>
  void describe(V& v) {
    v.required("sandbox_id", sandbox_id, "Its id.");
    v.optional("name", name, "Its name, when it has one.");
    v.required("state", state, "Whether it runs.", {.one_of = {"running", "paused", "ended"}});
    v.required("profile", profile, "Kind of sandbox.");
    v.optional("template", template_name, "What it was made from.");
    v.required("created_at", created_at, "When it was made (UTC).");
    v.optional("last_used_at", last_used_at, "When it was used last (UTC).");
    v.optional("expires_at", expires_at, "When it ends whatever it does (UTC).");
    v.optional("memory_bytes", memory_bytes, "Memory in use.");
    v.required("labels", labels, "Its labels.");
    v.optional("cause", cause, "Why it ended.");
  }
};

struct SandboxListResult {
  std::vector<SandboxListEntry> sandboxes;

  template <class V>
  void describe(V& v) {
    v.required("sandboxes", sandboxes, "The sandboxes of this server.");
  }
};

}  // namespace hutch::tools
