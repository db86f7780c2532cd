#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

/// Heads of HTTP/1.x messages, read as strictly as it goes. Who filters must not read a message differently
/// than who gets it: so whatever two readers could take differently is refused (a bare CR or LF, NUL, folded
/// fields, a space before a colon, more than one Host or Content-Length, Content-Length with
/// Transfer-Encoding, a coding that is not exactly `chunked`), and what is passed on is written anew.
namespace hutch::net {

constexpr size_t kMaxHeadBytes = 64 << 10, kMaxFields = 128;

/// What is not HTTP as we read it, with the status for who sent it: 400, 431, 501 or 505.
class BadHttp : public Error {
 public:
  BadHttp(int status, std::string what) : Error(Errc::invalid_argument, std::move(what)), status_(status) {}
  int status() const noexcept { return status_; }

 private:
  int status_;
};

struct HttpField {
  std::string name, value;
  bool operator==(const HttpField&) const = default;
};

/// The fields of a head, in their order; names are compared without case.
class HttpFields {
 public:
  /// The value of the first one; nullptr: there is none.
  const std::string* find(std::string_view name) const;
  /// Whether the comma-separated values hold this word, without case: has_word("Connection", "close").
  bool has_word(std::string_view name, std::string_view word) const;
  /// In place of the first one of that name, or at the end; the others go. Throws BadHttp when name or value
  /// would not be read as one field again.
  void set(std::string_view name, std::string_view value);
  void add(std::string_view name, std::string_view value);
  void remove(std::string_view name);
  /// Connection, what it names, and what else is between two neighbours only (RFC 9110, 7.6.1), but for
  /// Transfer-Encoding: bodies are passed on as they are framed. Who passes an upgrade on sets it again.
  void remove_hop_by_hop();

  const std::vector<HttpField>& all() const { return fields_; }
  bool operator==(const HttpFields&) const = default;

 private:
  std::vector<HttpField> fields_;
};

struct RequestHead {
  std::string method, target;
  int minor = 1;  // HTTP/1.<minor>: 0 or 1
  HttpFields fields;

  std::string to_string() const;
  /// Whether another request may follow on the connection.
  bool keeps_alive() const;
  /// `Upgrade: websocket` with the Connection that belongs to it.
  bool wants_websocket() const;
  bool operator==(const RequestHead&) const = default;
};

struct ResponseHead {
  int status = 200;
  std::string reason;
  int minor = 1;
  HttpFields fields;

  std::string to_string() const;
  bool keeps_alive() const;
  bool operator==(const ResponseHead&) const = default;
};

/// How many of the bytes are the head, its empty line included; 0: more is needed. Throws BadHttp as soon as
/// it can be none (a bare CR or LF, a NUL, more than kMaxHeadBytes). The first `checked` bytes were asked
/// about before.
size_t head_length(std::string_view bytes, size_t checked = 0);

/// `head` is a whole one, as head_length() found it. Both throw BadHttp.
RequestHead parse_request_head(std::string_view head);
ResponseHead parse_response_head(std::string_view head);

/// How the end of a body is found.
struct BodyFraming {
  enum class Kind {
    none,
    length,
    chunked,
    until_end,  // of the stream
    tunnel      // no HTTP any more, in both directions: after 101, or after 2xx for CONNECT
  };
  Kind kind = Kind::none;
  uint64_t length = 0;
  bool operator==(const BodyFraming&) const = default;
};

BodyFraming request_framing(const RequestHead& head);
/// A 1xx other than 101 has no body, and the answer is still to come.
BodyFraming response_framing(const ResponseHead& head, std::string_view request_method);

/// Text as names are compared: lower case, ASCII only.
std::string to_lower(std::string_view text);
bool same_word(std::string_view a, std::string_view b);

}  // namespace hutch::net
