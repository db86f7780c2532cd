#include "runtime/stage_network.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <grp.h>
#include <linux/fib_rules.h>
#include <linux/if_addr.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>

#include "base/sys.h"
#include "runtime/network_rules.h"
#include "runtime/packet_filter.h"
#include "runtime/rtnetlink.h"
#include "runtime/stage.h"

namespace hutch::runtime {

namespace {

constexpr const char* kCard = "eth0";
constexpr const char* kTun = "/dev/net/tun";
constexpr const char* kGatewayMac = "52:54:00:68:75:01";
constexpr uint8_t kGatewayMacBytes[] = {0x52, 0x54, 0x00, 0x68, 0x75, 0x01};
constexpr uint32_t kMtu = 65520;  // nothing of it is ever on a wire; pasta's most
constexpr int kNetworkFd = 3, kReadyFd = 4;

void must(long rc, std::string_view call, std::string_view object) {
  if (rc < 0) throw sys_error(errno, call, object);
}

/// What the host has of one kind of address.
struct Family {
  bool v6;
  const SandboxNetwork& network;
  bool routed = false, resolver = false;
};

/// Sends nothing: the kernel only looks for a route to a public address.
bool has_route(const Family& family) {
  const UniqueFd fd(::socket(family.v6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd) return false;
  sockaddr_in to4{.sin_family = AF_INET, .sin_port = htons(9), .sin_addr = {}};
  sockaddr_in6 to6{.sin6_family = AF_INET6, .sin6_port = htons(9)};
  ::inet_pton(AF_INET, "193.0.14.129", &to4.sin_addr);  // a root name server
  ::inet_pton(AF_INET6, "2001:7fd::1", &to6.sin6_addr);
  const auto* to =
      family.v6 ? reinterpret_cast<const sockaddr*>(&to6) : reinterpret_cast<const sockaddr*>(&to4);
  return ::connect(fd.get(), to, family.v6 ? sizeof to6 : sizeof to4) == 0;
}

/// As pasta reads it: the first of each kind is who answers.
bool has_resolver(const Family& family, const std::string& resolv_conf) {
  constexpr std::string_view kWord = "\nnameserver ";
  for (size_t at = 0; (at = resolv_conf.find(kWord, at)) != std::string::npos;) {
    at += kWord.size();
    const auto address =
        IpRange::parse(resolv_conf.substr(at, resolv_conf.find_first_of("% \t\r\n", at) - at));
    if (address && address->v6 == family.v6) return true;
  }
  return false;
}

std::vector<Family> families_of_host() {
  std::vector<Family> out{{.v6 = false, .network = kNetwork4}, {.v6 = true, .network = kNetwork6}};
  const UniqueFd file = sys::open_if_exists("/etc/resolv.conf", O_RDONLY);
  const std::string resolv_conf = "\n" + (file ? sys::read_all(file.get(), 1 << 20) : "");
  for (Family& family : out) {
    family.routed = has_route(family);
    family.resolver = family.routed && has_resolver(family, resolv_conf);
  }
  if (!out[0].routed && !out[1].routed)
    throw Error(Errc::unavailable, "this host has no route to any public address");
  return out;
}

/// Where no udev has been at work, the device is root's alone, and pasta is not root.
void open_tun_to_all() {
  struct stat st {};
  if (::stat(kTun, &st) != 0)
    throw Error(Errc::unavailable, fmt::format("there is no {0}: modprobe tun", kTun));
  if ((st.st_mode & 06) == 06) return;
  if (::geteuid() != 0)
    throw Error(Errc::unavailable, fmt::format("{0} is root's alone: chmod 666 {0}", kTun));
  must(::unshare(CLONE_NEWNS), "unshare", "mount namespace");
  must(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), "make private", "/");
  must(::mount("tmpfs", "/dev/net", "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755,size=4k"), "mount tmpfs on",
       "/dev/net");
  must(::mknod(kTun, S_IFCHR | 0666, ::makedev(10, 200)), "mknod", kTun);
}

/// From here on we are the root of the sandbox, which is nobody outside.
void become_root_of(const UniqueFd& users) {
  (void)::setgroups(0, nullptr);  // a server without privileges may not
  must(::setns(users.get(), CLONE_NEWUSER), "setns", "the sandbox's users");
  must(::setresgid(0, 0, 0), "setresgid", "0");
  must(::setresuid(0, 0, 0), "setresuid", "0");
}

std::vector<std::string> pasta_words(const std::string& program, const std::vector<Family>& families) {
  // None of the host's loopback (--no-map-gw), no port in either direction, no card that it configures.
  std::vector<std::string> words{program,
                                 "-f",
                                 "-q",
                                 "--netns",
                                 fmt::format("/proc/self/fd/{}", kNetworkFd),
                                 "--no-netns-quit",
                                 "-I",
                                 kCard,
                                 "-M",
                                 kGatewayMac,
                                 "--no-map-gw",
                                 "-t",
                                 "none",
                                 "-u",
                                 "none",
                                 "-T",
                                 "none",
                                 "-U",
                                 "none",
                                 "--no-dhcp",
                                 "--no-dhcpv6",
                                 "--no-ra",
                                 "--no-ndp",
                                 "-P",
                                 fmt::format("/proc/self/fd/{}", kReadyFd)};
  if (!families[0].routed) words.emplace_back("-6");
  if (!families[1].routed) words.emplace_back("-4");
  for (const Family& family : families) {
    if (family.routed)
      words.insert(words.end(), {"-a", family.network.address, "-g", family.network.gateway});
    if (family.resolver) words.insert(words.end(), {"--dns-forward", family.network.resolver});
  }
  return words;
}

/// Kills what it holds, at the latest with us.
struct Pasta {
  pid_t pid = 0;
  UniqueFd pidfd, said, ready;
  Pasta() = default;
  Pasta(const Pasta&) = delete;
  Pasta& operator=(const Pasta&) = delete;
  ~Pasta() {
    if (pid <= 0) return;
    ::kill(pid, SIGKILL);
    (void)sys::retry_eintr([&] { return ::waitpid(pid, nullptr, 0); });
  }
};

[[noreturn]] void exec_pasta(const std::vector<std::string>& words, int network, int ready,
                             int said) noexcept {
  // Above the numbers that they get.
  network = ::fcntl(network, F_DUPFD, 10), ready = ::fcntl(ready, F_DUPFD, 10),
  said = ::fcntl(said, F_DUPFD, 10);
  ::dup2(said, STDOUT_FILENO);
  ::dup2(said, STDERR_FILENO);
  ::dup2(network, kNetworkFd);
  ::dup2(ready, kReadyFd);
  ::syscall(SYS_close_range, kReadyFd + 1, ~0u, 0);
  std::vector<char*> argv;
  for (const auto& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  char* env[] = {nullptr};
  ::execve(argv[0], argv.data(), env);
  ::_exit(127);
}

void start_pasta(Pasta& pasta, const std::vector<std::string>& words, const UniqueFd& network) {
  pasta.said = UniqueFd(::memfd_create("hutch-pasta", MFD_CLOEXEC));
  must(pasta.said.get(), "memfd_create", "pasta's words");
  sys::Pipe ready = sys::pipe();
  pasta.pid = ::fork();
  must(pasta.pid, "fork", "pasta");
  if (pasta.pid == 0) exec_pasta(words, network.get(), ready.write_end.get(), pasta.said.get());
  pasta.pidfd = UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, pasta.pid, 0)));
  must(pasta.pidfd.get(), "pidfd_open", "pasta");
  pasta.ready = std::move(ready.read_end);
}

