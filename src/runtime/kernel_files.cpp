#include "runtime/kernel_files.h"

#include <charconv>
#include <sstream>

#include "base/sys.h"

namespace hutch::runtime {

namespace {

std::string trimmed(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text;
}

}  // namespace

std::string read_value(const std::string& path) {
  return trimmed(sys::read_file(path));
}

std::optional<uint64_t> read_number(const std::string& path) noexcept {
  try {
    const std::string text = read_value(path);
    uint64_t value = 0;
    const auto [end, err] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (err == std::errc{} && end == text.data() + text.size()) return value;
  } catch (const Error&) {
  }
  return std::nullopt;
}

/// The number behind `key` in a file of "key value" lines.
std::optional<uint64_t> read_keyed(const std::string& path, std::string_view key) noexcept {
  try {
    std::istringstream lines(sys::read_file(path));
    std::string name;
    for (uint64_t value = 0; lines >> name >> value;)
      if (name == key) return value;
  } catch (const Error&) {
  }
  return std::nullopt;
}

}  // namespace hutch::runtime
