#pragma once

#include <functional>
#include <string>

#include "net/http_head.h"
#include "net/read_ahead.h"

/// HTTP and WebSocket to ports of sandboxes, over one listener of the host's loopback, without anything that
/// has to be set up first. Two forms of URL:
///  - for browsers `http://<port>-<id>.localhost:<p>/`: an origin, and a site, of its own for each port of
///    each sandbox, so that no page reads what belongs to another one. The first URL has a token, which is
///    kept in a cookie from then on;
///  - for programs `http://127.0.0.1:<p>/sandboxes/<id>/ports/<port>/<token>/`. All of them would be one
///    origin: what looks like a browser is refused there.
/// Other pages can have a browser send anything here (CSRF, DNS rebinding): Host and Origin have to be ours.
namespace hutch::net {

struct PortTarget {
  std::string sandbox_id;
  uint16_t port = 0;
  bool operator==(const PortTarget&) const = default;
};

struct PortRequest {
  PortTarget target;
  std::string token;    // as the request has it; may be empty
  std::string path;     // and query, as the server inside gets it: without what was for us
  bool by_url = false;  // of a browser's first request: to be kept as a cookie
  bool of_browser = false;
};

/// What a request means, or the status and the words with which it is refused.
struct PortRefusal {
  int status = 403;
  std::string text;
};
PortRequest read_port_request(const RequestHead& head, uint16_t own_port);  // throws PortRefusal

struct PortGatewayHooks {
  std::function<bool(const PortTarget&, std::string_view token)> admits;
  std::function<asio::awaitable<std::unique_ptr<Duplex>>(PortTarget)> connect;
};

std::string browser_url(const PortTarget& target, const std::string& token, uint16_t own_port);
std::string program_url(const PortTarget& target, const std::string& token, uint16_t own_port);

/// Serves one connection to its end. Never throws.
asio::awaitable<void> serve_port_requests(std::unique_ptr<Duplex> client, uint16_t own_port,
                                          const PortGatewayHooks& hooks);

}  // namespace hutch::net
