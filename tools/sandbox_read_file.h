#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/sha256.h"
#include "sandbox/sandbox.h"
#include "tools/common.h"
#include "tools/encoding.h"

namespace hutch::tools {

struct SandboxReadFileArgs {
  std::string sandbox_id, path;
  std::vector<int64_t> line_range;
  std::string encoding = "auto";

  template <class V>
  void describe(V& v) {
    v.optional("sandbox_id", sandbox_id, kSandboxIdHelp);
    v.required("path", path, "Absolute, or relative to the working folder.", {.min = 1});
    v.optional("line_range", line_range, "[first, last] line from 1; -1 is the end (default: all).",
               {.max = 2});
    v.optional("encoding", encoding, "auto (default); text: also what is no valid UTF-8; base64: the bytes.",
               {.one_of = {"auto", "text", "base64"}});
  }
};

struct FileContent {
  std::string sandbox_id, path, content;
  int64_t size = 0, total_lines = 0;
  std::optional<int64_t> first_line, last_line;
  bool truncated = false;
  std::string encoding;
  std::optional<std::string> mime_type;
  std::string sha256;
  std::vector<std::string> notes;
  std::string image;  // base64; goes out as image content

  template <class V>
  void describe(V& v) {
    v.required("sandbox_id", sandbox_id, "Sandbox of the file.");
    v.required("path", path, "Absolute path.");
    v.required("content", content, "Lines, each with its number and a tab before it; or base64.");
    v.required("size", size, "Bytes of the whole file.");
    v.required("total_lines", total_lines, "Lines of the whole file.");
    v.optional("first_line", first_line, "Number of the first line in content.");
    v.optional("last_line", last_line, "Number of the last line in content.");
    v.required("truncated", truncated, "Whether lines were cut out of the middle, or the content left out.");
    v.required("encoding", encoding, "What content is.", {.one_of = {"text", "base64", "image", "none"}});
    v.optional("mime_type", mime_type, "Of an image.");
    v.required("sha256", sha256, "Of the whole file.");
    v.required("notes", notes, "What else there is to know.");
  }
};

/// The lines first..last of what is appended, as much of them as can be shown within `limit_bytes`; the rest
/// is only counted, so that memory stays bounded whatever the size of the file.
class LineWindow {
 public:
  LineWindow(int64_t first, int64_t last, size_t limit_bytes)
      : first_(first), last_(last), limit_(limit_bytes) {}

  void append(std::string_view bytes);

  uint64_t total_bytes() const noexcept { return total_bytes_; }
  int64_t total_lines() const noexcept { return line_ends_ + (total_bytes_ > 0 && before_ != '\n' ? 1 : 0); }
  /// Of the last line that is shown.
  int64_t last_line() const noexcept { return std::min(last_, total_lines()); }
  bool has_crlf_ends() const noexcept { return line_ends_ > 0 && crlf_ends_ == line_ends_; }
  bool ends_in_line() const noexcept { return total_bytes_ > 0 && before_ != '\n'; }

  /// The lines themselves as long as they fit into the limit, else nothing.
  std::optional<std::string> bytes() const;

  struct Shown {
    std::string text;
    bool truncated = false;
  };
  /// Each line as "N<TAB>line", valid UTF-8. What does not fit is cut between the first third and the last
  /// two, and a line there says which lines they are.
  Shown show() const;

 private:
  struct Part {
    std::string text;
    int64_t lines = 0;   // complete ones; with none, text is a piece of one
    uint64_t bytes = 0;  // of the file
  };
  void keep(std::string_view bytes);
  std::string_view tail() const;
  Shown show_cut(std::string_view head, std::string_view tail) const;
  Part front(std::string_view text, size_t limit) const;
  Part back(std::string_view text, size_t limit) const;
  std::string numbered(int64_t number, std::string_view line) const;

  int64_t first_, last_;
  size_t limit_;
  std::string head_, tail_;  // tail_ may grow to twice its part of the limit before it is trimmed
  uint64_t total_bytes_ = 0, kept_bytes_ = 0;
  int64_t line_ends_ = 0, crlf_ends_ = 0;
  char before_ = '\n';
};

/// Hands the content to `sink` piece by piece, from the I/O thread. Throws not_found with names that are
/// near, invalid_argument for a folder, limit_exceeded for more than `max_bytes`, each with what to do
/// instead.
sandbox::FileInfo read_content(sandbox::Sandbox& sandbox, const std::string& path, uint64_t max_bytes,
                               const std::function<void(std::string_view)>& sink,
                               const std::stop_token& stop);

/// Throws conflict with the present hash unless `wanted`, 12 or more digits, is its beginning; empty is no
/// wish.
void check_sha256(const std::string& wanted, const std::string& present, const std::string& path);
/// What of a hash is shown in a text, enough for if_sha256.
std::string short_sha256(const std::string& sha256);

/// The path as a word for a shell.
std::string shell_word(const std::string& path);

}  // namespace hutch::tools
