#include "net/address.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <ifaddrs.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstring>
#include <mutex>
#include <vector>

#include "base/error.h"

namespace hutch::net {

namespace {

using asio::ip::address_v4;
using asio::ip::address_v6;

/// The bytes of either family.
struct AddressBytes {
  std::array<uint8_t, 16> bytes{};
  size_t size = 0;
};

AddressBytes bytes_of(const Address& address) {
  AddressBytes out;
  if (address.is_v4()) {
    const auto bytes = address.to_v4().to_bytes();
    std::copy(bytes.begin(), bytes.end(), out.bytes.begin());
    out.size = bytes.size();
  } else {
    out.bytes = address.to_v6().to_bytes();
    out.size = out.bytes.size();
  }
  return out;
}

Address from_bytes(const AddressBytes& from) {
  if (from.size == 16) return address_v6(from.bytes);
  return address_v4({from.bytes[0], from.bytes[1], from.bytes[2], from.bytes[3]});
}

Address v4_at(const address_v6::bytes_type& bytes, size_t at, uint8_t flipped = 0) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(bytes[at + i] ^ flipped); };
  return address_v4({byte(0), byte(1), byte(2), byte(3)});
}

Address without_mapping(const Address& address) {
  if (address.is_v6() && address.to_v6().is_v4_mapped()) return v4_at(address.to_v6().to_bytes(), 12);
  return address;
}

struct Listed {
  Cidr cidr;
  std::string_view what;
};

/// The registries of special-purpose addresses (RFC 6890 and its successors) and the places where clouds give
/// credentials to whoever asks; narrow ones first.
const std::vector<Listed>& listed_ranges() {
  static const std::vector<Listed> ranges = [] {
    constexpr std::pair<const char*, std::string_view> kTexts[] = {
        {"169.254.169.254/32", "a metadata service"},
        {"169.254.170.2/32", "a metadata service"},
        {"100.100.100.200/32", "a metadata service"},
        {"168.63.129.16/32", "a metadata service"},
        {"fd00:ec2::254/128", "a metadata service"},
        {"0.0.0.0/8", "unspecified"},
        {"10.0.0.0/8", "private"},
        {"100.64.0.0/10", "private (carrier-grade NAT)"},
        {"127.0.0.0/8", "loopback"},
        {"169.254.0.0/16", "link-local"},
        {"172.16.0.0/12", "private"},
        {"192.0.0.0/24", "reserved"},
        {"192.88.99.0/24", "reserved"},
        {"192.168.0.0/16", "private"},
        {"198.18.0.0/15", "for benchmarks"},
        {"224.0.0.0/4", "multicast"},
        {"240.0.0.0/4", "reserved"},
        {"::/128", "unspecified"},
        {"::1/128", "loopback"},
        {"64:ff9b:1::/48", "private (NAT64)"},
        {"2001::/32", "Teredo"},
        {"2001::/23", "reserved"},
        {"fc00::/7", "private"},
        {"fe80::/10", "link-local"},
        {"fec0::/10", "site-local"},
        {"ff00::/8", "multicast"},
    };
    std::vector<Listed> out;
    for (const auto& [text, what] : kTexts) out.push_back({*parse_cidr(text), what});
    return out;
  }();
  return ranges;
}

std::optional<SpecialRange> listed_range(const Address& address) {
  for (const Listed& range : listed_ranges())
    if (range.cidr.contains(address)) return SpecialRange{range.what, range.cidr.prefix};
  return std::nullopt;
}

/// The IPv4 address that a packet to this one ends at, or nothing.
std::optional<Address> embedded_v4(const address_v6& address) {
  static const Cidr nat64{*parse_address("64:ff9b::"), 96}, compatible{*parse_address("::"), 96};
  const auto bytes = address.to_bytes();
  if (nat64.contains(address) || compatible.contains(address)) return v4_at(bytes, 12);
  if (bytes[0] == 0x20 && bytes[1] == 0x02) return v4_at(bytes, 2);  // 6to4, RFC 3056
  return std::nullopt;
}

std::vector<Address> read_own_addresses() {
  std::vector<Address> out;
  ifaddrs* first = nullptr;
  if (::getifaddrs(&first) != 0) throw sys_error(errno, "getifaddrs");
  for (const ifaddrs* at = first; at != nullptr; at = at->ifa_next) {
    if (at->ifa_addr == nullptr) continue;
    if (at->ifa_addr->sa_family == AF_INET) {
      const auto& v4 = reinterpret_cast<const sockaddr_in*>(at->ifa_addr)->sin_addr;
      out.push_back(address_v4(ntohl(v4.s_addr)));
    } else if (at->ifa_addr->sa_family == AF_INET6) {
      address_v6::bytes_type bytes;
      std::memcpy(bytes.data(), &reinterpret_cast<const sockaddr_in6*>(at->ifa_addr)->sin6_addr,
                  bytes.size());
      out.push_back(address_v6(bytes));
    }
  }
  ::freeifaddrs(first);
  return out;
}

