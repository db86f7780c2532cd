#pragma once

#include <string>
#include <string_view>

namespace hutch::sandbox {

/// The name of an image in a registry, taken apart: "python:3.12" is the tag 3.12 of library/python on
/// docker.io.
struct ImageReference {
  std::string registry, path;
  std::string tag;     // empty with a digest
  std::string digest;  // sha256:..., or empty

  /// In full: by it an image is known here.
  std::string name() const;
};

/// Throws invalid_argument, which says what a name looks like.
ImageReference parse_image_reference(std::string_view text);
/// As people write it: "python:3.12".
std::string short_image_name(const std::string& name);

/// The hex digits of "sha256:...", or of a prefix of one with at least 12 of them, with or without "sha256:".
/// Empty when the text is no such thing.
std::string image_digest_digits(std::string_view text);

}  // namespace hutch::sandbox
