#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

/// Changes to a text, without a sandbox.
namespace hutch::tools {

struct Edit {
  std::string old_str, new_str;
  bool replace_all = false;

  template <class V>
  void describe(V& v) {
    v.required("old_str", old_str, "Exact text; must occur once.");
    v.required("new_str", new_str, "Its replacement.");
    v.optional("replace_all", replace_all, "All occurrences (default false).");
  }
};

struct Edited {
  std::string text;
  int64_t replacements = 0;
};

/// One edit after another, each on the result of those before. Throws invalid_argument at the first that does
/// not fit, limit_exceeded when the text would grow beyond `max_bytes`. Where the text has CRLF line ends and
/// an edit has LF ones, the edit is taken as CRLF.
Edited apply_edits(std::string text, const std::vector<Edit>& edits, size_t max_bytes);

/// `lines` as lines of their own behind line `after`; 0 is before the first one. A missing line end at the
/// end of the text stays missing.
Edited insert_lines(std::string_view text, int64_t after, std::string_view lines, size_t max_bytes);

}  // namespace hutch::tools
