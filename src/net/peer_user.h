#pragma once

#include <sys/types.h>

#include <optional>

/// Whose process is at the other end of a TCP connection over this host's loopback: TCP itself does not say.
namespace hutch::net {

/// The user, as our user namespace sees it. Nothing when it cannot be told: because the kernel says it in
/// neither of the two ways below, or because the other end has closed its socket already.
std::optional<uid_t> peer_user(int socket) noexcept;

/// By one question to the kernel, sock_diag(7): some microseconds, however many connections there are.
std::optional<uid_t> peer_user_by_diag(int socket);
/// By reading /proc/net/tcp and tcp6, for kernels without tcp_diag and where seccomp takes netlink away:
/// milliseconds.
std::optional<uid_t> peer_user_by_proc(int socket);

}  // namespace hutch::net
