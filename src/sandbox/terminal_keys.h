#pragma once

#include <vterm_keycodes.h>

#include <functional>
#include <string>
#include <string_view>

namespace hutch::sandbox {

/// What libvterm sends for a key that is no character, in the modes of the terminal.
using KeyEncoder = std::function<std::string(VTermKey, VTermModifier)>;

/// The bytes for text with keys in angle brackets; the notation stands at Terminal::keys.
std::string typed(std::string_view text, const KeyEncoder& encode);

}  // namespace hutch::sandbox
