#include "base/ip_range.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <cstring>

namespace hutch {

namespace {

constexpr std::array<uint8_t, 12> kMapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

unsigned width(bool v6) {
  return v6 ? 128 : 32;
}

}  // namespace

IpRange IpRange::of_address(bool v6, const void* bytes, unsigned prefix) {
  IpRange out{.v6 = v6, .prefix = std::min(prefix, width(v6))};
  std::memcpy(out.address.data(), bytes, v6 ? 16 : 4);
  for (unsigned bit = out.prefix; bit < 128; ++bit)
    out.address[bit / 8] = static_cast<uint8_t>(out.address[bit / 8] & ~(0x80u >> bit % 8));
  return out;
}

std::optional<IpRange> IpRange::parse(std::string_view text) {
  const size_t slash = text.find('/');
  const std::string address(text.substr(0, slash));
  const bool v6 = address.find(':') != address.npos;
  std::array<uint8_t, 16> bytes{};
  if (::inet_pton(v6 ? AF_INET6 : AF_INET, address.c_str(), bytes.data()) != 1) return std::nullopt;
  unsigned prefix = width(v6);
  if (slash != text.npos) {
    const char *first = text.data() + slash + 1, *last = text.data() + text.size();
    const auto [end, problem] = std::from_chars(first, last, prefix);
    if (problem != std::errc{} || end != last || prefix > width(v6)) return std::nullopt;
  }
  IpRange range = of_address(v6, bytes.data(), prefix);
  if (range.address != bytes) return std::nullopt;
  if (v6 && prefix >= 96 && std::equal(kMapped.begin(), kMapped.end(), bytes.begin()))
    range = of_address(false, bytes.data() + 12, prefix - 96);
  return range;
}

bool IpRange::contains(const IpRange& other) const {
  return v6 == other.v6 && prefix <= other.prefix && of_address(v6, other.address.data(), prefix) == *this;
}

std::string IpRange::to_string() const {
  char text[INET6_ADDRSTRLEN] = "";
  ::inet_ntop(v6 ? AF_INET6 : AF_INET, address.data(), text, sizeof text);
  return std::string(text) + "/" + std::to_string(prefix);
}

}  // namespace hutch
