#include "sandbox/image_reference.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace hutch::sandbox {

namespace {

constexpr std::string_view kDigestPrefix = "sha256:", kDefaultRegistry = "docker.io",
                           kDefaultPath = "library/";
constexpr size_t kDigits = 64, kFewestDigits = 12, kLongestName = 255, kLongestTag = 128;

bool consists_of(std::string_view text, std::string_view further, bool upper) {
  return std::ranges::all_of(text, [&](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (upper && c >= 'A' && c <= 'Z') ||
           further.find(c) != further.npos;
  });
}

/// Each part between slashes begins and ends with a letter or digit: none is "..", none is an option.
bool is_path(std::string_view path) {
  if (path.empty() || !consists_of(path, "._-/", false)) return false;
  for (size_t at = 0;;) {
    const size_t end = std::min(path.find('/', at), path.size());
    const std::string_view part = path.substr(at, end - at);
    if (part.empty() || !consists_of(part.substr(0, 1), "", false) ||
        !consists_of(part.substr(part.size() - 1), "", false))
      return false;
    if (end == path.size()) return true;
    at = end + 1;
  }
}

bool is_registry(std::string_view registry) {
  return !registry.empty() && consists_of(registry.substr(0, 1), "[", true) &&
         consists_of(registry, ".-:[]", true);
}

bool is_tag(std::string_view tag) {
  return !tag.empty() && tag.size() <= kLongestTag && tag.front() != '-' && tag.front() != '.' &&
         consists_of(tag, "._-", true);
}

}  // namespace

std::string ImageReference::name() const {
  return fmt::format("{}/{}{}{}", registry, path, digest.empty() ? ":" : "@", digest.empty() ? tag : digest);
}

ImageReference parse_image_reference(std::string_view text) {
  const auto fail = [given = std::string(text)] {
    return Error(Errc::invalid_argument, fmt::format("'{}' is no name of an image", given))
        .hint("such as `python:3.12`, `ghcr.io/owner/name:tag` or `name@sha256:...`");
  };
  if (text.starts_with("docker://")) text.remove_prefix(9);
  ImageReference out;
  if (const size_t at = text.find('@'); at != text.npos) {
    out.digest = text.substr(at + 1);
    if (!out.digest.starts_with(kDigestPrefix) || out.digest.size() != kDigestPrefix.size() + kDigits ||
        image_digest_digits(out.digest).empty())
      throw fail();
    text = text.substr(0, at);
  }
  if (const size_t colon = text.rfind(':'); colon != text.npos && text.find('/', colon) == text.npos) {
    out.tag = text.substr(colon + 1);
    if (!is_tag(out.tag)) throw fail();
    text = text.substr(0, colon);
  }
  if (!out.digest.empty())
    out.tag.clear();  // the digest decides
  else if (out.tag.empty())
    out.tag = "latest";
  const size_t slash = text.find('/');
  const std::string_view first = text.substr(0, slash);
  if (slash != text.npos && (first == "localhost" || first.find_first_of(".:") != first.npos)) {
    out.registry = first;
    text = text.substr(slash + 1);
  } else {
    out.registry = kDefaultRegistry;
  }
  out.path = text;
  if (out.registry == kDefaultRegistry && out.path.find('/') == out.path.npos)
    out.path.insert(0, kDefaultPath);
  if (!is_registry(out.registry) || !is_path(out.path) || out.path.size() > kLongestName) throw fail();
  return out;
}

std::string short_image_name(const std::string& name) {
  std::string_view rest = name;
  for (const std::string_view prefix : {kDefaultRegistry, std::string_view("/"), kDefaultPath}) {
    if (!rest.starts_with(prefix)) break;
    rest.remove_prefix(prefix.size());
  }
  return std::string(rest);
}

std::string image_digest_digits(std::string_view text) {
  const bool marked = text.starts_with(kDigestPrefix);
  if (marked) text.remove_prefix(kDigestPrefix.size());
  const bool digits = text.size() >= kFewestDigits && text.size() <= kDigits &&
                      text.find_first_not_of("0123456789abcdef") == text.npos;
  return digits ? std::string(text) : std::string();
}

}  // namespace hutch::sandbox
