#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bench/line_program.h"
#include "bench/samples.h"

namespace hutch::bench {

/// A request without its id: what stands before and after it in the line.
class Request {
 public:
  Request(std::string_view method, const Json& params);
  static Request tool(std::string_view name, const Json& arguments);
  /// One line with its end.
  std::string line(int64_t id) const;

 private:
  std::string tail_;
};

/// A client of one MCP server over pipes, for one thread. Nothing is parsed while time is taken: answers are
/// kept as lines and looked at by check(). Throws Error(unavailable) when the server ends, timeout when it is
/// silent for a minute, each with the end of its stderr. Ends the server.
class McpClient {
 public:
  /// Starts the server and waits for its answer to `initialize`; start_ms() is how long both took.
  explicit McpClient(const ServerCommand& command);

  double start_ms() const noexcept { return start_ms_; }
  pid_t pid() const noexcept { return server_.pid(); }

  /// From the start of the write to the end of the answer's line, in ms. The answer waits for check().
  double exchange(const Request& request);
  /// Sends `request` n times and then waits for n answers.
  double exchange_side_by_side(const Request& request, size_t n);
  /// Parses the answers since the last time: each must be a success whose text contains `expect`. Throws the
  /// answer's text as Error(internal).
  void check(std::string_view expect = {});

  /// check(), and `result` of the last answer.
  Json take_result(std::string_view expect = {});
  /// exchange() and take_result() at once.
  Json call(const Request& request, std::string_view expect = {});

  /// For callers with several calls under way. send() returns the id.
  int64_t send(const Request& request);
  struct Answer {
    Json message;
    Clock::time_point at;  // when its line was complete
  };
  /// The next one, or nothing at `deadline`.
  std::optional<Answer> receive(Clock::time_point deadline);
  /// `result` of an answer; throws as check() does.
  static Json result_of(const Json& answer, std::string_view expect = {});

 private:
  /// The next line that is no notification; nothing at `deadline`.
  std::optional<std::string> next_answer(Clock::time_point deadline);

  LineProgram server_;
  std::vector<std::string> unchecked_;
  size_t unchecked_bytes_ = 0;
  int64_t next_id_ = 0;
  double start_ms_ = 0;
};

/// Text of a tool result's first block.
std::string text_of(const Json& result);
/// The sandbox that a `sandbox_create` result, text or structured, speaks of.
std::string sandbox_id_of(const Json& result);

double ms_since(Clock::time_point start) noexcept;

}  // namespace hutch::bench
