/// Feeds bytes to everything that reads what a sandbox sends to the egress proxy, and rules: heads, chunks,
/// SOCKS5, ClientHello, hosts. Nothing may crash or throw anything but an Error, and what was accepted must
/// mean the same when it is written and read again.
///
/// With libFuzzer this is a fuzzer; with replay_main.cpp a program that replays files and folders.
#include <cstdint>
#include <cstdlib>

#include "net/http_body.h"
#include "net/rule.h"
#include "net/socks5.h"
#include "net/tls_hello.h"

namespace {

using namespace hutch;
using namespace hutch::net;

template <class Fn>
void allow_errors(Fn&& fn) {
  try {
    fn();
  } catch (const Error&) {
    // Most inputs are wrong; the point is that nothing else is thrown.
  }
}

void require(bool holds) {
  if (!holds) std::abort();
}

void heads(std::string_view bytes) {
  allow_errors([&] {
    const size_t length = head_length(bytes);
    if (length == 0) return;
    const std::string_view head = bytes.substr(0, length);
    allow_errors([&] {
      RequestHead request = parse_request_head(head);
      (void)request_framing(request);
      const RequestHead again = parse_request_head(request.to_string());
      require(again == request && request_framing(again) == request_framing(request));
      request.fields.remove_hop_by_hop();
      require(request_framing(parse_request_head(request.to_string())) == request_framing(again));
    });
    allow_errors([&] {
      const ResponseHead response = parse_response_head(head);
      require(parse_response_head(response.to_string()) == response);
      (void)response_framing(response, "GET");
    });
  });
}

/// All at once and byte by byte are the same, and so is what was written, read again.
void chunks(std::string_view bytes) {
  allow_errors([&] {
    ChunkReader whole, pieces, again;
    std::string out, other, third;
    const size_t taken = whole.take(bytes, out);
    for (const char& c : bytes.substr(0, taken)) require(pieces.take({&c, 1}, other) == 1);
    require(other.size() == out.size() || !whole.done());
    if (!whole.done()) return;
    require(again.take(out, third) == out.size() && again.done() && third == out);
  });
}

void socks(std::string_view bytes) {
  SocksHandshake whole, pieces;
  std::string answer, other;
  const size_t taken = whole.take(bytes, answer);
  for (const char& c : bytes.substr(0, taken)) (void)pieces.take({&c, 1}, other);
  require(answer == other && whole.done() == pieces.done() && whole.failed() == pieces.failed());
  if (whole.done()) require(parse_host_port(whole.target().to_string()) == whole.target());
}

void hosts(std::string_view bytes) {
  allow_errors([&] {
    const HostPort at = parse_host_port(bytes);
    require(parse_host_port(at.to_string()) == at);
    // The rule that a refusal names must be one that allows it.
    const RuleSet rules({rule_for(at.host, at.port)});
    require(at.host.address ? rules.allows_address(*at.host.address, at.port)
                            : rules.allows_name(at.host.name, at.port));
  });
  allow_errors([&] {
    const Rule rule = parse_rule(bytes);
    require(parse_rule(rule.to_string()).to_string() == rule.to_string());
  });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  heads(bytes);
  chunks(bytes);
  socks(bytes);
  hosts(bytes);
  allow_errors([&] { (void)parse_client_hello(bytes); });
  return 0;
}
