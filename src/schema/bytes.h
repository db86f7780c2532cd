#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace hutch {

/// A size. Written "512m" or "2g" (k, m, g, t; 1024-based) or as a plain number of bytes.
struct Bytes {
  uint64_t value = 0;

  friend auto operator<=>(const Bytes&, const Bytes&) = default;
};

constexpr Bytes kib(uint64_t n) {
  return {n << 10};
}
constexpr Bytes mib(uint64_t n) {
  return {n << 20};
}
constexpr Bytes gib(uint64_t n) {
  return {n << 30};
}

/// Nothing for text that is no size, has a fraction or sign, or does not fit into 63 bits.
std::optional<Bytes> parse_bytes(std::string_view text);

/// The shortest text that parse_bytes() reads back as the same value: "1g", "1536m", "1000".
std::string to_string(Bytes bytes);

}  // namespace hutch
