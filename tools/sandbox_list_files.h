#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tools/common.h"

namespace hutch::tools {

struct SandboxListFilesArgs {
  std::string sandbox_id, path;
  std::optional<int64_t> depth;
  std::string glob;
  int64_t limit = 200;

  template <class V>
  void describe(V& v) {
    v.optional("sandbox_id", sandbox_id, kSandboxIdHelp);
    v.optional("path", path, "Folder to list (default: the working folder).");
    v.optional("depth", depth, "Levels to go down (default 1, or what glob asks for).",
               {.min = 1, .max = 20});
    v.optional("glob", glob, "Only paths that match, such as *.py or src/**/*.{h,cpp}.");
    v.optional("limit", limit, "Entries to return (default 200).", {.min = 1, .max = 10'000});
  }
};

struct ListedFile {
  std::string path, type;
  int64_t size = 0;
  std::string mode, mtime;
  std::optional<std::string> target;

  template <class V>
  void describe(V& v) {
    v.required("path", path, "Relative to the listed folder.");
    v.required("type", type, "What it is.",
               {.one_of = {"file", "dir", "symlink", "fifo", "socket", "device"}});
    v.required("size", size, "Bytes.");
    v.required("mode", mode, "Permissions, such as 0644.");
    v.required("mtime", mtime, "When it was last changed.");
    v.optional("target", target, "Where a symbolic link leads.");
  }
};

struct FileListing {
  std::string sandbox_id, path;
  std::vector<ListedFile> entries;
  bool truncated = false;
  std::vector<std::string> notes;

  template <class V>
  void describe(V& v) {
    v.required("sandbox_id", sandbox_id, "Sandbox of the folder.");
    v.required("path", path, "Absolute path of the folder.");
    v.required("entries", entries, "Sorted by name within each folder.");
    v.required("truncated", truncated, "Whether there are more.");
    v.required("notes", notes, "What else there is to know.");
  }
};

/// One line an entry: type, size, path; a folder with a slash, a link with its target.
std::string text_of(const FileListing& listing);

}  // namespace hutch::tools
