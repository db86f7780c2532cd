#include "tools/sandbox_write_file.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include "base/sha256.h"
#include "tools/encoding.h"
#include "tools/sandbox_read_file.h"
#include "tools/text_edit.h"
#include "tools/text_lines.h"

namespace hutch::tools {

namespace {

/// What one pass over a file finds out.
struct Summary {
  sandbox::FileInfo info;
  int64_t lines = 0;
  std::string sha256;
};

Summary summary_of(sandbox::Sandbox& sandbox, const std::string& path, uint64_t max_bytes,
                   const std::stop_token& stop) {
  Sha256 hash;
  LineWindow window(1, 0, 0);  // counts lines and keeps none
  Summary summary;
  summary.info = read_content(
      sandbox, path, max_bytes,
      [&](std::string_view bytes) {
        hash.update(bytes);
        window.append(bytes);
      },
      stop);
  summary.lines = window.total_lines();
  summary.sha256 = hash.hex();
  return summary;
}

/// The state in which the file has the wanted hash: it must still be in it when the new content takes its
/// place.
wire::FileState check_present(sandbox::Sandbox& sandbox, const SandboxWriteFileArgs& args, uint64_t max_bytes,
                              const std::stop_token& stop) {
  const std::string path = sandbox.absolute(args.path);
  try {
    const Summary present = summary_of(sandbox, args.path, max_bytes, stop);
    check_sha256(args.if_sha256, present.sha256, path);
    return present.info.state;
  } catch (const Error& error) {
    if (error.code() != Errc::not_found || !sandbox.running()) throw;
    throw Error(Errc::conflict, fmt::format("{} does not exist, but 'if_sha256' is given", path))
        .hint("leave out `if_sha256` to make the file");
  }
}

void note_whole_file(sandbox::Sandbox& sandbox, const SandboxWriteFileArgs& args, uint64_t max_bytes,
                     const std::stop_token& stop, FileWritten& written) {
  try {
    Summary whole = summary_of(sandbox, args.path, max_bytes, stop);
    written.total_lines = whole.lines;
    written.sha256 = std::move(whole.sha256);
  } catch (const Error& error) {
    written.notes.push_back(fmt::format("It was written, but could not be read back: {}", error.what()));
  }
}

FileWritten run(const SandboxWriteFileArgs& args, Services& services, mcp::CallContext& context) {
  if (args.mode == "create_new" && !args.if_sha256.empty())
    throw Error(Errc::invalid_argument,
                "'if_sha256' does not go with mode create_new, which expects that there is no file")
        .hint("`mode: overwrite` with `if_sha256`, or `mode: create_new` without");
  const std::string decoded =
      args.encoding == "base64" ? base64_decode(args.content, "content") : std::string();
  const std::string& content = args.encoding == "base64" ? decoded : args.content;
  const uint64_t max_bytes = services.manager.config().limits.file_max.value;
  if (content.size() > max_bytes)
    throw Error(
        Errc::limit_exceeded,
        fmt::format("'content' has {} bytes, more than the {} of limits.file_max", content.size(), max_bytes))
        .hint("several calls with `mode: append`, or a program in sandbox_exec");

  const Target target = find_target(services, args.sandbox_id, context);
  sandbox::Sandbox& sandbox = *target.sandbox;
  sandbox::WriteOptions options{.append = args.mode == "append", .create_new = args.mode == "create_new"};
  options.executable = args.executable;
  wire::FileState expected;
  if (!args.if_sha256.empty()) {
    expected = check_present(sandbox, args, max_bytes, context.stop());
    options.expected = &expected;
  }
  const sandbox::FileInfo info = write_content(sandbox, args.path, content, options, context.stop());

  FileWritten written{.sandbox_id = sandbox.id(), .path = sandbox.absolute(args.path), .mode = args.mode};
  written.bytes_written = static_cast<int64_t>(content.size());
  written.created = info.created;
  if (options.append && !info.created) {
    note_whole_file(sandbox, args, max_bytes, context.stop(), written);
  } else {
    written.total_lines = count_lines(content);
    written.sha256 = sha256_hex(content);
  }
  if (content.starts_with("#!") && (info.mode & S_IXUSR) == 0)
    written.notes.push_back("It begins with #! but is not executable: `executable: true` makes it so.");
  if (!target.note.empty()) written.notes.push_back(target.note);
  return written;
}

std::string text_of(const FileWritten& written) {
  const std::string size = size_in_words(static_cast<uint64_t>(written.bytes_written));
  std::string text = written.created ? fmt::format("created {} · {}", one_line(written.path), size)
                     : written.mode == "append"
                         ? fmt::format("appended {} to {}", size, one_line(written.path))
                         : fmt::format("replaced {} · {}", one_line(written.path), size);
  if (written.total_lines)
    text += fmt::format(" · {} line{}", *written.total_lines, *written.total_lines == 1 ? "" : "s");
  if (written.sha256) text += fmt::format(" · sha256 {}", short_sha256(*written.sha256));
  text += fmt::format(" · {}", written.sandbox_id);
  for (const auto& note : written.notes) text += "\n" + note;
  return text;
}

}  // namespace

sandbox::FileInfo write_content(sandbox::Sandbox& sandbox, const std::string& path, std::string_view content,
                                const sandbox::WriteOptions& options, const std::stop_token& stop) {
  try {
    return sandbox.write_file(path, content, options, stop);
  } catch (Error& error) {
    // Any other content since it was read: the agent compares inode, size and times right before the
    // replacement.
    if (error.os_error() == ESTALE)
      throw Error(Errc::conflict,
                  fmt::format("{} was changed by something else meanwhile; nothing was written",
                              sandbox.absolute(path)))
          .hint("read it again with sandbox_read_file and base the change on what is there now");
    if (error.os_error() == EEXIST)
      error.hint("`mode: overwrite` replaces it; sandbox_read_file shows what is in it");
    if (error.os_error() == EISDIR) error.hint("that is a folder: `path` must name a file in it");
    if (error.os_error() == ENOTDIR)
      error.hint("a part of the `path` is a file, not a folder: sandbox_list_files shows which");
    if (error.os_error() == EROFS)
      error.hint("that place is read-only; `/workspace` and `/tmp` can be written");
    if (error.os_error() == ENOSPC || error.os_error() == EDQUOT)
      error.hint(
          "the sandbox's disk is full: remove files with sandbox_exec, or take a new one from "
          "sandbox_create");
    throw;
  }
}

void add_sandbox_write_file(mcp::ToolRegistry& registry, Services& services) {
  registry.add<SandboxWriteFileArgs, FileWritten>(
      {.name = "sandbox_write_file",
       .title = "Write a file",
       .description = "Writes a whole file in a sandbox; folders on the way are made. An existing file is "
                      "replaced at once and keeps mode and owner. With if_sha256 nothing is written when it "
                      "has changed since it was read.",
       .toolset = "files",
       .lean = true},
      [&services](const SandboxWriteFileArgs& args, mcp::CallContext& context) {
        return run(args, services, context);
      },
      [](const FileWritten& written) { return mcp::Reply{text_of(written)}; });
}

}  // namespace hutch::tools
