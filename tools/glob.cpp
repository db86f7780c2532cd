#include "tools/glob.h"

#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>

#include "base/error.h"

namespace hutch::tools {

namespace {

constexpr size_t kMostAlternatives = 64;
constexpr size_t kLongestPattern = 1000;
constexpr std::string_view kAnyFolders = "**";

Error bad_glob(std::string_view pattern, std::string_view why) {
  return Error(Errc::invalid_argument, fmt::format("'glob' {}: {}", why, pattern.substr(0, 100)))
      .hint("patterns are relative to `path`, such as `*.py`, `src/**/*.{h,cpp}`");
}

/// Position of the brace that closes the one at `open`, npos when there is none.
size_t closing_brace(std::string_view pattern, size_t open) {
  size_t level = 0;
  for (size_t i = open; i < pattern.size(); ++i) {
    if (pattern[i] == '\\')
      ++i;
    else if (pattern[i] == '{')
      ++level;
    else if (pattern[i] == '}' && --level == 0)
      return i;
  }
  return std::string_view::npos;
}

/// The parts between the commas of the outermost level.
std::vector<std::string_view> choices(std::string_view list) {
  std::vector<std::string_view> out;
  size_t start = 0, level = 0;
  for (size_t i = 0; i < list.size(); ++i) {
    if (list[i] == '\\')
      ++i;
    else if (list[i] == '{')
      ++level;
    else if (list[i] == '}')
      --level;
    else if (list[i] == ',' && level == 0) {
      out.push_back(list.substr(start, i - start));
      start = i + 1;
    }
  }
  out.push_back(list.substr(start));
  return out;
}

size_t first_brace(std::string_view pattern) {
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] == '\\')
      ++i;
    else if (pattern[i] == '{')
      return i;
  }
  return std::string_view::npos;
}

/// "{a,b}c" becomes "ac" and "bc", from left to right.
std::vector<std::string> expand_braces(std::string_view whole) {
  std::vector<std::string> open{std::string(whole)}, done;
  while (!open.empty()) {
    const std::string pattern = std::move(open.back());
    open.pop_back();
    const size_t start = first_brace(pattern),
                 end = start == pattern.npos ? start : closing_brace(pattern, start);
    if (end == pattern.npos) {
      done.push_back(pattern);
    } else {
      for (const std::string_view choice :
           choices(std::string_view(pattern).substr(start + 1, end - start - 1)))
        open.push_back(fmt::format("{}{}{}", pattern.substr(0, start), choice, pattern.substr(end + 1)));
    }
    if (open.size() + done.size() > kMostAlternatives)
      throw bad_glob(whole, "has too many alternatives in braces");
  }
  return done;
}

std::vector<std::string> split(std::string_view path) {
  std::vector<std::string> out;
  for (size_t start = 0;;) {
    const size_t slash = path.find('/', start);
    const std::string_view part = path.substr(start, slash == path.npos ? slash : slash - start);
    // `a/**/**/b` is `a/**/b`; `a//b` and `a/./b` are `a/b`.
    const bool repeated = part == kAnyFolders && !out.empty() && out.back() == kAnyFolders;
    if (!part.empty() && part != "." && !repeated) out.emplace_back(part);
    if (slash == path.npos) return out;
    start = slash + 1;
  }
}

/// glibc goes back to the last star only, so no pattern takes more than pattern times name.
bool match_name(const std::string& pattern, const std::string& name) {
  return ::fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
}

/// Goes back to the last `**` only: what an earlier one could match, the last one can as well.
bool match_path(const std::vector<std::string>& pattern, const std::vector<std::string>& names) {
  size_t p = 0, n = 0, after_any = 0, any_until = 0;
  while (n < names.size()) {
    if (p < pattern.size() && pattern[p] == kAnyFolders) {
      after_any = ++p;
      any_until = n;
    } else if (p < pattern.size() && match_name(pattern[p], names[n])) {
      ++p;
      ++n;
    } else if (after_any > 0) {
      p = after_any;
      n = ++any_until;
    } else {
      return false;
    }
  }
  // `src/**` is what is in src, not src itself.
  return p == pattern.size();
}

}  // namespace

Glob::Glob(std::string_view pattern) {
  if (pattern.size() > kLongestPattern) throw bad_glob(pattern, "is longer than 1000 characters");
  if (pattern.find('\0') != pattern.npos) throw bad_glob(pattern, "has a NUL byte");
  if (pattern.starts_with('/')) throw bad_glob(pattern, "must not begin with '/'");
  if (pattern.empty()) return;
  for (const std::string& alternative : expand_braces(pattern)) add(alternative);
  const bool unbounded =
      std::any_of(alternatives_.begin(), alternatives_.end(), [](const Segments& segments) {
        return std::find(segments.begin(), segments.end(), kAnyFolders) != segments.end();
      });
  for (const Segments& segments : alternatives_) depth_ = std::max(depth_, segments.size());
  if (unbounded) depth_ = 0;
}

void Glob::add(std::string_view pattern) {
  Segments segments = split(pattern);
  if (segments.empty() || std::find(segments.begin(), segments.end(), "..") != segments.end())
    throw bad_glob(pattern, "names nothing below the folder");
  alternatives_.push_back(std::move(segments));
}

bool Glob::matches(std::string_view path) const {
  if (alternatives_.empty()) return true;
  const std::vector<std::string> names = split(path);
  return std::any_of(alternatives_.begin(), alternatives_.end(), [&](const Segments& pattern) {
    if (pattern.size() == 1 && !names.empty())
      return pattern[0] == kAnyFolders || match_name(pattern[0], names.back());
    return match_path(pattern, names);
  });
}

}  // namespace hutch::tools
