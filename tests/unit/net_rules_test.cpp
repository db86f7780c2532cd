#include "net/address.h"
#include "net/host_name.h"
#include "net/rule.h"
#include "support.h"

namespace {

using namespace hutch;
using namespace hutch::net;
using hutch::test::error_of;

std::string range_of(const char* text) {
  const auto range = special_range(*parse_address(text));
  return range ? std::string(range->what) : "public";
}

std::string refused_name(std::string_view text) {
  return error_of([&] { (void)normal_name(text); });
}

bool allows(const char* rule, const char* host, uint16_t port = 443) {
  const RuleSet rules({rule});
  const Host parsed = parse_host(host);
  return parsed.address ? rules.allows_address(*parsed.address, port) : rules.allows_name(parsed.name, port);
}

}  // namespace

TEST_SUITE("addresses, names and rules of egress") {
  TEST_CASE("only canonical forms are addresses") {
    CHECK(parse_address("203.0.113.7")->to_string() == "203.0.113.7");
    CHECK(parse_address("2001:DB8::1")->to_string() == "2001:db8::1");
    for (const char* wrong : {"127.1",       "127.0.1",           "2130706433", "0x7f.0.0.1", "0x7f000001",
                              "0177.0.0.1",  "017700000001",      "127.0.0.01", "127.0.0.1.", "1.2.3.4.5",
                              "256.0.0.1",   " 127.0.0.1",        "127.0.0.1 ", "",           ".",
                              "::1%lo",      "fe80::1%1",         "[::1]",      "1::2::3",    "12345::",
                              "127.0.0.1/8", "\xef\xbc\x91.2.3.4"})
      CHECK_FALSE(parse_address(wrong).has_value());
    CHECK_FALSE(parse_address(std::string_view("127.0.0.1\0", 10)).has_value());
    CHECK(parse_address("::ffff:127.0.0.1")->to_string() == "127.0.0.1");
    CHECK(parse_address("::ffff:7f00:1")->to_string() == "127.0.0.1");
  }

  TEST_CASE(
      "every range that is no place on the Internet is known by its kind, in both families and in disguise") {
    for (const char* address : {"169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16",
                                "fd00:ec2::254", "::ffff:169.254.169.254"})
      CHECK(range_of(address) == "a metadata service");
    for (const char* address : {"127.0.0.1", "127.255.255.255", "::1", "::ffff:127.0.0.1", "::ffff:7f00:1"})
      CHECK(range_of(address) == "loopback");
    for (const char* address :
         {"10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fc00::1", "fdff::1"})
      CHECK(range_of(address) == "private");
    for (const char* address : {"100.64.0.1", "100.127.255.255"})
      CHECK(range_of(address) == "private (carrier-grade NAT)");
    for (const char* address : {"169.254.0.1", "fe80::1", "febf::1"})
      CHECK(range_of(address) == "link-local");
    for (const char* address : {"224.0.0.1", "239.255.255.255", "ff02::1"})
      CHECK(range_of(address) == "multicast");
    for (const char* address : {"0.0.0.0", "0.1.2.3", "::"}) CHECK(range_of(address) == "unspecified");
    for (const char* address : {"240.0.0.1", "255.255.255.255", "192.0.0.8", "2001:10::1", "4000::1",
                                "100::1", "8000::1", "fe00::1"})
      CHECK(range_of(address) == "reserved");
    CHECK(range_of("198.19.0.1") == "for benchmarks");
    CHECK(range_of("fec0::1") == "site-local");
    CHECK(range_of("64:ff9b:1::a00:1") == "private (NAT64)");
    CHECK(range_of("2001:0:1:2:3:4:5:6") == "Teredo");
    for (const char* address : {"2002:7f00:1::1", "2002:a00:1::", "64:ff9b::10.0.0.1", "64:ff9b::a9fe:a9fe",
                                "::10.0.0.1", "::127.0.0.1"})
      CHECK(range_of(address) == "an IPv4 address in disguise that is not public");
    for (const char* address : {"8.8.8.8", "203.0.113.7", "192.0.2.1", "198.51.100.1", "172.15.255.255",
                                "172.32.0.1", "100.63.255.255", "100.128.0.1", "11.0.0.0", "9.255.255.255",
                                "2606:4700::1111", "2001:db8::1", "64:ff9b::8.8.8.8", "2002:808:808::1"})
      CHECK(range_of(address) == "public");
  }

  TEST_CASE("networks are told by their first bits") {
    const Cidr net = *parse_cidr("10.1.128.0/17");
    CHECK(net.contains(*parse_address("10.1.255.255")));
    CHECK(net.contains(*parse_address("::ffff:10.1.128.1")));
    CHECK_FALSE(net.contains(*parse_address("10.1.127.255")));
    CHECK_FALSE(net.contains(*parse_address("2001:db8::1")));
    CHECK(parse_cidr("0.0.0.0/0")->contains(*parse_address("8.8.8.8")));
    CHECK(parse_cidr("2001:db8::/33")->contains(*parse_address("2001:db8:7fff::1")));
    CHECK_FALSE(parse_cidr("2001:db8::/33")->contains(*parse_address("2001:db8:8000::1")));
    CHECK(parse_cidr("10.0.0.5")->prefix == 32);
    for (const char* wrong : {"10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/08", "10.0.0.0/8/8",
                              "10.0/8", "x/8", "/8", "::/129"})
      CHECK_FALSE(parse_cidr(wrong).has_value());
    CHECK_CONTAINS(error_of([] { (void)parse_cidr("10.0.0.5/8"); }),
                   "write `10.0.0.0/8` for the network or `10.0.0.5`");
  }

  TEST_CASE("names have one form") {
    CHECK(normal_name("Example.COM.") == "example.com");
    CHECK(normal_name("xn--bcher-kva.example") == "xn--bcher-kva.example");
    CHECK(normal_name("_dmarc.a-b.example") == "_dmarc.a-b.example");
    CHECK(normal_name("localhost") == "localhost");
    CHECK(normal_name("1.2.3.4.example") == "1.2.3.4.example");
    CHECK(normal_name(std::string(63, 'a') + ".b") == std::string(63, 'a') + ".b");
    for (const char* wrong : {"",
                              ".",
                              "..",
                              "a..b",
                              ".a",
                              "a..",
                              "a b",
                              "a@b",
                              "a:b",
                              "a/b",
                              "a\\b",
                              "a%2eb",
                              "a\r\nb",
                              "a\tb",
                              "-a.b",
                              "a-.b",
                              "b\xc3\xbc"
                              "cher.example",
                              "*.a",
                              "a,b",
                              "[::1]",
                              "a#b",
                              "a?b"})
      CHECK_CONTAINS(refused_name(wrong), "is no host");
    CHECK_CONTAINS(refused_name(std::string_view("ok.example\0.evil", 16)), "'ok.example?.evil' is no host");
    CHECK_CONTAINS(refused_name(std::string(64, 'a')), "longer than 63");
    std::string four;
    for (int i = 0; i < 64; ++i) four += "abc.";
    CHECK_CONTAINS(refused_name(four), "longer than 253");
    for (const char* wrong : {"127.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "017700000001", "1.2.3.4.5",
                              "a.0x", "a.08", "127.0.0.01"})
      CHECK_CONTAINS(refused_name(wrong), "looks like an address");
  }

  TEST_CASE("a host with its port has one form, and userinfo is none") {
    CHECK(parse_host_port("Example.com:8080") == HostPort{{"example.com", {}}, 8080});
    CHECK(parse_host_port("example.com", 80).port == 80);
    CHECK(parse_host_port("[2001:db8::1]:443").to_string() == "[2001:db8::1]:443");
    CHECK(parse_host_port("[::ffff:10.0.0.1]", 80).to_string() == "10.0.0.1:80");
    CHECK(parse_host_port("203.0.113.7:1").host.address == parse_address("203.0.113.7"));
    for (const char* wrong :
         {"example.com", "example.com:", "example.com:0", "example.com:65536", "example.com:080",
          "example.com:+80", "example.com:80:90", "ok@evil:80", "ok:80@evil:80", "::1:80", "[::1", "::1]:80",
          "[::1]x:80", "[1.2.3.4]:80", "[]:80", ":80", "a b:80", "0x7f.1:80"})
      CHECK_CONTAINS(error_of([&] { (void)parse_host_port(wrong); }), "is no host");
  }

  TEST_CASE("rules hold for what they name and for nothing beside it") {
    CHECK(allows("example.com", "EXAMPLE.com."));
    CHECK(allows("Example.COM.", "example.com", 80));
    CHECK_FALSE(allows("example.com", "a.example.com"));
    CHECK_FALSE(allows("example.com", "evilexample.com"));
    CHECK_FALSE(allows("example.com", "example.com.evil"));
    CHECK(allows("*.example.com", "a.b.example.com"));
    CHECK_FALSE(allows("*.example.com", "example.com"));
    CHECK_FALSE(allows("*.example.com", "evilexample.com"));
    CHECK_FALSE(allows("*.example.com", "example.com.evil"));
    CHECK(allows("*", "whatever.example"));
    CHECK_FALSE(allows("*", "203.0.113.7"));
    CHECK_FALSE(allows("203.0.113.7", "example.com"));
    CHECK(allows("203.0.113.0/24", "203.0.113.7"));
    CHECK_FALSE(allows("203.0.113.0/24", "203.0.114.7"));
    CHECK(allows("2001:db8::/32", "2001:db8::5"));
    CHECK(allows("[2001:db8::5]", "2001:db8::5"));
  }

  TEST_CASE("rules are for 80 and 443 unless they name a port") {
    CHECK(allows("example.com", "example.com", 80));
    CHECK_FALSE(allows("example.com", "example.com", 22));
    CHECK(allows("example.com:22", "example.com", 22));
    CHECK_FALSE(allows("example.com:22", "example.com", 443));
    CHECK(allows("example.com:*", "example.com", 22));
    CHECK(allows("*.example.com:22", "a.example.com", 22));
    CHECK_FALSE(allows("203.0.113.0/24", "203.0.113.7", 22));
    CHECK(allows("203.0.113.0/24:22", "203.0.113.7", 22));
    CHECK(allows("[2001:db8::]/32:22", "2001:db8::5", 22));
    CHECK(allows("[2001:db8::5]:22", "2001:db8::5", 22));
    CHECK_FALSE(allows("[2001:db8::5]:22", "2001:db8::5", 80));
  }

  TEST_CASE("a special address is allowed only by a rule that means it") {
    CHECK(allows("10.0.0.0/8", "10.1.2.3"));
    CHECK(allows("10.1.0.0/16:5432", "10.1.2.3", 5432));
    CHECK(allows("127.0.0.1:8080", "127.0.0.1", 8080));
    CHECK(allows("127.0.0.1:8080", "::ffff:127.0.0.1", 8080));
    CHECK_FALSE(allows("0.0.0.0/0", "10.1.2.3"));
    CHECK_FALSE(allows("8.0.0.0/6", "10.1.2.3"));
    CHECK(allows("0.0.0.0/0", "8.8.8.8"));
    CHECK_FALSE(allows("::/0", "fd00::1"));
    CHECK_FALSE(allows("::/0", "64:ff9b::10.0.0.1"));
    CHECK_FALSE(allows("169.254.0.0/16", "169.254.169.254"));
    CHECK(allows("169.254.0.0/16", "169.254.1.1"));
    CHECK(allows("169.254.169.254", "169.254.169.254"));
    CHECK_FALSE(allows("fc00::/7", "fd00:ec2::254"));
    CHECK_FALSE(allows("10.0.0.0/8", "2002:a00:1::1"));
    CHECK(allows("fc00::/7", "fd12::1"));
  }

  TEST_CASE("what is no rule is refused with the ways to write one") {
    for (const char* wrong : {"",
                              "https://example.com",
                              "example.com/path",
                              "example.com:0",
                              "example.com:http",
                              "a.*.com",
                              "*example.com",
                              "*.",
                              "**",
                              "a@b",
                              "10.0.0.0/33",
                              "127.1",
                              "0x7f.0.0.1",
                              "[::1",
                              "2001:db8::1:80x",
                              "example.com:80:90",
                              "*.10.0.0.1",
                              "a b",
                              "ex\xc3\xa4mple.com",
                              "!example.com"}) {
      CAPTURE(wrong);
      CHECK_CONTAINS(error_of([&] { (void)RuleSet({wrong}); }), "is no rule");
    }
    CHECK_CONTAINS(error_of([] { (void)RuleSet({"10.0.0.1/8"}); }), "bits behind its prefix");
    const std::string both = error_of([] { (void)RuleSet({"a b", "ok.example", "c d"}); });
    CHECK_CONTAINS(both, "'a?b'");
    CHECK_CONTAINS(both, "'c?d'");
    for (const char* text : {"example.com", "*.example.com:22", "*", "*:*", "10.0.0.0/8:22",
                             "[2001:db8::/32]:22", "[2001:db8::1]"}) {
      CHECK(parse_rule(text).to_string() == text);
      CHECK(parse_rule(parse_rule(text).to_string()).to_string() == text);
    }
  }

  TEST_CASE("presets are lists of hosts, and the configuration's come first") {
    CHECK(allows("pypi", "files.pythonhosted.org"));
    CHECK(allows("@github", "codeload.github.com"));
    CHECK_CONTAINS(error_of([] { (void)RuleSet({"@githb"}); }), "there is no preset 'githb'");
    CHECK_CONTAINS(error_of([] { (void)RuleSet({"@githb"}); }), "did you mean `github`?");
    const Presets mine = {{"pypi", {"mirror.example:8080"}}, {"work", {"*.work.example", "10.0.0.0/8"}}};
    const RuleSet rules({"pypi", "work"}, mine);
    CHECK(rules.allows_name("mirror.example", 8080));
    CHECK_FALSE(rules.allows_name("pypi.org", 443));
    CHECK(rules.allows_name("a.work.example", 443));
    CHECK(rules.allows_address(*parse_address("10.0.0.1"), 80));
    CHECK(rules.texts() == std::vector<std::string>{"pypi", "work"});
    CHECK(names_special_addresses("work", mine));
    CHECK(names_special_addresses("@work", mine));
    CHECK_FALSE(names_special_addresses("pypi", mine));
    CHECK_FALSE(names_special_addresses("work"));
    check_presets(builtin_presets());
    check_presets(mine);
    CHECK_CONTAINS(error_of([] { check_presets({{"Work", {}}}); }), "'Work' is no name for a preset");
    CHECK_CONTAINS(error_of([] { check_presets({{"work", {"a b"}}}); }), "'a?b' is no rule");
    for (const auto& [name, entries] : builtin_presets()) CHECK_FALSE(RuleSet({"@" + name}).texts().empty());
  }

  TEST_CASE("the rule that would allow a host is one that allows it") {
    for (const char* target : {"example.com:443", "example.com:22", "10.0.0.1:80", "[2001:db8::1]:22",
                               "[fd00:ec2::254]:80", "169.254.169.254:1"}) {
      const HostPort at = parse_host_port(target);
      CHECK(allows(rule_for(at.host, at.port).c_str(), at.host.to_string().c_str(), at.port));
    }
    CHECK(rule_for(parse_host("example.com"), 443) == "example.com");
  }
}
