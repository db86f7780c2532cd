#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tools/common.h"
#include "tools/sandbox_write_file.h"
#include "tools/text_edit.h"

namespace hutch::tools {

struct SandboxEditFileArgs {
  std::string sandbox_id, path;
  std::vector<Edit> edits;
  std::optional<int64_t> insert_line;
  std::optional<std::string> new_str;
  std::string if_sha256;

  template <class V>
  void describe(V& v) {
    v.optional("sandbox_id", sandbox_id, kSandboxIdHelp);
    v.required("path", path, "Absolute, or relative to the working folder.", {.min = 1});
    v.optional("edits", edits, "Replacements; all of them or none.", {.max = 1000});
    v.optional("insert_line", insert_line, "Instead of edits: insert new_str behind this line.", {.min = 0});
    v.optional("new_str", new_str, "Lines to insert, with insert_line.");
    v.optional("if_sha256", if_sha256, SandboxWriteFileArgs::kIfSha256Help);
  }
};

struct FileEdited {
  std::string sandbox_id, path;
  int64_t replacements = 0;
  std::string diff, sha256;
  std::vector<std::string> notes;

  template <class V>
  void describe(V& v) {
    v.required("sandbox_id", sandbox_id, "Sandbox of the file.");
    v.required("path", path, "Absolute path.");
    v.required("replacements", replacements, "How many places were changed.");
    v.required("diff", diff, "Unified diff of the change; a long one is cut.");
    v.required("sha256", sha256, "Of the whole file, as it is now.");
    v.required("notes", notes, "What else there is to know.");
  }
};

}  // namespace hutch::tools
