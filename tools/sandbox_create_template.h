#pragma once

#include "tools/common.h"

namespace hutch::tools {

struct SandboxCreateTemplateArgs {
  std::string sandbox_id, name, description;
  bool overwrite = false;

  template <class V>
  void describe(V& v) {
    v.optional("sandbox_id", sandbox_id, kSandboxIdHelp);
    v.required("name", name, "For `template` of sandbox_create.", {.max = 64});
    v.optional("description", description, "What it is for, as sandbox_list_templates shows it.",
               {.max = 500});
    v.optional("overwrite", overwrite, "Replace one of that name (default false).");
  }
};

struct SandboxCreateTemplateResult {
  std::string template_name, sandbox_id;
  int64_t size_bytes = 0, layers = 0;
  std::optional<std::string> parent;
  double create_ms = 0;

  template <class V>
  void describe(V& v) {
    v.required("template", template_name, "Its name.");
    v.required("sandbox_id", sandbox_id, "The sandbox that it was made from, which goes on.");
    v.required("size_bytes", size_bytes, "Disk that it takes: what differs from its parent.");
    v.required("layers", layers, "Layers that it is made of, those of its parents included.");
    v.optional("parent", parent, "The template that the sandbox was made from.");
    v.required("create_ms", create_ms, "How long it took.");
  }
};

}  // namespace hutch::tools
