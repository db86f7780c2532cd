#pragma once

#include "tools/common.h"

namespace hutch::tools {

struct SandboxListTemplatesArgs {
  template <class V>
  void describe(V&) {}
};

struct TemplateView {
  std::string name, description, created_at;
  int64_t size_bytes = 0;
  std::optional<std::string> parent;
  std::vector<std::string> in_use;

  template <class V>
  void describe(V& v) {
    v.required("name", name, "For `template` of sandbox_create.");
    v.required("description", description, "What it is for.");
    v.required("size_bytes", size_bytes, "Disk that it takes, without its parent.");
    v.required("created_at", created_at, "When it was made (UTC).");
    v.optional("parent", parent, "The template that it builds on.");
    v.required("in_use", in_use,
               "Sandboxes and templates that need it; it can be deleted when there are none.");
  }
};

struct SandboxListTemplatesResult {
  std::vector<TemplateView> templates;

  template <class V>
  void describe(V& v) {
    v.required("templates", templates, "All templates, by name.");
  }
};

}  // namespace hutch::tools
