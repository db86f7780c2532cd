#include "net/peer_user.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <atomic>
#include <cstdio>
#include <cstring>
#include <string>

#include "base/sys.h"

namespace hutch::net {

namespace {

struct Ends {
  sockaddr_storage peer{}, own{};
  bool v6() const { return peer.ss_family == AF_INET6; }
};

std::optional<Ends> ends_of(int socket) {
  Ends out;
  socklen_t peer_size = sizeof out.peer, own_size = sizeof out.own;
  if (::getpeername(socket, reinterpret_cast<sockaddr*>(&out.peer), &peer_size) != 0 ||
      ::getsockname(socket, reinterpret_cast<sockaddr*>(&out.own), &own_size) != 0)
    return std::nullopt;
  if (out.peer.ss_family != AF_INET && out.peer.ss_family != AF_INET6) return std::nullopt;
  return out;
}

/// The address in network order, in as many words as it has.
struct PeerAddress {
  uint32_t words[4]{};
  uint16_t port = 0;  // in network order
};

PeerAddress address_of(const sockaddr_storage& end) {
  PeerAddress out;
  if (end.ss_family == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(end);
    std::memcpy(out.words, &v6.sin6_addr, sizeof out.words);
    out.port = v6.sin6_port;
  } else {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(end);
    out.words[0] = v4.sin_addr.s_addr;
    out.port = v4.sin_port;
  }
  return out;
}

/// A socket that its process has closed has no inode, and before Linux 6.17 root for its owner, whoever that
/// was.
std::optional<uid_t> user_of(uid_t user, uint64_t inode) {
  if (inode == 0 && user == 0) return std::nullopt;
  return user;
}

inet_diag_req_v2 question_about(const Ends& ends) {
  const PeerAddress peer = address_of(ends.peer), own = address_of(ends.own);
  inet_diag_req_v2 out{};
  out.sdiag_family = static_cast<uint8_t>(ends.peer.ss_family);
  out.sdiag_protocol = IPPROTO_TCP;
  out.idiag_states = ~0u;
  out.id.idiag_sport = peer.port;
  out.id.idiag_dport = own.port;
  std::memcpy(out.id.idiag_src, peer.words, sizeof peer.words);
  std::memcpy(out.id.idiag_dst, own.words, sizeof own.words);
  out.id.idiag_cookie[0] = out.id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;
  return out;
}

/// As /proc/net/tcp writes it: words as they lie in memory.
std::string in_proc(const PeerAddress& address, bool v6) {
  std::string out;
  for (int i = 0; i < (v6 ? 4 : 1); ++i) out += fmt::format("{:08X}", address.words[i]);
  return out + fmt::format(":{:04X}", ntohs(address.port));
}

std::optional<uid_t> find_in(const char* table, const std::string& peer, const std::string& own) {
  const std::string all = sys::read_file(table);
  const size_t line = all.find(fmt::format(": {} {} ", peer, own));
  if (line == all.npos) return std::nullopt;
  unsigned user = 0;
  unsigned long inode = 0;
  // local remote state queues timer retransmissions user timeout inode
  if (std::sscanf(all.c_str() + line, ": %*s %*s %*s %*s %*s %*s %u %*s %lu", &user, &inode) != 2)
    return std::nullopt;
  return user_of(user, inode);
}

}  // namespace

std::optional<uid_t> peer_user_by_diag(int socket) {
  const auto ends = ends_of(socket);
  const UniqueFd kernel(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
  if (!ends || !kernel) return std::nullopt;
  struct {
    nlmsghdr head{};
    inet_diag_req_v2 about{};
  } question;
  question.head.nlmsg_len = sizeof question;
  question.head.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  question.head.nlmsg_flags = NLM_F_REQUEST;
  question.about = question_about(*ends);
  if (::send(kernel.get(), &question, sizeof question, 0) < 0) return std::nullopt;
  struct {
    nlmsghdr head{};
    inet_diag_msg about{};
    char more[1024];
  } answer;
  // It is there once send() has returned.
  const ssize_t size = ::recv(kernel.get(), &answer, sizeof answer, MSG_DONTWAIT);
  if (size < static_cast<ssize_t>(offsetof(decltype(answer), more)) ||
      answer.head.nlmsg_type != SOCK_DIAG_BY_FAMILY)
    return std::nullopt;
  // Where there is no such connection it may be one that listens on the peer's port.
  if (answer.about.id.idiag_dport != question.about.id.idiag_dport) return std::nullopt;
  return user_of(answer.about.idiag_uid, answer.about.idiag_inode);
}

std::optional<uid_t> peer_user_by_proc(int socket) {
  const auto ends = ends_of(socket);
  if (!ends) return std::nullopt;
  const PeerAddress peer = address_of(ends->peer), own = address_of(ends->own);
  const std::string from = in_proc(peer, ends->v6()), to = in_proc(own, ends->v6());
  if (ends->v6()) return find_in("/proc/net/tcp6", from, to);
  if (const auto user = find_in("/proc/net/tcp", from, to)) return user;
  // An IPv6 socket that speaks IPv4.
  const std::string mapped = fmt::format("{:08X}{:08X}{:08X}", 0, 0, htonl(0xffff));
  return find_in("/proc/net/tcp6", mapped + from, mapped + to);
}

std::optional<uid_t> peer_user(int socket) noexcept {
  // A kernel that answers once always does: whoever connects and closes again must not cost us the other way.
  static std::atomic<bool> kernel_answers{false};
  try {
    const auto user = peer_user_by_diag(socket);
    if (user) kernel_answers = true;
    return user || kernel_answers ? user : peer_user_by_proc(socket);
  } catch (const std::exception&) {
    return std::nullopt;  // such as no /proc
  }
}

}  // namespace hutch::net
