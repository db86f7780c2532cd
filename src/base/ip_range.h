#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace hutch {

/// All addresses that share their first `prefix` bits, such as 10.0.0.0/8. One address is a range of 32 or
/// 128 bits.
struct IpRange {
  bool v6 = false;
  std::array<uint8_t, 16> address{};  // of IPv4 the first four; zero beyond the prefix
  unsigned prefix = 0;

  /// Nothing for what is none, also when bits are set beyond the prefix: that is a slip more often than not.
  /// IPv4 in its IPv6 form (::ffff:10.0.0.0/104) is IPv4.
  static std::optional<IpRange> parse(std::string_view text);
  /// `bytes`: 4 or 16 of them, in network order.
  static IpRange of_address(bool v6, const void* bytes, unsigned prefix);

  bool contains(const IpRange& other) const;
  std::string to_string() const;
  bool operator==(const IpRange&) const = default;
};

}  // namespace hutch
