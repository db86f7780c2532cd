#include "runtime/mountinfo.h"

#include <algorithm>
#include <string_view>

#include "base/sys.h"

namespace hutch::runtime {

namespace {

/// Space, tab, newline and backslash come as \040 and so on.
std::string unescape(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      out += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

/// Takes the text before the next `separator` off the front.
std::string_view take(std::string_view& text, char separator) {
  const size_t end = std::min(text.find(separator), text.size());
  const std::string_view word = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return word;
}

}  // namespace

bool Mount::has_option(std::string_view name) const {
  for (std::string_view rest = super_options; !rest.empty();)
    if (take(rest, ',') == name) return true;
  return false;
}

std::vector<Mount> parse_mountinfo(const std::string& text) {
  std::vector<Mount> out;
  for (std::string_view rest = text; !rest.empty();) {
    std::string_view line = take(rest, '\n');
    for (int skipped = 0; skipped < 3; ++skipped) take(line, ' ');  // id, parent, device
    Mount mount;
    mount.root = unescape(take(line, ' '));
    mount.target = unescape(take(line, ' '));
    while (!line.empty() && take(line, ' ') != "-") {
      // options, and optional fields such as shared:1
    }
    mount.type = take(line, ' ');
    mount.source = take(line, ' ');
    mount.super_options = line;
    if (!mount.super_options.empty()) out.push_back(std::move(mount));
  }
  return out;
}

std::vector<Mount> read_mountinfo(const std::string& path) {
  return parse_mountinfo(sys::read_file(path));
}

}  // namespace hutch::runtime
