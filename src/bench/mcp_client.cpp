#include "bench/mcp_client.h"

#include <fmt/format.h>

#include <utility>

namespace hutch::bench {

using namespace std::chrono_literals;

namespace {

constexpr auto kSilence = 60s;
constexpr size_t kUncheckedMax = 64u << 20;

/// Whether a line answers a call, told without parsing. Notifications and requests to the client have
/// `method` among their first members, an answer has none at its top, and inside a text the quotes are
/// escaped. Some servers also write words to stdout, which clients skip.
bool is_answer(std::string_view line) {
  return line.starts_with('{') && line.substr(0, 64).find("\"method\"") == std::string_view::npos;
}

Json parse(const std::string& line) {
  Json answer = Json::parse(line, nullptr, false);
  if (answer.is_discarded())
    throw Error(Errc::internal, "the server's answer is no JSON: " + line.substr(0, 200));
  return answer;
}

}  // namespace

double ms_since(Clock::time_point start) noexcept {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

Request::Request(std::string_view method, const Json& params)
    : tail_(fmt::format(",\"method\":\"{}\",\"params\":{}}}\n", method, params.dump())) {}

Request Request::tool(std::string_view name, const Json& arguments) {
  return {"tools/call", {{"name", name}, {"arguments", arguments}}};
}

std::string Request::line(int64_t id) const {
  return fmt::format("{{\"jsonrpc\":\"2.0\",\"id\":{}{}", id, tail_);
}

McpClient::McpClient(const ServerCommand& command) : server_(command) {
  const Request initialize("initialize", {{"protocolVersion", "2025-06-18"},
                                          {"capabilities", Json::object()},
                                          {"clientInfo", {{"name", "hutch-bench"}, {"version", "1"}}}});
  (void)exchange(initialize);
  start_ms_ = ms_since(server_.started());
  check();
  server_.write("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n");
}

std::optional<std::string> McpClient::next_answer(Clock::time_point deadline) {
  for (;;) {
    auto line = server_.next_line(deadline);
    if (!line || is_answer(*line)) return line;
  }
}

double McpClient::exchange(const Request& request) {
  return exchange_side_by_side(request, 1);
}

double McpClient::exchange_side_by_side(const Request& request, size_t n) {
  std::vector<std::string> lines;
  for (size_t i = 0; i < n; ++i) lines.push_back(request.line(next_id_++));
  const size_t already = unchecked_.size();
  unchecked_.reserve(already + n);
  const auto start = Clock::now();
  for (const auto& line : lines) server_.write(line);
  for (size_t i = 0; i < n; ++i) {
    auto answer = next_answer(Clock::now() + kSilence);
    if (!answer) server_.fail(Errc::timeout, "has not answered for 60 s");
    unchecked_.push_back(std::move(*answer));
  }
  const double ms = ms_since(start);
  for (size_t i = already; i < unchecked_.size(); ++i) unchecked_bytes_ += unchecked_[i].size();
  if (unchecked_bytes_ > kUncheckedMax) check();
  return ms;
}

void McpClient::check(std::string_view expect) {
  const auto lines = std::exchange(unchecked_, {});
  unchecked_bytes_ = 0;
  for (const auto& line : lines) (void)result_of(parse(line), expect);
}

Json McpClient::take_result(std::string_view expect) {
  const std::string last = std::move(unchecked_.at(unchecked_.size() - 1));
  unchecked_.pop_back();
  check(expect);
  return result_of(parse(last), expect);
}

Json McpClient::call(const Request& request, std::string_view expect) {
  check();
  (void)exchange(request);
  return take_result(expect);
}

int64_t McpClient::send(const Request& request) {
  server_.write(request.line(next_id_));
  return next_id_++;
}

std::optional<McpClient::Answer> McpClient::receive(Clock::time_point deadline) {
  const auto line = next_answer(deadline);
  const auto at = Clock::now();
  if (!line) return std::nullopt;
  return Answer{parse(*line), at};
}

Json McpClient::result_of(const Json& answer, std::string_view expect) {
  if (const auto error = answer.find("error"); error != answer.end())
    throw Error(Errc::internal, "the call was refused: " + error->dump());
  const auto result = answer.find("result");
  if (result == answer.end())
    throw Error(Errc::internal, "the answer has no result: " + answer.dump().substr(0, 200));
  const std::string text = text_of(*result);
  if (result->value("isError", false)) throw Error(Errc::internal, "the call failed: " + text);
  if (text.find(expect) == std::string::npos)
    throw Error(Errc::internal,
                fmt::format("the answer is not as expected ('{}'): {}", expect, text.substr(0, 500)));
  return *result;
}

std::string text_of(const Json& result) {
  const auto content = result.find("content");
  if (content == result.end() || !content->is_array() || content->empty()) return "";
  return content->at(0).value("text", "");
}

std::string sandbox_id_of(const Json& result) {
  const std::string text = text_of(result);
  const size_t start = text.find("sbx-");
  if (start == std::string::npos)
    throw Error(Errc::internal, "no sandbox_id in the answer: " + text.substr(0, 200));
  return text.substr(start, text.find_first_not_of("0123456789abcdef", start + 4) - start);
}

}  // namespace hutch::bench
