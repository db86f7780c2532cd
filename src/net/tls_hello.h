#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// The first message of a TLS client, which is not encrypted yet (RFC 8446, 4.1.2).
namespace hutch::net {

constexpr size_t kMaxHelloBytes = 16 << 10;

struct ClientHello {
  std::optional<std::string> server_name;  // as it was sent
  std::vector<std::string> protocols;      // ALPN
  bool encrypted_hello = false;            // ECH, or its imitation (GREASE): browsers always send one
};

constexpr bool looks_like_tls(std::string_view bytes) {
  return !bytes.empty() && bytes[0] == 0x16;
}

/// `bytes` are what the client has sent so far; nothing: more is needed. Throws Error(invalid_argument) when
/// it is no ClientHello, has more than one reading, or is longer than kMaxHelloBytes.
std::optional<ClientHello> parse_client_hello(std::string_view bytes);

}  // namespace hutch::net
