#include "tools/sandbox_edit_file.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/sha256.h"
#include "tools/encoding.h"
#include "tools/sandbox_read_file.h"
#include "tools/unified_diff.h"

namespace hutch::tools {

namespace {

constexpr uint64_t kEditMax = 32 << 20;  // is held in memory a few times over
constexpr size_t kDiffMax = 4000;

void check_arguments(const SandboxEditFileArgs& args) {
  const auto wrong = [](const char* what) {
    return Error(Errc::invalid_argument, what)
        .hint("either `edits` with old_str and new_str, or `insert_line` with `new_str`");
  };
  if (args.edits.empty() && !args.insert_line)
    throw wrong(args.new_str ? "'new_str' is given without 'insert_line'"
                             : "neither 'edits' nor 'insert_line' is given");
  if (!args.edits.empty() && (args.insert_line || args.new_str))
    throw wrong("'edits' does not go with 'insert_line' and 'new_str'");
  if (args.insert_line && !args.new_str) throw wrong("'insert_line' is given without 'new_str'");
}

sandbox::FileInfo read_before(sandbox::Sandbox& sandbox, const std::string& path, uint64_t max_bytes,
                              std::string& content, const std::stop_token& stop) {
  try {
    return read_content(
        sandbox, path, max_bytes, [&](std::string_view bytes) { content += bytes; }, stop);
  } catch (Error& error) {
    if (error.code() == Errc::limit_exceeded)
      error.hint("`sed -i` or a script in sandbox_exec can change it");
    throw;
  }
}

FileEdited run(const SandboxEditFileArgs& args, Services& services, mcp::CallContext& context) {
  check_arguments(args);
  const Target target = find_target(services, args.sandbox_id, context);
  sandbox::Sandbox& sandbox = *target.sandbox;
  const std::string path = sandbox.absolute(args.path);
  const uint64_t max_bytes = std::min(kEditMax, services.manager.config().limits.file_max.value);
  std::string before;
  const sandbox::FileInfo present = read_before(sandbox, args.path, max_bytes, before, context.stop());
  if (!args.if_sha256.empty()) check_sha256(args.if_sha256, sha256_hex(before), path);
  if (before.find('\0') != before.npos)
    throw Error(Errc::invalid_argument, fmt::format("{} is a binary file (it has NUL bytes)", path))
        .hint(
            "sandbox_write_file with `encoding: base64` replaces it; a program in sandbox_exec can change "
            "it");

  const Edited edited = during("editing " + path, [&] {
    return args.insert_line ? insert_lines(before, *args.insert_line, *args.new_str, max_bytes)
                            : apply_edits(before, args.edits, max_bytes);
  });
  FileEdited result{.sandbox_id = sandbox.id(), .path = path, .replacements = edited.replacements};
  result.sha256 = sha256_hex(edited.text);
  if (edited.text == before) {
    result.notes.push_back("The edits undo each other: the file is as it was.");
  } else {
    write_content(sandbox, args.path, edited.text, {.expected = &present.state}, context.stop());
    result.diff = unified_diff(path, before, edited.text, kDiffMax);
  }
  if (!target.note.empty()) result.notes.push_back(target.note);
  return result;
}

std::string text_of(const FileEdited& edited) {
  std::string text = fmt::format("edited {} · {} place{} changed · sha256 {} · {}\n", one_line(edited.path),
                                 edited.replacements, edited.replacements == 1 ? "" : "s",
                                 short_sha256(edited.sha256), edited.sandbox_id);
  text += edited.diff;
  for (const auto& note : edited.notes) add_line(text, note);
  while (text.ends_with('\n')) text.pop_back();
  return text;
}

}  // namespace

void add_sandbox_edit_file(mcp::ToolRegistry& registry, Services& services) {
  registry.add<SandboxEditFileArgs, FileEdited>(
      {.name = "sandbox_edit_file",
       .title = "Edit a file",
       .description = "Changes parts of a text file by exact replacement: each old_str must occur exactly "
                      "once (or set replace_all); copy it from sandbox_read_file without the line numbers. "
                      "All edits or none. Returns a diff, or the nearest lines when old_str is not there.",
       .toolset = "files",
       .lean = true},
      [&services](const SandboxEditFileArgs& args, mcp::CallContext& context) {
        return run(args, services, context);
      },
      [](const FileEdited& edited) { return mcp::Reply{text_of(edited)}; });
}

}  // namespace hutch::tools
