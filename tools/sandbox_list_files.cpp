#include "tools/sandbox_list_files.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "tools/encoding.h"
#include "tools/glob.h"

namespace hutch::tools {

namespace {

constexpr int64_t kDeepest = 20;

std::string type_of(uint32_t mode) {
  switch (mode & S_IFMT) {
    case S_IFREG:
      return "file";
    case S_IFDIR:
      return "dir";
    case S_IFLNK:
      return "symlink";
    case S_IFIFO:
      return "fifo";
    case S_IFSOCK:
      return "socket";
    default:
      return "device";
  }
}

/// As `ls -l` has it.
char letter_of(const std::string& type) {
  if (type == "file") return '-';
  if (type == "symlink") return 'l';
  if (type == "device") return 'c';
  return type == "fifo" ? 'p' : type.front();
}

ListedFile listed(const sandbox::FileEntry& entry) {
  // The sandbox chooses its times: only those which the clock's nanoseconds can hold are shown as they are.
  constexpr int64_t kFarthest = 9'223'372'036;
  ListedFile file{.path = entry.path, .type = type_of(entry.mode)};
  file.size = static_cast<int64_t>(std::min<uint64_t>(entry.size, INT64_MAX));
  file.mode = fmt::format("{:04o}", entry.mode & 07777);
  file.mtime = iso_time(sandbox::WallClock::from_time_t(std::clamp(entry.mtime_s, -kFarthest, kFarthest)));
  if (file.type == "symlink") file.target = entry.target;
  return file;
}

uint32_t depth_of(const SandboxListFilesArgs& args, const Glob& glob) {
  if (args.depth) return static_cast<uint32_t>(*args.depth);
  return static_cast<uint32_t>(
      glob.depth() == 0 ? kDeepest : std::min<int64_t>(static_cast<int64_t>(glob.depth()), kDeepest));
}

void add_hint(Error& error) {
  if (error.os_error() == ENOTDIR) error.hint("that is a file: sandbox_read_file reads it");
  if (error.os_error() == ENOENT)
    error.hint("sandbox_list_files without `path` shows the working folder, with `path: /` the top one");
  if (error.code() == Errc::timeout) error.hint("a smaller `depth` or a `path` further down takes less time");
}

FileListing run(const SandboxListFilesArgs& args, Services& services, mcp::CallContext& context) {
  const Glob glob(args.glob);
  const Target target = find_target(services, args.sandbox_id, context);
  FileListing listing{.sandbox_id = target.sandbox->id(), .path = target.sandbox->absolute(args.path)};
  const auto limit = static_cast<size_t>(args.limit);
  const uint32_t depth = depth_of(args, glob);
  const auto visit = [&](const sandbox::FileEntry& entry) {
    if (!glob.matches(entry.path)) return true;
    listing.truncated = listing.entries.size() == limit;
    if (!listing.truncated) listing.entries.push_back(listed(entry));
    return !listing.truncated;
  };
  try {
    target.sandbox->list_files(args.path, depth, visit, context.stop());
  } catch (Error& error) {
    add_hint(error);
    throw;
  }
  if (listing.truncated)
    listing.notes.push_back(fmt::format(
        "There are more than {}: narrow it with `path`, `glob`{} or raise `limit` (at most 10000).", limit,
        depth > 1 ? ", a smaller `depth`" : ""));
  if (listing.entries.empty())
    listing.notes.push_back(args.glob.empty()
                                ? "The folder is empty."
                                : fmt::format("Nothing matches {} within {} level{}.", one_line(args.glob),
                                              depth, depth == 1 ? "; `depth` goes further down" : "s"));
  if (!target.note.empty()) listing.notes.push_back(target.note);
  return listing;
}

}  // namespace

std::string text_of(const FileListing& listing) {
  const size_t count = listing.entries.size();
  std::string text =
      fmt::format("{} · {}{} entr{} · {}\n", one_line(listing.path), listing.truncated ? "first " : "", count,
                  count == 1 ? "y" : "ies", listing.sandbox_id);
  const auto size_of = [](const ListedFile& file) {
    return file.type == "file" ? size_in_words(static_cast<uint64_t>(file.size)) : std::string();
  };
  size_t width = 0;
  for (const auto& file : listing.entries) width = std::max(width, size_of(file).size());
  for (const auto& file : listing.entries)
    text += fmt::format("{} {:>{}} {}{}{}\n", letter_of(file.type), size_of(file), width, one_line(file.path),
                        file.type == "dir" ? "/" : "", file.target ? " -> " + one_line(*file.target) : "");
  for (const auto& note : listing.notes) add_line(text, note);
  while (text.ends_with('\n')) text.pop_back();
  return text;
}

void add_sandbox_list_files(mcp::ToolRegistry& registry, Services& services) {
  registry.add<SandboxListFilesArgs, FileListing>(
      {.name = "sandbox_list_files",
       .title = "List files",
       .description = "Lists a folder of a sandbox, or finds files by a glob: *.py in this folder, **/*.py "
                      "in all below. One line an entry: type (- file, d folder, l link), size, path. What "
                      "files contain is found with grep in sandbox_exec.",
       .toolset = "files",
       .lean = true,
       .read_only = true,
       .idempotent = true},
      [&services](const SandboxListFilesArgs& args, mcp::CallContext& context) {
        return run(args, services, context);
      },
      [](const FileListing& listing) { return mcp::Reply{text_of(listing)}; });
}

}  // namespace hutch::tools
