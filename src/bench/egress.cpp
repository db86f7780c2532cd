#include <fmt/format.h>

#include "bench/made.h"
#include "bench/scenarios.h"
#include "bench/web.h"

/// What the network `filtered` costs: the way through the proxy, and commands beside such without a network.
namespace hutch::bench {

namespace {

/// The same client asks the same server, from a sandbox and from the host.
Json measure_client(const Context& context, const char* action) {
  // The server's address is a private one, which only a configuration can let callers name.
  const ServerCommand hutch = context.server({"EGRESS__CALLERS_MAY_ALLOW=all"});
  McpClient client(hutch);
  const TcpServer server = start_web_server();
  const std::string origin = fmt::format("127.0.0.1:{}", server.port());
  const std::string sandbox =
      sandbox_id_of(client.call(create_request({{"network", "filtered"}, {"allow", {origin}}})));
  const std::string code = web_client_code();
  LineProgram inside({{context.program, "exec", "-i", sandbox, "python3", "-c", code, origin}, hutch.env}),
      outside({{program_as_inside("python3"), "-c", code, origin}, {}});
  const auto by = [&](LineProgram& program) {
    return Operation{.run = [&] { return std::stod(program.ask(fmt::format("{}\n", action))); }};
  };
  return measure_in_turn({{"hutch", by(inside)}, {"host loopback", by(outside)}}, context.plan, 1);
}

Json measure_egress_connect(const Context& context) {
  return measure_client(context, "connect");
}
Json measure_egress_request(const Context& context) {
  return measure_client(context, "request");
}

Json measure_exec_filtered(const Context& context) {
  McpClient client(context.server());
  const auto exec_with = [&](const char* network) {
    const Request exec =
        exec_true_request(sandbox_id_of(client.call(create_request({{"network", network}}))));
    return Operation{.run = [&client, exec] { return client.exchange(exec); },
                     .finish = [&client] { client.check("exit 0"); }};
  };
  return measure_in_turn({{"filtered", exec_with("filtered")}, {"network none", exec_with("none")}},
                         context.plan, 1);
}

}  // namespace

const std::vector<Scenario>& egress_scenarios() {
  static const std::vector<Scenario> list = {
      {"egress_connect", "a CONNECT through the proxy and a request", measure_egress_connect},
      {"egress_request", "a request in a tunnel of the proxy, connected before", measure_egress_request},
      {"exec_filtered", "sandbox_exec of argv [true] with network filtered", measure_exec_filtered},
  };
  return list;
}

}  // namespace hutch::bench
