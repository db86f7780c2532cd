#include "runtime/rtnetlink.h"

#include <sys/socket.h>

#include "base/sys.h"

namespace hutch::runtime {

void RouteRequest::append(const void* data, size_t size) {
  if (size != 0) bytes_.append(static_cast<const char*>(data), size);
  bytes_.resize(NLMSG_ALIGN(bytes_.size()));
}

RouteRequest& RouteRequest::add(uint16_t attribute, const void* data, size_t size) {
  const rtattr head{.rta_len = static_cast<uint16_t>(RTA_LENGTH(size)), .rta_type = attribute};
  append(&head, sizeof head);
  append(data, size);
  return *this;
}

RouteRequest& RouteRequest::add(uint16_t attribute, std::string_view text) {
  const std::string word(text);
  return add(attribute, word.c_str(), word.size() + 1);
}

const std::string& RouteRequest::bytes() {
  const auto size = static_cast<uint32_t>(bytes_.size());
  std::memcpy(bytes_.data() + offsetof(nlmsghdr, nlmsg_len), &size, sizeof size);
  return bytes_;
}

RouteSocket::RouteSocket(uint32_t groups)
    : fd_(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)) {
  if (!fd_) throw sys_error(errno, "socket", "rtnetlink");
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = groups;
  if (::bind(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    throw sys_error(errno, "bind", "rtnetlink");
}

void RouteSocket::run(RouteRequest& request, std::string_view what) {
  const std::string& bytes = request.bytes();
  if (::send(fd_.get(), bytes.data(), bytes.size(), 0) < 0) throw sys_error(errno, "rtnetlink", what);
  alignas(nlmsghdr) char answer[4096];
  const ssize_t n = sys::retry_eintr([&] { return ::recv(fd_.get(), answer, sizeof answer, 0); });
  if (n < 0) throw sys_error(errno, "rtnetlink", what);
  nlmsghdr head{};
  nlmsgerr told{};
  if (static_cast<size_t>(n) < sizeof head + sizeof told.error) throw sys_error(EPROTO, "rtnetlink", what);
  std::memcpy(&head, answer, sizeof head);
  std::memcpy(&told.error, answer + sizeof head, sizeof told.error);
  if (head.nlmsg_type != NLMSG_ERROR) throw sys_error(EPROTO, "rtnetlink", what);
  if (told.error != 0) throw sys_error(-told.error, "rtnetlink", what);
}

namespace {

/// What one message of a dump says of an address.
void note_address(const nlmsghdr& head, const char* message, std::vector<IpRange>& out) {
  ifaddrmsg about{};
  std::memcpy(&about, message + NLMSG_HDRLEN, sizeof about);
  const bool v6 = about.ifa_family == AF_INET6;
  // IFA_LOCAL is our own where IFA_ADDRESS is that of the other end.
  for (size_t at = NLMSG_SPACE(sizeof about); at + sizeof(rtattr) <= head.nlmsg_len;) {
    rtattr attribute{};
    std::memcpy(&attribute, message + at, sizeof attribute);
    if (attribute.rta_len < sizeof attribute || at + attribute.rta_len > head.nlmsg_len) return;
    const bool is_address = attribute.rta_type == IFA_LOCAL || attribute.rta_type == IFA_ADDRESS;
    if (is_address && RTA_PAYLOAD(&attribute) == (v6 ? 16 : 4)) {
      out.push_back(IpRange::of_address(v6, message + at + RTA_LENGTH(0), v6 ? 128 : 32));
      if (v6 && about.ifa_prefixlen >= 32)
        out.push_back(IpRange::of_address(true, message + at + RTA_LENGTH(0), about.ifa_prefixlen));
    }
    at += RTA_ALIGN(attribute.rta_len);
  }
}

}  // namespace

std::vector<IpRange> RouteSocket::addresses() {
  RouteRequest request(RTM_GETADDR, NLM_F_DUMP, ifaddrmsg{});
  const std::string& bytes = request.bytes();
  if (::send(fd_.get(), bytes.data(), bytes.size(), 0) < 0) throw sys_error(errno, "rtnetlink", "addresses");
  std::vector<IpRange> out;
  std::vector<char> answer(64 << 10);
  for (;;) {
    const ssize_t n = sys::retry_eintr([&] { return ::recv(fd_.get(), answer.data(), answer.size(), 0); });
    if (n <= 0) throw sys_error(n < 0 ? errno : EPROTO, "rtnetlink", "addresses");
    for (size_t at = 0; at + sizeof(nlmsghdr) <= static_cast<size_t>(n);) {
      nlmsghdr head{};
      std::memcpy(&head, answer.data() + at, sizeof head);
      if (head.nlmsg_type == NLMSG_DONE) return out;
      if (head.nlmsg_type != RTM_NEWADDR || head.nlmsg_len < NLMSG_SPACE(sizeof(ifaddrmsg)) ||
          at + head.nlmsg_len > static_cast<size_t>(n))
        throw sys_error(EPROTO, "rtnetlink", "addresses");
      note_address(head, answer.data() + at, out);
      at += NLMSG_ALIGN(head.nlmsg_len);
    }
  }
}

void RouteSocket::drop_events() noexcept {
  char event[8192];
  while (::recv(fd_.get(), event, sizeof event, MSG_DONTWAIT) > 0 || errno == ENOBUFS || errno == EINTR)
    errno = 0;
}

}  // namespace hutch::runtime
