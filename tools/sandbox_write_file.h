#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tools/common.h"

namespace hutch::tools {

struct SandboxWriteFileArgs {
  std::string sandbox_id, path, content;
  std::string mode = "overwrite", encoding = "text";
  bool executable = false;
  std::string if_sha256;

  template <class V>
  void describe(V& v) {
    v.optional("sandbox_id", sandbox_id, kSandboxIdHelp);
    v.required("path", path, "Absolute, or relative to the working folder.", {.min = 1});
    v.required("content", content, "The content.");
    v.optional("mode", mode, "overwrite (default), append, or create_new, which fails when it exists.",
               {.one_of = {"overwrite", "append", "create_new"}});
    v.optional("encoding", encoding, "Of content (default text).", {.one_of = {"text", "base64"}});
    v.optional("executable", executable, "Make it executable (default false).");
    v.optional("if_sha256", if_sha256, kIfSha256Help);
  }

  static constexpr const char* kIfSha256Help = "Only when it still has this SHA-256 (12 digits are enough).";
};

struct FileWritten {
  std::string sandbox_id, path;
  int64_t bytes_written = 0;
  std::optional<int64_t> total_lines;
  std::optional<std::string> sha256;
  bool created = false;
  std::vector<std::string> notes;
  std::string mode;

  template <class V>
  void describe(V& v) {
    v.required("sandbox_id", sandbox_id, "Sandbox of the file.");
    v.required("path", path, "Absolute path.");
    v.required("bytes_written", bytes_written, "Bytes of content.");
    v.optional("total_lines", total_lines, "Lines of the whole file.");
    v.optional("sha256", sha256, "Of the whole file.");
    v.required("created", created, "Whether there was none before.");
    v.required("notes", notes, "What else there is to know.");
  }
};

/// As Sandbox::write_file; its errors say what to do. Throws conflict when the file is not as
/// `options.expected`.
sandbox::FileInfo write_content(sandbox::Sandbox& sandbox, const std::string& path, std::string_view content,
                                const sandbox::WriteOptions& options, const std::stop_token& stop);

}  // namespace hutch::tools
