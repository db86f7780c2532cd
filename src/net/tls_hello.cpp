#include "net/tls_hello.h"

#include <algorithm>
#include <cstdint>

#include "base/error.h"

namespace hutch::net {

namespace {

constexpr uint8_t kHandshake = 22, kClientHello = 1;
constexpr uint16_t kServerName = 0, kProtocols = 16, kEncryptedHello = 0xfe0d;

Error bad_hello(const char* why) {
  return Error(Errc::invalid_argument, std::string("the TLS connection does not begin as it must: ") + why);
}

/// Reads numbers and counted fields from the front; past the end is an Error.
class HelloReader {
 public:
  explicit HelloReader(std::string_view bytes) : rest_(bytes) {}

  std::string_view take(size_t count) {
    if (count > rest_.size()) throw bad_hello("a length in it is wrong");
    const std::string_view part = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return part;
  }
  size_t number(size_t bytes) {
    size_t value = 0;
    for (const char c : take(bytes)) value = value << 8 | static_cast<uint8_t>(c);
    return value;
  }
  /// A field with its length, a number of `length_bytes`, before it.
  std::string_view field(size_t length_bytes) { return take(number(length_bytes)); }
  bool empty() const { return rest_.empty(); }

 private:
  std::string_view rest_;
};

/// What handshake records carry; less than was said when more is to come.
std::optional<std::string> handshake_bytes(std::string_view bytes) {
  std::string out;
  size_t wanted = 4;
  while (out.size() < wanted) {
    if (bytes.size() < 5) return std::nullopt;
    HelloReader header(bytes.substr(0, 5));
    if (header.number(1) != kHandshake || header.number(1) != 3) throw bad_hello("it is no TLS handshake");
    (void)header.number(1);
    const size_t length = header.number(2);
    if (length == 0 || length > 16'384) throw bad_hello("a record has a wrong length");
    if (bytes.size() < 5 + length) return std::nullopt;
    out += bytes.substr(5, length);
    bytes.remove_prefix(5 + length);
    if (out.size() < 4) continue;
    HelloReader message(out);
    if (message.number(1) != kClientHello) throw bad_hello("it is no ClientHello");
    wanted = 4 + message.number(3);
    if (wanted > kMaxHelloBytes) throw bad_hello("it is too long");
  }
  if (out.size() > wanted) throw bad_hello("something is behind it in its record");
  return out.substr(4);
}

std::string read_server_name(std::string_view extension) {
  HelloReader outer(extension);
  HelloReader list(outer.field(2));
  if (list.number(1) != 0) throw bad_hello("its server name is of an unknown kind");
  const std::string_view name = list.field(2);
  // More than one name was never used, and who would read which?
  if (name.empty() || !list.empty() || !outer.empty()) throw bad_hello("its server name is not one");
  return std::string(name);
}

std::vector<std::string> read_protocols(std::string_view extension) {
  HelloReader outer(extension);
  HelloReader list(outer.field(2));
  if (!outer.empty()) throw bad_hello("a length in it is wrong");
  std::vector<std::string> out;
  while (!list.empty()) out.emplace_back(list.field(1));
  return out;
}

void read_extensions(std::string_view bytes, ClientHello& hello) {
  std::vector<size_t> seen;
  for (HelloReader reader(bytes); !reader.empty();) {
    const size_t kind = reader.number(2);
    const std::string_view extension = reader.field(2);
    if (std::ranges::find(seen, kind) != seen.end()) throw bad_hello("an extension is given twice");
    seen.push_back(kind);
    if (kind == kServerName) hello.server_name = read_server_name(extension);
    if (kind == kProtocols) hello.protocols = read_protocols(extension);
    if (kind == kEncryptedHello) hello.encrypted_hello = true;
  }
}

}  // namespace

std::optional<ClientHello> parse_client_hello(std::string_view bytes) {
  const auto message = handshake_bytes(bytes);
  if (!message) {
    if (bytes.size() > kMaxHelloBytes) throw bad_hello("it is too long");
    return std::nullopt;
  }
  HelloReader reader(*message);
  if (reader.number(1) != 3) throw bad_hello("its version is none");
  (void)reader.take(1 + 32);  // the version's other half, the client's random number
  (void)reader.field(1);      // session
  (void)reader.field(2);      // ciphers
  (void)reader.field(1);      // compressions
  ClientHello hello;
  if (!reader.empty()) read_extensions(reader.field(2), hello);
  if (!reader.empty()) throw bad_hello("something is behind its extensions");
  return hello;
}

}  // namespace hutch::net
