#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <linux/pkt_cls.h>
#include <sys/socket.h>

#include <string>

#include "base/error.h"
#include "base/ip_range.h"
#include "base/unique_fd.h"
#include "runtime/network_rules.h"
#include "runtime/packet_filter.h"

using namespace hutch;

namespace {

/// The kernel's own answer about frames: a socket's filter says how many bytes of a datagram pass, so that
/// TC_ACT_SHOT (2) cuts one to two bytes and TC_ACT_OK (0) drops it.
class Judge {
 public:
  explicit Judge(const std::vector<std::string>& allow, const std::vector<std::string>& of_host = {}) {
    std::vector<IpRange> host;
    for (const auto& text : of_host) host.push_back(*IpRange::parse(text));
    auto program = runtime::packet_filter(runtime::network_rules(runtime::allowed_ranges(allow), host));
    const sock_fprog filter{static_cast<unsigned short>(program.size()), program.data()};
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
    ours_ = UniqueFd(ends[0]), theirs_ = UniqueFd(ends[1]);
    REQUIRE(::setsockopt(theirs_.get(), SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter) == 0);
  }

  bool passes(const std::string& address) {
    const bool v6 = address.find(':') != std::string::npos;
    std::string frame(80, '\0');
    frame.replace(12, 2, v6 ? "\x86\xdd" : std::string("\x08\0", 2));
    REQUIRE(::inet_pton(v6 ? AF_INET6 : AF_INET, address.c_str(), frame.data() + (v6 ? 38 : 30)) == 1);
    return passes_frame(frame);
  }

  bool passes_frame(const std::string& frame) {
    (void)!::send(ours_.get(), frame.data(), frame.size(), 0);
    char got[100];
    const ssize_t n = ::recv(theirs_.get(), got, sizeof got, 0);
    CHECK((n == -1 || n == TC_ACT_SHOT));
    return n == -1;
  }

 private:
  UniqueFd ours_, theirs_;
};

std::string text_of(const char* text) {
  const auto range = IpRange::parse(text);
  return range ? range->to_string() : "none";
}

}  // namespace

TEST_SUITE("network") {
  TEST_CASE("ranges of addresses are read in every form, and slips are none") {
    CHECK(text_of("10.0.0.0/8") == "10.0.0.0/8");
    CHECK(text_of("10.1.2.3") == "10.1.2.3/32");
    CHECK(text_of("fd00:EC2::254") == "fd00:ec2::254/128");
    CHECK(text_of("::/0") == "::/0");
    CHECK(text_of("::ffff:10.0.0.0/104") == "10.0.0.0/8");
    for (const char* wrong :
         {"", "/", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0.0/8 ", " 10.0.0.0",
          "10.0.0.1/8", "10.0.0", "010.0.0.1", "0x0a000000", "::1/129", "fe80::1%eth0", "localhost"})
      CHECK_MESSAGE(text_of(wrong) == "none", wrong);
  }

  TEST_CASE("a range contains what shares its prefix, of its own family") {
    const auto contains = [](const char* outer, const char* inner) {
      return IpRange::parse(outer)->contains(*IpRange::parse(inner));
    };
    CHECK(contains("10.0.0.0/8", "10.255.0.0/16"));
    CHECK_FALSE(contains("10.0.0.0/16", "10.0.0.0/8"));
    CHECK_FALSE(contains("10.0.0.0/8", "11.0.0.0"));
    CHECK(contains("::/0", "fd00::1"));
    CHECK_FALSE(contains("0.0.0.0/0", "::1"));
  }

  TEST_CASE("public addresses pass, special ones do not, at the edges of each range") {
    Judge judge({});
    for (const char* passes :
         {"1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "172.15.255.255",
          "172.32.0.0", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0", "223.255.255.255",
          "2001:db8::1", "2606:4700::1111", "fbff::1", "101::1"})
      CHECK_MESSAGE(judge.passes(passes), passes);
    for (const char* refused : {"0.0.0.0",
                                "10.0.0.0",
                                "10.255.255.255",
                                "100.64.0.0",
                                "100.127.255.255",
                                "127.0.0.1",
                                "169.254.169.254",
                                "172.16.0.0",
                                "172.31.255.255",
                                "192.168.0.0",
                                "198.19.255.255",
                                "224.0.0.251",
                                "255.255.255.255",
                                "::",
                                "::1",
                                "::ffff:8.8.8.8",
                                "64:ff9b::1.1.1.1",
                                "fc00::",
                                "fdff::1",
                                "fe80::1",
                                "febf::1",
                                "ff02::fb",
                                "2002::1"})
      CHECK_FALSE_MESSAGE(judge.passes(refused), refused);
  }

  TEST_CASE("what is allowed passes as far as it goes; addresses of the host only by themselves") {
    Judge judge({"10.5.0.0/16", "fd00:5::/32", "192.168.7.7"},
                {"10.5.0.9", "192.168.7.7", "198.51.100.2", "2001:db8::/64"});
    for (const char* passes :
         {"10.5.0.1", "10.5.255.255", "fd00:5::1", "192.168.7.7", "198.51.100.3", "2001:db8:0:1::1"})
      CHECK_MESSAGE(judge.passes(passes), passes);
    for (const char* refused :
         {"10.4.255.255", "10.6.0.0", "10.5.0.9", "fd00:6::1", "192.168.7.8", "198.51.100.2", "2001:db8::9"})
      CHECK_FALSE_MESSAGE(judge.passes(refused), refused);
  }

  TEST_CASE("frames that are neither IPv4 nor IPv6, or cut, do not pass") {
    Judge judge({});
    std::string arp(60, '\0');
    arp.replace(12, 2, "\x08\x06");
    CHECK_FALSE(judge.passes_frame(arp));
    CHECK_FALSE(judge.passes_frame(std::string(60, '\0')));
  }

  TEST_CASE("the host's loopback, links and groups cannot be allowed") {
    for (const char* never : {"127.0.0.1", "127.1.0.0/16", "0.0.0.0/8", "224.0.0.0/4", "::1",
                              "::ffff:127.0.0.1", "fe80::/10", "ff02::1", "pypi.org"})
      CHECK_THROWS_AS_MESSAGE((void)runtime::allowed_ranges({never}), Error, never);
    CHECK(runtime::allowed_ranges({"169.254.169.254", "0.0.0.0/0"}).size() == 2);
  }
}
