#pragma once

#include <linux/rtnetlink.h>

#include <concepts>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "base/ip_range.h"
#include "base/unique_fd.h"

namespace hutch::runtime {

/// One request to the kernel about cards, addresses and routes.
class RouteRequest {
 public:
  template <class Header>
  RouteRequest(uint16_t type, uint16_t flags, const Header& header) {
    const nlmsghdr start{.nlmsg_type = type,
                         .nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | NLM_F_ACK | flags)};
    append(&start, sizeof start);
    append(&header, sizeof header);
  }
  RouteRequest& add(uint16_t attribute, const void* data, size_t size);
  RouteRequest& add(uint16_t attribute, std::string_view text);  // with its NUL
  template <class Value>
  requires std::integral<Value> RouteRequest& add(uint16_t attribute, Value value) {
    return add(attribute, &value, sizeof value);
  }
  /// What `fill` adds becomes the content of an attribute.
  template <class Fill>
  RouteRequest& nest(uint16_t attribute, Fill fill) {
    const size_t start = bytes_.size();
    add(attribute, nullptr, 0);
    fill(*this);
    const auto size = static_cast<uint16_t>(bytes_.size() - start);
    std::memcpy(bytes_.data() + start, &size, sizeof size);
    return *this;
  }
  const std::string& bytes();

 private:
  void append(const void* data, size_t size);
  std::string bytes_;
};

/// A netlink socket of the network namespace in which it was opened.
class RouteSocket {
 public:
  /// `groups`: RTMGRP_*, of whose events events() reads.
  explicit RouteSocket(uint32_t groups = 0);
  /// Of all cards: where this socket was opened, wherever we are now. One of IPv6 comes with its network,
  /// whose other members are neighbours.
  std::vector<IpRange> addresses();
  /// Throws what the kernel says; `what` names it.
  void run(RouteRequest& request, std::string_view what);
  int fd() const noexcept { return fd_.get(); }
  /// Drops all events that are there, also when some were lost.
  void drop_events() noexcept;

 private:
  UniqueFd fd_;
};

}  // namespace hutch::runtime
