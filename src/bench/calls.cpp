#include <fmt/format.h>

#include <memory>

#include "base/error.h"
#include "bench/scenarios.h"

namespace hutch::bench {

namespace {

/// Text of `bytes` bytes in lines of 64, which has each of its lines once.
std::string text_of_size(size_t bytes, std::string_view first_line) {
  std::string text(first_line);
  text += '\n';
  for (size_t line = 1; text.size() < bytes; ++line)
    text += fmt::format("{:08} {}\n", line, std::string(54, '.'));
  text.resize(bytes - 1);
  return text + '\n';
}

constexpr size_t k4k = 4096, k1m = 1 << 20;

/// Requests that are sent in turn to one server, in its default sandbox, which `set_up` has made.
Json measure_calls(const ServerCommand& command, const std::vector<Request>& set_up,
                   const std::vector<Request>& calls, std::string_view expect, const Plan& plan) {
  McpClient client(command);
  for (const auto& request : set_up) (void)client.call(request);
  size_t turn = 0;
  Operation operation;
  operation.run = [&] { return client.exchange(calls[turn++ % calls.size()]); };
  operation.finish = [&] { client.check(expect); };
  return measure(operation, plan);
}

Request exec(const Json& arguments) {
  return Request::tool("sandbox_exec", arguments);
}
Request exec_true() {
  return exec({{"argv", {"true"}}});
}
Request write(size_t bytes, std::string_view first_line) {
  return Request::tool("sandbox_write_file",
                       {{"path", "file.txt"}, {"content", text_of_size(bytes, first_line)}});
}
Request read() {
  return Request::tool("sandbox_read_file", {{"path", "file.txt"}});
}
Request edit(std::string_view from, std::string_view to) {
  return Request::tool("sandbox_edit_file",
                       {{"path", "file.txt"}, {"edits", {{{"old_str", from}, {"new_str", to}}}}});
}

Json measure_start(const Context& context) {
  std::unique_ptr<McpClient> client;
  Operation operation;
  operation.run = [&] {
    client = std::make_unique<McpClient>(context.server());
    return client->start_ms();
  };
  operation.finish = [&] { client.reset(); };
  operation.batch = 1;
  return measure(operation, context.plan);
}

Json measure_ping(const Context& context) {
  return measure_calls(context.server(), {}, {Request("ping", Json::object())}, "", context.plan);
}

Json measure_exec(const Context& context, const Json& arguments) {
  return measure_calls(context.server(), {exec_true()}, {exec(arguments)}, "exit 0", context.plan);
}
Json measure_exec_true(const Context& context) {
  return measure_exec(context, {{"argv", {"true"}}});
}
Json measure_exec_sh(const Context& context) {
  return measure_exec(context, {{"command", "true"}});
}
Json measure_exec_python(const Context& context) {
  return measure_exec(context, {{"argv", {"python3", "-c", "pass"}}});
}

Json measure_eval(const Context& context) {
  const Request eval =
      Request::tool("sandbox_eval", {{"code", "1+1"}, {"language", "python"}, {"session", "bench"}});
  return measure_calls(context.server(), {eval}, {eval}, "=> 2", context.plan);
}
/// 100 MB that a command prints, as fast as it can be read.
Json measure_output(const Context& context) {
  return measure_exec(context, {{"command", "head -c 100000000 /dev/zero"}, {"output_limit", 1000}});
}

Json measure_read(const Context& context, size_t bytes) {
  // The largest limit there is: of 1 MiB, 1,000,000 characters come back.
  return measure_calls(context.server({"SANDBOX__READ_LIMIT=1000000"}), {write(bytes, "one")}, {read()},
                       "file.txt", context.plan);
}
Json measure_write(const Context& context, size_t bytes) {
  return measure_calls(context.server(), {exec_true()}, {write(bytes, "one"), write(bytes, "two")},
                       "file.txt", context.plan);
}
Json measure_edit(const Context& context, size_t bytes) {
  return measure_calls(context.server(), {write(bytes, "one")},
                       {edit("one\n", "two\n"), edit("two\n", "one\n")}, "1 place", context.plan);
}

Json measure_parallel(const Context& context, size_t count) {
  McpClient client(context.server());
  (void)client.call(exec_true());
  const Request request = exec_true();
  Operation operation;
  operation.run = [&] { return client.exchange_side_by_side(request, count); };
  operation.finish = [&] { client.check("exit 0"); };
  return measure(operation, context.plan);
}

}  // namespace

const std::vector<Scenario>& call_scenarios() {
  static const std::vector<Scenario> list = {
      {"start", "start of the server to its answer to initialize", measure_start},
      {"ping", "ping", measure_ping},
      {"exec_true", "sandbox_exec of argv [true]", measure_exec_true},
      {"exec_sh", "sandbox_exec of command true", measure_exec_sh},
      {"exec_python", "sandbox_exec of python3 -c pass", measure_exec_python},
      {"eval_session", "sandbox_eval of 1+1 in a live python session", measure_eval},
      {"output_100m", "sandbox_exec that prints 100 MB", measure_output},
      {"read_4k", "sandbox_read_file, 4 KiB", [](const Context& c) { return measure_read(c, k4k); }},
      {"write_4k", "sandbox_write_file, 4 KiB", [](const Context& c) { return measure_write(c, k4k); }},
      {"edit_4k", "sandbox_edit_file, 4 KiB", [](const Context& c) { return measure_edit(c, k4k); }},
      {"read_1m", "sandbox_read_file, 1 MiB", [](const Context& c) { return measure_read(c, k1m); }},
      {"write_1m", "sandbox_write_file, 1 MiB", [](const Context& c) { return measure_write(c, k1m); }},
      {"edit_1m", "sandbox_edit_file, 1 MiB", [](const Context& c) { return measure_edit(c, k1m); }},
      {"parallel_10", "10 sandbox_exec of true at once, all done",
       [](const Context& c) { return measure_parallel(c, 10); }},
      {"parallel_100", "100 sandbox_exec of true at once, all done",
       [](const Context& c) { return measure_parallel(c, 100); }},
  };
  return list;
}

}  // namespace hutch::bench
