#include "net/peer_user.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utility>

#include "base/unique_fd.h"
#include "support.h"

namespace {

using namespace hutch;
using namespace hutch::net;

constexpr uid_t kOther = 54321;

/// A connection over loopback, and the end of it that was accepted.
struct Pair {
  explicit Pair(int listening_family, int client_family) {
    sockaddr_in6 at{};
    socklen_t size = sizeof at;
    at.sin6_family = static_cast<sa_family_t>(listening_family);
    if (listening_family == AF_INET6)
      at.sin6_addr = in6addr_loopback;
    else
      reinterpret_cast<sockaddr_in&>(at).sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    auto* const address = reinterpret_cast<sockaddr*>(&at);
    const UniqueFd listener(::socket(listening_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    REQUIRE(::bind(listener.get(), address, size) == 0);
    REQUIRE(::listen(listener.get(), 1) == 0);
    REQUIRE(::getsockname(listener.get(), address, &size) == 0);
    if (client_family == AF_INET6 && listening_family == AF_INET) {
      at.sin6_family = AF_INET6;
      at.sin6_flowinfo = 0;
      at.sin6_addr = in6_addr{};
      at.sin6_addr.s6_addr[10] = at.sin6_addr.s6_addr[11] = 0xff;
      at.sin6_addr.s6_addr[12] = 127;
      at.sin6_addr.s6_addr[15] = 1;
      size = sizeof at;
    }
    client.reset(::socket(at.sin6_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    REQUIRE(::connect(client.get(), address, size) == 0);
    accepted.reset(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    REQUIRE(accepted);
  }
  UniqueFd client, accepted;
};

}  // namespace

TEST_SUITE("whose the other end of a connection is") {
  TEST_CASE("our own is told in both ways, over IPv4, IPv6 and IPv4 of an IPv6 socket") {
    const std::pair<int, int> all[] = {{AF_INET, AF_INET}, {AF_INET6, AF_INET6}, {AF_INET, AF_INET6}};
    for (const auto& families : all) {
      CAPTURE(families.first);
      CAPTURE(families.second);
      const Pair pair(families.first, families.second);
      CHECK(peer_user(pair.accepted.get()) == ::geteuid());
      CHECK(peer_user_by_diag(pair.accepted.get()) == ::geteuid());
      CHECK(peer_user_by_proc(pair.accepted.get()) == ::geteuid());
    }
  }

  TEST_CASE("another user's is told as such") {
    if (::geteuid() != 0) return;
    const Pair own(AF_INET, AF_INET);
    REQUIRE(::seteuid(kOther) == 0);
    const Pair others(AF_INET, AF_INET);
    REQUIRE(::seteuid(0) == 0);
    CHECK(peer_user_by_diag(others.accepted.get()) == kOther);
    CHECK(peer_user_by_proc(others.accepted.get()) == kOther);
    CHECK(peer_user(own.accepted.get()) == 0);
  }

  TEST_CASE("one that was closed is never taken for root's") {
    if (::geteuid() != 0) return;
    REQUIRE(::seteuid(kOther) == 0);
    Pair pair(AF_INET, AF_INET);
    REQUIRE(::seteuid(0) == 0);
    pair.client.reset();
    for (const auto& found : {peer_user(pair.accepted.get()), peer_user_by_diag(pair.accepted.get()),
                              peer_user_by_proc(pair.accepted.get())})
      CHECK(found.value_or(kOther) == kOther);
  }

  TEST_CASE("what is no connection is nobody's") {
    const UniqueFd unconnected(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    CHECK(peer_user(unconnected.get()) == std::nullopt);
    CHECK(peer_user(-1) == std::nullopt);
  }
}