/// It writes its number when its card is there.
void wait_for_pasta(const Pasta& pasta, const UniqueFd& agent) {
  pollfd fds[] = {{.fd = pasta.ready.get(), .events = POLLIN}, {.fd = agent.get(), .events = POLLIN}};
  must(sys::retry_eintr([&] { return ::poll(fds, 2, -1); }), "poll", "pasta");
  if (fds[1].revents != 0) throw Error(Errc::unavailable, "the sandbox has ended meanwhile");
  char number[32];
  if (sys::retry_eintr([&] { return ::read(pasta.ready.get(), number, sizeof number); }) > 0) return;
  ::lseek(pasta.said.get(), 0, SEEK_SET);
  std::string said = sys::read_all(pasta.said.get(), 1 << 20);
  while (!said.empty() && said.back() == '\n') said.pop_back();
  throw Error(Errc::unavailable, fmt::format("pasta has ended: {}", said.empty() ? "it said nothing" : said));
}

/// The card in the sandbox, whose network namespace we are in.
class Card {
 public:
  explicit Card(const std::vector<Family>& families) : families_(families), index_(::if_nametoindex(kCard)) {
    if (index_ == 0) throw sys_error(errno, "if_nametoindex", kCard);
  }

  /// In this order: all that leaves the card is judged before anything can.
  void set_up(const std::vector<NetworkRule>& rules) {
    add_filter_place();
    set_filter(rules);
    bring_up();
    for (const Family& family : families_) {
      if (!family.routed) continue;
      add_address(family);
      add_gateway(family);
      refuse_questions_by_tcp(family);
    }
    refuse_early(rules);
    for (const Family& family : families_)
      if (family.routed) set_route(IpRange{.v6 = family.v6}, RTN_UNICAST);
  }

