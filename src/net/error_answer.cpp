#include "net/error_answer.h"

#include <fmt/format.h>

#include "net/host_name.h"
#include "net/http_head.h"

namespace hutch::net {

namespace {

const char* reason_phrase(int status) {
  switch (status) {
    case 400:
      return "Bad Request";
    case 403:
      return "Forbidden";
    case 431:
      return "Request Header Fields Too Large";
    case 501:
      return "Not Implemented";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    case 505:
      return "HTTP Version Not Supported";
    default:
      return "Bad Gateway";
  }
}

}  // namespace

ErrorAnswer answer_to(const Error& error) {
  if (const auto* refused = dynamic_cast<const Refused*>(&error)) {
    const Refusal& refusal = refused->refusal();
    std::string line = fmt::format("{}: {}", reason_name(refusal.reason), refusal.why);
    if (!refusal.rule.empty()) line += fmt::format("; allow: {}", refusal.rule);
    const int status = refusal.reason == Refusal::Reason::malformed ? 400
                       : refusal.reason == Refusal::Reason::limit   ? 503
                                                                    : 403;
    return {status, error.what(), line};
  }
  if (const auto* bad = dynamic_cast<const BadHttp*>(&error)) return {bad->status(), error.what(), {}};
  return {error.code() == Errc::timeout ? 504 : 502, error.what(), {}};
}

asio::awaitable<void> write_error(Duplex& client, const ErrorAnswer& answer) {
  // What is after the phrase is all that many clients show of an answer to CONNECT.
  const std::string line = printable_line(answer.text.substr(0, answer.text.find('\n')));
  ResponseHead head{.status = answer.status,
                    .reason = fmt::format("{} ({})", reason_phrase(answer.status), line.substr(0, 300))};
  const std::string body = "hutch: " + answer.text + "\n";
  head.fields.add("Content-Type", "text/plain; charset=utf-8");
  head.fields.add("Content-Length", std::to_string(body.size()));
  head.fields.add("Connection", "close");
  if (!answer.refused.empty()) head.fields.add("X-Hutch-Refused", printable_line(answer.refused));
  co_await client.write(head.to_string() + body);
  co_await say_goodbye(client);
}

}  // namespace hutch::net
