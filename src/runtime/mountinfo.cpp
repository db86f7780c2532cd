#include "runtime/mountinfo.h"

#include <sstream>

#include "base/sys.h"

namespace hutch::runtime {

namespace {

/// Space, tab, newline and backslash come as \040 and so on.
std::string unescape(const std::string& text) {
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

}  // namespace

bool Mount::has_option(std::string_view name) const {
  std::istringstream options(super_options);
  for (std::string option; std::getline(options, option, ',');)
    if (option == name) return true;
  return false;
}

std::vector<Mount> parse_mountinfo(const std::string& text) {
  std::vector<Mount> out;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream fields(line);
    Mount mount;
    std::string id, parent, device, options, word;
    fields >> id >> parent >> device >> mount.root >> mount.target >> options;
    while (fields >> word && word != "-") {
      // optional fields, such as shared:1
    }
    fields >> mount.type >> mount.source >> mount.super_options;
    if (fields.fail()) continue;
    mount.root = unescape(mount.root);
    mount.target = unescape(mount.target);
    out.push_back(std::move(mount));
  }
  return out;
}

std::vector<Mount> read_mountinfo(const std::string& path) {
  return parse_mountinfo(sys::read_file(path));
}

}  // namespace hutch::runtime
