#pragma once

#include <asio/ip/address.hpp>
#include <optional>
#include <string>
#include <string_view>

/// Addresses of IPv4 and IPv6: how they are written, and which of them are no part of the public Internet.
namespace hutch::net {

using Address = asio::ip::address;

/// Only what every reader takes for the same address: four decimal numbers without leading zeros, or the text
/// of RFC 4291 without brackets and zone. Nothing: some other text, such as 127.1, 0x7f.0.0.1 or 2130706433.
/// An IPv4-mapped address comes as the IPv4 address that a connection to it goes to.
std::optional<Address> parse_address(std::string_view text);

/// Addresses that have their first bits in common.
struct Cidr {
  Address base;
  int prefix = 0;

  bool contains(const Address& address) const;
  std::string to_string() const;
  bool operator==(const Cidr&) const = default;
};

/// "10.0.0.0/8", or one address. Nothing: some other text. Bits behind the prefix are an Error.
std::optional<Cidr> parse_cidr(std::string_view text);

/// Why an address is not simply a place on the Internet.
struct SpecialRange {
  std::string_view what;  // for the reader: "private", "loopback"
  int prefix;             // of the range: a wider rule does not mean it
};

/// Nothing for public addresses, those for documentation included. What an IPv6 address embeds (6to4, Teredo,
/// NAT64, IPv4-compatible) counts as well, and so do the addresses of this host's own interfaces.
std::optional<SpecialRange> special_range(const Address& address);

/// Whether one special range holds all of them: the wider one too where they begin with one inside it.
bool lie_in_special_range(const Cidr& addresses);

}  // namespace hutch::net
