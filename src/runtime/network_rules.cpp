#include "runtime/network_rules.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace hutch::runtime {

namespace {

struct Special {
  const char* range;
  bool never = false;  // not even when it is named
};

/// Not public, by the IANA registries of special-purpose addresses.
constexpr Special kSpecial[] = {
    {"0.0.0.0/8", true},     // "this host": Linux connects to itself
    {"10.0.0.0/8"},          // RFC 1918
    {"100.64.0.0/10"},       // shared by providers, RFC 6598; also where Alibaba's metadata are
    {"127.0.0.0/8", true},   // pasta would take it for the host's
    {"169.254.0.0/16"},      // link-local; metadata of most clouds
    {"172.16.0.0/12"},       // RFC 1918
    {"192.0.0.0/24"},        // IETF protocols; metadata of Oracle's cloud
    {"192.0.2.0/24", true},  // kNetwork4
    {"192.168.0.0/16"},      // RFC 1918
    {"198.18.0.0/15"},       // benchmarks, RFC 2544
    {"224.0.0.0/4", true},   // multicast
    {"240.0.0.0/4", true},   // reserved, and broadcast
    {"::/8", true},          // loopback, IPv4 in its mapped and other forms, NAT64 (64:ff9b::/96)
    {"100::/64"},            // discarded
    {"2002::/16"},           // 6to4, which has any IPv4 address in it
    {"fc00::/7"},            // unique local; also metadata, fd00:ec2::254
    {"fe80::/10", true},     // link-local
    {"fec0::/10"},           // site-local, until RFC 3879
    {"ff00::/8", true},      // multicast
};

}  // namespace

std::vector<IpRange> allowed_ranges(const std::vector<std::string>& allow) {
  std::vector<IpRange> out;
  for (const auto& text : allow) {
    const auto range = IpRange::parse(text);
    if (!range)
      throw Error(Errc::invalid_argument,
                  fmt::format("'{}' in `allow` is no address and no network", text.substr(0, 80)))
          .hint(
              "with the network `full`, public hosts need no entry; of the others name addresses such as "
              "10.1.2.3 or networks such as 10.1.0.0/16, without bits beyond the prefix");
    for (const auto& special : kSpecial)
      if (special.never && IpRange::parse(special.range)->contains(*range))
        throw Error(Errc::invalid_argument,
                    fmt::format("'{}' cannot be allowed: it lies in {}, which is never "
                                "reached from a sandbox",
                                text, special.range))
            .hint("for a server on this host, put the address of one of its network cards into `allow`");
    out.push_back(*range);
  }
  return out;
}

std::vector<NetworkRule> network_rules(const std::vector<IpRange>& allow,
                                       const std::vector<IpRange>& of_host) {
  std::vector<NetworkRule> rules;
  const auto add = [&](const IpRange& range, bool allowed) {
    const auto same = std::ranges::find(rules, range, &NetworkRule::range);
    if (same == rules.end()) rules.push_back({range, allowed});
  };
  for (const auto& range : allow) add(range, true);
  for (const auto& range : of_host) add(range, false);
  for (const auto& special : kSpecial) add(*IpRange::parse(special.range), false);
  std::ranges::stable_sort(rules, std::ranges::greater{},
                           [](const NetworkRule& rule) { return rule.range.prefix; });
  return rules;
}

}  // namespace hutch::runtime