  void change(const std::vector<NetworkRule>& rules) {
    set_filter(rules);
    refuse_early(rules);
  }

 private:
  static auto address_of(bool v6, const char* text) {
    std::array<uint8_t, 16> bytes{};
    ::inet_pton(v6 ? AF_INET6 : AF_INET, text, bytes.data());
    return bytes;
  }
  static size_t size_of(bool v6) { return v6 ? 16 : 4; }
  static uint8_t kind(bool v6) { return v6 ? AF_INET6 : AF_INET; }

  void add_filter_place() {
    RouteRequest place(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL,
                       tcmsg{.tcm_ifindex = static_cast<int>(index_),
                             .tcm_handle = TC_H_MAKE(TC_H_CLSACT, 0),
                             .tcm_parent = TC_H_CLSACT});
    place.add(TCA_KIND, "clsact");
    socket_.run(place, "a place for the packet filter (modprobe sch_ingress)");
  }

  /// Routes alone are not enough: a socket that is bound to the card goes past those that refuse (the kernel
  /// then takes the address for one of a neighbour), and a multicast needs no route.
  void set_filter(const std::vector<NetworkRule>& rules) {
    const auto program = packet_filter(rules);
    RouteRequest filter(RTM_NEWTFILTER, NLM_F_CREATE,
                        tcmsg{.tcm_ifindex = static_cast<int>(index_),
                              .tcm_handle = 1,
                              .tcm_parent = TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_EGRESS),
                              .tcm_info = TC_H_MAKE(1u << 16, htons(ETH_P_ALL))});
    filter.add(TCA_KIND, "bpf").nest(TCA_OPTIONS, [&](RouteRequest& options) {
      options.add(TCA_BPF_OPS_LEN, static_cast<uint16_t>(program.size()))
          .add(TCA_BPF_OPS, program.data(), program.size() * sizeof program[0])
          .add(TCA_BPF_FLAGS, uint32_t{TCA_BPF_FLAG_ACT_DIRECT});
    });
    socket_.run(filter, "the packet filter (modprobe cls_bpf)");
  }

  void bring_up() {
    RouteRequest link(
        RTM_NEWLINK, 0,
        ifinfomsg{.ifi_index = static_cast<int>(index_), .ifi_flags = IFF_UP, .ifi_change = IFF_UP});
    link.add(IFLA_MTU, kMtu);
    socket_.run(link, "the sandbox's network card");
  }

  void add_address(const Family& family) {
    const auto address = address_of(family.v6, family.network.address);
    RouteRequest request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE,
                         ifaddrmsg{.ifa_family = kind(family.v6),
                                   .ifa_prefixlen = static_cast<uint8_t>(size_of(family.v6) * 8),
                                   .ifa_flags = IFA_F_NODAD,
                                   .ifa_index = index_});
    request.add(IFA_LOCAL, address.data(), size_of(family.v6))
        .add(IFA_ADDRESS, address.data(), size_of(family.v6));
    socket_.run(request, family.network.address);
  }

  /// For good: nobody is asked for its place, and nobody else has one.
  void add_gateway(const Family& family) {
    const auto address = address_of(family.v6, family.network.gateway);
    RouteRequest request(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE,
                         ndmsg{.ndm_family = kind(family.v6),
                               .ndm_ifindex = static_cast<int>(index_),
                               .ndm_state = NUD_PERMANENT});
    request.add(NDA_DST, address.data(), size_of(family.v6))
        .add(NDA_LLADDR, kGatewayMacBytes, sizeof kGatewayMacBytes);
    socket_.run(request, family.network.gateway);
  }

  /// So that a program hears at once what would otherwise be a packet without an answer.
  void refuse_early(const std::vector<NetworkRule>& rules) {
    for (const auto& rule : rules)
      if (families_[rule.range.v6 ? 1 : 0].routed)
        set_route(rule.range, rule.allowed ? RTN_UNICAST : RTN_PROHIBIT);
  }

  /// pasta forwards questions by UDP alone. After an answer that did not fit a program asks again by TCP, and
  /// is to hear that this does not work rather than nothing.
  void refuse_questions_by_tcp(const Family& family) {
    const auto resolver = address_of(family.v6, family.network.resolver);
    RouteRequest request(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL,
                         fib_rule_hdr{.family = kind(family.v6),
                                      .dst_len = static_cast<uint8_t>(size_of(family.v6) * 8),
                                      .action = FR_ACT_PROHIBIT});
    request.add(FRA_PRIORITY, uint32_t{100}).add(FRA_IP_PROTO, uint8_t{IPPROTO_TCP});
    request.add(FRA_DST, resolver.data(), size_of(family.v6));
    socket_.run(request, "a routing rule");
  }

  void set_route(const IpRange& to, uint8_t type) {
    const bool passes = type == RTN_UNICAST;
    RouteRequest request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE,
                         rtmsg{.rtm_family = kind(to.v6),
                               .rtm_dst_len = static_cast<uint8_t>(to.prefix),
                               .rtm_table = RT_TABLE_MAIN,
                               .rtm_protocol = RTPROT_STATIC,
                               .rtm_scope = RT_SCOPE_UNIVERSE,
                               .rtm_type = type,
                               .rtm_flags = passes ? unsigned{RTNH_F_ONLINK} : 0u});
    if (to.prefix != 0) request.add(RTA_DST, to.address.data(), size_of(to.v6));
    if (passes) {
      const auto gateway = address_of(to.v6, families_[to.v6 ? 1 : 0].network.gateway);
      request.add(RTA_GATEWAY, gateway.data(), size_of(to.v6)).add(RTA_OIF, index_);
    }
    socket_.run(request, to.to_string());
  }

  const std::vector<Family>& families_;
  const unsigned index_;
  RouteSocket socket_;
};