/// Interfaces come and go, but not between two connections of one download.
bool is_own_address(const Address& address) {
  using Clock = std::chrono::steady_clock;
  static std::mutex mutex;
  static std::vector<Address> own;
  static Clock::time_point read_at;
  const std::lock_guard lock(mutex);
  if (own.empty() || Clock::now() - read_at > std::chrono::seconds(1)) {
    own = read_own_addresses();
    read_at = Clock::now();
  }
  return std::ranges::find(own, address) != own.end();
}

}  // namespace

std::optional<Address> parse_address(std::string_view text) {
  // inet_pton() takes neither short, octal nor hexadecimal forms of IPv4, and no zones of IPv6.
  const std::string terminated(text);
  if (text.size() > INET6_ADDRSTRLEN || text.find('\0') != text.npos) return std::nullopt;
  AddressBytes out;
  if (::inet_pton(AF_INET, terminated.c_str(), out.bytes.data()) == 1)
    out.size = 4;
  else if (::inet_pton(AF_INET6, terminated.c_str(), out.bytes.data()) == 1)
    out.size = 16;
  else
    return std::nullopt;
  return without_mapping(from_bytes(out));
}

bool Cidr::contains(const Address& address) const {
  const AddressBytes mine = bytes_of(base), other = bytes_of(address);
  if (mine.size != other.size) return false;
  const size_t whole = static_cast<size_t>(prefix) / 8, rest = static_cast<size_t>(prefix) % 8;
  if (std::memcmp(mine.bytes.data(), other.bytes.data(), whole) != 0) return false;
  return rest == 0 || ((mine.bytes[whole] ^ other.bytes[whole]) >> (8 - rest)) == 0;
}

std::string Cidr::to_string() const {
  const bool one = prefix == (base.is_v4() ? 32 : 128);
  return one ? base.to_string() : fmt::format("{}/{}", base.to_string(), prefix);
}

std::optional<Cidr> parse_cidr(std::string_view text) {
  const size_t slash = text.find('/');
  const auto base = parse_address(text.substr(0, slash));
  if (!base) return std::nullopt;
  const int bits = base->is_v4() ? 32 : 128;
  if (slash == text.npos) return Cidr{*base, bits};
  const std::string_view digits = text.substr(slash + 1);
  int prefix = -1;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), prefix);
  const bool number = error == std::errc() && end == digits.data() + digits.size() && digits[0] != '-';
  if (!number || prefix > bits || (digits.size() > 1 && digits[0] == '0')) return std::nullopt;
  AddressBytes masked = bytes_of(*base);
  for (size_t bit = static_cast<size_t>(prefix); bit < masked.size * 8; ++bit)
    masked.bytes[bit / 8] &= static_cast<uint8_t>(~(0x80u >> (bit % 8)));
  if (const Cidr meant{from_bytes(masked), prefix}; meant.base != *base)
    throw Error(Errc::invalid_argument, fmt::format("'{}' has bits behind its prefix", text))
        .hint(fmt::format("write `{}` for the network or `{}` for the one address", meant.to_string(),
                          base->to_string()));
  return Cidr{*base, prefix};
}

std::optional<SpecialRange> special_range(const Address& given) {
  const Address address = without_mapping(given);
  if (const auto listed = listed_range(address)) return listed;
  if (address.is_v6()) {
    if (const auto inner = embedded_v4(address.to_v6())) {
      if (special_range(*inner)) return SpecialRange{"an IPv4 address in disguise that is not public", 128};
    } else if ((address.to_v6().to_bytes()[0] & 0xe0) != 0x20) {
      return SpecialRange{"reserved", 128};  // global unicast is 2000::/3, so far
    }
  }
  if (is_own_address(address)) return SpecialRange{"this host's own", address.is_v4() ? 32 : 128};
  return std::nullopt;
}

bool lie_in_special_range(const Cidr& addresses) {
  const auto first = special_range(addresses.base);
  return (first && addresses.prefix >= first->prefix) ||
         std::ranges::any_of(listed_ranges(), [&](const Listed& range) {
           return addresses.prefix >= range.cidr.prefix && range.cidr.contains(addresses.base);
         });
}

}  // namespace hutch::net
