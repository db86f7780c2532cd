#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "net/address.h"

/// Hosts as requests and rules name them, in the one form in which they are compared.
namespace hutch::net {

/// Lower case, without one dot at the end, of letters, digits, - and _ only. Throws Error(invalid_argument)
/// for everything else: NUL, userinfo, other scripts (xn-- is fine as it is), more than 253 characters, and
/// names that some resolver would read as a number (their last label is one).
std::string normal_name(std::string_view text);

struct Host {
  std::string name;                // empty for an address
  std::optional<Address> address;  // of a host that is given by it

  /// As it stands in a rule or before a port, IPv6 in brackets.
  std::string to_string() const;
  bool operator==(const Host&) const = default;
};

/// A name or an address. IPv6 is in brackets where a port may follow it, and bare where none can.
Host parse_host(std::string_view text);

struct HostPort {
  Host host;
  uint16_t port = 0;

  std::string to_string() const;  // host:port
  bool operator==(const HostPort&) const = default;
};

/// "host", "host:port", "[v6]:port". Throws Error(invalid_argument), also without a port when `default_port`
/// is 0.
HostPort parse_host_port(std::string_view text, uint16_t default_port = 0);

/// 1 to 65535 in plain decimal digits.
std::optional<uint16_t> parse_port(std::string_view text);

/// Text that somebody else chose, fit to be shown: what is not printable ASCII becomes `?`, cut at 255.
std::string printable(std::string_view text);
/// The same for a sentence: spaces stay, cut at 1000.
std::string printable_line(std::string_view text);

}  // namespace hutch::net
