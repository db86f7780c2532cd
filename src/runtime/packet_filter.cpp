#include "runtime/packet_filter.h"

#include <linux/if_ether.h>
#include <linux/pkt_cls.h>

namespace hutch::runtime {

namespace {

constexpr uint32_t kDestination4 = ETH_HLEN + 16, kDestination6 = ETH_HLEN + 24;

sock_filter load(uint16_t size, uint32_t offset) {
  return {static_cast<uint16_t>(BPF_LD | BPF_ABS | size), 0, 0, offset};
}

sock_filter skip_unless(uint32_t value, size_t count) {
  return {BPF_JMP | BPF_JEQ | BPF_K, 0, static_cast<uint8_t>(count), value};
}

sock_filter verdict(bool allowed) {
  return {BPF_RET | BPF_K, 0, 0, static_cast<uint32_t>(allowed ? TC_ACT_OK : TC_ACT_SHOT)};
}

uint32_t word(const IpRange& range, unsigned index) {
  const uint8_t* b = range.address.data() + 4 * index;
  return uint32_t{b[0]} << 24 | uint32_t{b[1]} << 16 | uint32_t{b[2]} << 8 | b[3];
}

/// The verdict for an address in the range, behind as many comparisons as its prefix has words.
std::vector<sock_filter> judge(const NetworkRule& rule) {
  std::vector<sock_filter> out;
  const uint32_t first = rule.range.v6 ? kDestination6 : kDestination4;
  for (unsigned i = 0; i * 32 < rule.range.prefix; ++i) {
    out.push_back(load(BPF_W, first + 4 * i));
    const unsigned bits = rule.range.prefix - i * 32;
    if (bits < 32) out.push_back({BPF_ALU | BPF_AND | BPF_K, 0, 0, ~(UINT32_MAX >> bits)});
    out.push_back(skip_unless(word(rule.range, i), 0));
  }
  out.push_back(verdict(rule.allowed));
  for (size_t i = 0; i < out.size(); ++i)
    if (BPF_CLASS(out[i].code) == BPF_JMP) out[i].jf = static_cast<uint8_t>(out.size() - i - 1);
  return out;
}

}  // namespace

std::vector<sock_filter> packet_filter(const std::vector<NetworkRule>& rules) {
  std::vector<sock_filter> out;
  for (const bool v6 : {false, true}) {
    std::vector<sock_filter> of_family;
    for (const auto& rule : rules)
      if (rule.range.v6 == v6)
        for (const auto& step : judge(rule)) of_family.push_back(step);
    of_family.push_back(verdict(true));
    out.push_back(load(BPF_H, 12));
    out.push_back(skip_unless(v6 ? ETH_P_IPV6 : ETH_P_IP, 1));
    // Jumps that depend on a comparison reach no further than 255 steps.
    out.push_back({BPF_JMP | BPF_JA, 0, 0, 1});
    out.push_back({BPF_JMP | BPF_JA, 0, 0, static_cast<uint32_t>(of_family.size())});
    out.insert(out.end(), of_family.begin(), of_family.end());
  }
  out.push_back(verdict(false));
  return out;
}

}  // namespace hutch::runtime
