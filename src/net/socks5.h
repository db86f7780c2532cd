#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "net/host_name.h"

/// The server's side of SOCKS5 (RFC 1928) for CONNECT by name or address. A user and password (RFC 1929) are
/// taken where the client insists, and not looked at.
namespace hutch::net {

enum class SocksReply : uint8_t {
  succeeded = 0,
  failure = 1,
  not_allowed = 2,
  host_unreachable = 4,
  command_unknown = 7,
  address_unknown = 8
};

std::string socks_reply(SocksReply code);

class SocksHandshake {
 public:
  /// Takes what the client has sent and appends what it is to be answered; returns how many bytes were taken,
  /// fewer than all when done() or failed().
  size_t take(std::string_view bytes, std::string& answer);
  bool done() const { return step_ == Step::done; }
  /// Then the last answer says so already, and the stream is to be closed.
  bool failed() const { return step_ == Step::failed; }
  /// Where to, once done(): the answer to that is still to be given.
  const HostPort& target() const { return target_; }
  const std::string& why() const { return why_; }

 private:
  enum class Step { greeting, password, request, done, failed };
  size_t needed() const;
  void greeting(std::string& answer);
  void request(std::string& answer);
  void fail(std::string& answer, std::string reply, std::string why);

  Step step_ = Step::greeting;
  std::string message_;  // of the step, as far as it has come
  HostPort target_;
  std::string why_;
};

}  // namespace hutch::net
