#include <fmt/format.h>

#include <deque>
#include <memory>

#include "base/error.h"
#include "bench/relays.h"
#include "bench/scenarios.h"

/// Ports of sandboxes that are reached from the host, beside the same server on the host's loopback, alone
/// and behind other programs that pass connections on.
namespace hutch::bench {

namespace {

constexpr uint16_t kPortInside = 8000;

/// Where a web server is asked.
struct Place {
  std::string what;
  uint16_t port = 0;
  std::string path = "/";
};

/// From the last URL of a tool's result.
Place place_in(const Json& result) {
  constexpr std::string_view kStart = "http://127.0.0.1:";
  const std::string text = text_of(result);
  const size_t start = text.rfind(kStart), slash = text.find('/', start + kStart.size());
  if (start == std::string::npos || slash == std::string::npos)
    throw Error(Errc::internal, "no URL in the answer: " + text.substr(0, 200));
  return {.what = "hutch",
          .port = static_cast<uint16_t>(std::stoi(text.substr(start + kStart.size()))),
          .path = text.substr(slash, text.find('\n', slash) - slash)};
}

/// Has a web server in the default sandbox; the port as `tool` opens it.
Place open_port(McpClient& client, const char* tool) {
  (void)client.call(Request::tool(
      "sandbox_exec",
      {{"argv", {"python3", "-c", web_server_code(), std::to_string(kPortInside)}}, {"background", true}}));
  const Json port = {{"port", kPortInside}};
  (void)client.call(Request::tool("sandbox_expose_port", port));  // which waits for it
  return place_in(client.call(Request::tool(tool, port)));
}

using OperationAt = Operation (*)(const Place& place);

Json measure_places(const Context& context, const Plan& plan, const char* tool, OperationAt operation,
                    const std::string& path = "") {
  McpClient client(context.server());
  std::vector<Place> places{open_port(client, tool)};
  std::deque<TcpServer> servers;
  servers.push_back(start_web_server());
  const uint16_t target = servers.front().port();
  places.push_back({.what = "host loopback", .port = target});
  for (const auto& relay : context.relays) {
    servers.push_back(start_relay(relay, fmt::format("{}/{}", context.home, relay.name), target));
    places.push_back({.what = relay.name, .port = servers.back().port()});
  }
  std::vector<Way> ways;
  for (auto& place : places) {
    place.path += path;
    ways.push_back({place.what.c_str(), operation(place)});
  }
  return measure_in_turn(ways, plan, 1);
}

Operation request_at(const Place& place) {
  return {.run = [place, connection = std::make_shared<WebConnection>(place.port)] {
    const auto start = Clock::now();
    connection->get(place.path);
    return ms_since(start);
  }};
}

Operation connect_at(const Place& place) {
  return {.run = [place] {
    const auto start = Clock::now();
    WebConnection(place.port).get(place.path);
    return ms_since(start);
  }};
}

Json measure_port_request(const Context& context) {
  return measure_places(context, context.plan, "sandbox_expose_port", request_at);
}
Json measure_port_connect(const Context& context) {
  return measure_places(context, context.plan, "sandbox_expose_port", connect_at);
}
Json measure_port_url(const Context& context) {
  return measure_places(context, context.plan, "sandbox_port_url", request_at);
}

Json measure_port_stream(const Context& context) {
  const size_t mib = context.plan.spaced_n < Plan{}.spaced_n ? 128 : 1024, bytes = mib << 20;
  Json out =
      measure_places(context, few(context.plan), "sandbox_expose_port", request_at, std::to_string(bytes));
  out["what"] = fmt::format("{} MiB out of a sandbox through a port of it on the host", mib);
  out["bytes"] = bytes;
  return out;
}

}  // namespace

const std::vector<Scenario>& port_scenarios() {
  static const std::vector<Scenario> list = {
      {"port_request", "a request through sandbox_expose_port, connected before", measure_port_request},
      {"port_connect", "a connection and a request through sandbox_expose_port", measure_port_connect},
      {"port_url_request", "a request through sandbox_port_url, connected before", measure_port_url},
      {"port_stream", "a stream through sandbox_expose_port", measure_port_stream},
  };
  return list;
}

}  // namespace hutch::bench