std::vector<IpRange> with_resolvers(std::vector<IpRange> allow, const std::vector<Family>& families) {
  for (const Family& family : families)
    if (family.resolver) allow.push_back(*IpRange::parse(family.network.resolver));
  return allow;
}

void tell(UniqueFd& told, std::string_view word) {
  (void)!::write(told.get(), word.data(), word.size());
  told.reset();
}

/// Sockets of the host's network. Services of the host listen on its addresses, and its neighbours by IPv6
/// have public addresses too, behind a firewall that the host is already past.
struct Host {
  RouteSocket changes{RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR}, now;
};

/// Ends with the sandbox, or with its pasta.
void keep(const UniqueFd& agent, const Pasta& pasta, Host& host, Card& card,
          const std::vector<IpRange>& allow) {
  for (;;) {
    pollfd fds[] = {{.fd = agent.get(), .events = POLLIN},
                    {.fd = pasta.pidfd.get(), .events = POLLIN},
                    {.fd = host.changes.fd(), .events = POLLIN}};
    must(sys::retry_eintr([&] { return ::poll(fds, 3, -1); }), "poll", "the sandbox");
    if (fds[0].revents != 0 || fds[1].revents != 0) return;
    host.changes.drop_events();
    card.change(network_rules(allow, host.now.addresses()));
  }
}

[[noreturn]] void run_network(StageNetwork wanted, UniqueFd told,
                              std::initializer_list<int> not_ours) noexcept {
  try {
    ::prctl(PR_SET_NAME, "hutch-network");
    for (const int fd : not_ours) ::close(fd);
    const auto families = families_of_host();
    const auto allow = with_resolvers(allowed_ranges(wanted.allow), families);
    Host host;
    open_tun_to_all();
    become_root_of(wanted.users);
    Pasta pasta;
    start_pasta(pasta, pasta_words(wanted.pasta, families), wanted.network);
    wait_for_pasta(pasta, wanted.agent);
    must(::setns(wanted.network.get(), CLONE_NEWNET), "setns", "the sandbox's network");
    Card card(families);
    card.set_up(network_rules(allow, host.now.addresses()));
    tell(told, "made");
    keep(wanted.agent, pasta, host, card, allow);
  } catch (const Error& e) {
    tell(told, error_text(e));
  } catch (const std::exception& e) {
    tell(told, e.what());
  }
  ::_exit(0);
}

}  // namespace

void attach_network(StageNetwork wanted) {
  sys::Pipe told = sys::pipe();
  const pid_t pid = ::fork();
  must(pid, "fork", "the sandbox's network");
  if (pid == 0) {
    told.read_end.reset();
    run_network(std::move(wanted), std::move(told.write_end), {kStageStatusFd, kStageGoFd, kStagePidFd});
  }
  told.write_end.reset();
  char word[2000];
  const ssize_t n = sys::retry_eintr([&] { return ::read(told.read_end.get(), word, sizeof word); });
  if (const std::string_view said(word, static_cast<size_t>(std::max<ssize_t>(n, 0))); said != "made")
    throw Error(Errc::unavailable, said.empty() ? "its process ended" : std::string(said));
}

}  // namespace hutch::runtime
