#include "net/http_head.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>
#include <utility>

namespace hutch::net {

namespace {

constexpr char lower_char(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c;
}

constexpr bool is_decimal(char c) {
  return c >= '0' && c <= '9';
}

constexpr bool is_token_char(char c) {
  return is_decimal(c) || (lower_char(c) >= 'a' && lower_char(c) <= 'z') ||
         std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

bool is_token(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, is_token_char);
}

/// Bytes past ASCII are opaque (RFC 9110, 5.5), control characters are nothing.
bool is_field_value(std::string_view text) {
  return std::ranges::all_of(text, [](unsigned char c) { return c == '\t' || (c >= ' ' && c != 0x7f); });
}

bool is_field_space(char c) {
  return c == ' ' || c == '\t';
}

std::string_view trim_spaces(std::string_view text) {
  while (!text.empty() && is_field_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_field_space(text.back())) text.remove_suffix(1);
  return text;
}

/// Everything before the separator, which is taken away as well; all of it when there is none.
std::string_view take_until(std::string_view& text, std::string_view separator) {
  const size_t at = text.find(separator);
  const std::string_view part = text.substr(0, at);
  text.remove_prefix(at == text.npos ? text.size() : at + separator.size());
  return part;
}

int parse_version(std::string_view text) {
  if (text == "HTTP/1.1") return 1;
  if (text == "HTTP/1.0") return 0;
  throw BadHttp(505, "the version is neither HTTP/1.1 nor HTTP/1.0");
}

void parse_field(std::string_view line, HttpFields& fields) {
  if (is_field_space(line.front())) throw BadHttp(400, "a field is folded over several lines");
  const size_t colon = line.find(':');
  if (colon == line.npos) throw BadHttp(400, "a field has no colon");
  if (fields.all().size() == kMaxFields)
    throw BadHttp(431, fmt::format("there are more than {} fields", kMaxFields));
  fields.add(line.substr(0, colon), line.substr(colon + 1));
}

size_t field_count(const HttpFields& fields, std::string_view name) {
  return static_cast<size_t>(std::ranges::count_if(
      fields.all(), [name](const HttpField& field) { return same_word(field.name, name); }));
}

uint64_t parse_length(std::string_view text) {
  // 18 digits are fewer than 2^63: nobody's integer overflows.
  if (text.empty() || text.size() > 18 || !std::ranges::all_of(text, is_decimal))
    throw BadHttp(400, "Content-Length is no number");
  uint64_t value = 0;
  for (const char c : text) value = value * 10 + static_cast<uint64_t>(c - '0');
  return value;
}

/// What must hold for requests and answers alike.
void check_framing(const HttpFields& fields, int minor) {
  if (field_count(fields, "Content-Length") > 1) throw BadHttp(400, "there is more than one Content-Length");
  if (field_count(fields, "Transfer-Encoding") > 1)
    throw BadHttp(400, "there is more than one Transfer-Encoding");
  const std::string* length = fields.find("Content-Length");
  if (length != nullptr) (void)parse_length(*length);
  if (const std::string* coding = fields.find("Transfer-Encoding")) {
    if (length != nullptr) throw BadHttp(400, "Content-Length and Transfer-Encoding are given at once");
    if (minor == 0) throw BadHttp(400, "HTTP/1.0 has no Transfer-Encoding");
    if (!same_word(*coding, "chunked")) throw BadHttp(501, "Transfer-Encoding is not 'chunked'");
  }
  for (const char* name : {"Host", "Content-Length", "Transfer-Encoding"})
    if (fields.has_word("Connection", name))
      throw BadHttp(400, fmt::format("Connection names {}, which is no part of it", name));
}

/// The lines after the first one, up to the empty one.
HttpFields parse_fields(std::string_view rest) {
  HttpFields fields;
  while (!rest.starts_with("\r\n")) parse_field(take_until(rest, "\r\n"), fields);
  return fields;
}

/// The head, but only as head_length() would have it: callers are not trusted with that.
std::string_view whole_head(std::string_view head) {
  if (head.empty() || head_length(head) != head.size()) throw BadHttp(400, "the head is not whole");
  return head;
}

BodyFraming by_fields(const HttpFields& fields, BodyFraming::Kind otherwise) {
  if (fields.find("Transfer-Encoding") != nullptr) return {BodyFraming::Kind::chunked};
  if (const std::string* length = fields.find("Content-Length"))
    return {BodyFraming::Kind::length, parse_length(*length)};
  return {otherwise};
}

bool alive(const HttpFields& fields, int minor) {
  if (fields.has_word("Connection", "close")) return false;
  return minor == 1 || fields.has_word("Connection", "keep-alive");
}

void append_fields(std::string& out, const HttpFields& fields) {
  for (const HttpField& field : fields.all()) {
    out += field.name;
    out += ": ";
    out += field.value;
    out += "\r\n";
  }
  out += "\r\n";
}

}  // namespace

std::string to_lower(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), lower_char);
  return out;
}

bool same_word(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, std::ranges::equal_to(), lower_char, lower_char);
}

const std::string* HttpFields::find(std::string_view name) const {
  for (const HttpField& field : fields_)
    if (same_word(field.name, name)) return &field.value;
  return nullptr;
}

bool HttpFields::has_word(std::string_view name, std::string_view word) const {
  for (const HttpField& field : fields_) {
    if (!same_word(field.name, name)) continue;
    for (std::string_view rest = field.value; !rest.empty();)
      if (same_word(trim_spaces(take_until(rest, ",")), word)) return true;
  }
  return false;
}

void HttpFields::add(std::string_view name, std::string_view value) {
  // A space before the colon is no part of a token either.
  if (!is_token(name)) throw BadHttp(400, "the name of a field is not made of letters, digits and -");
  if (!is_field_value(value)) throw BadHttp(400, "a field has a control character");
  fields_.push_back({std::string(name), std::string(trim_spaces(value))});
}

void HttpFields::set(std::string_view name, std::string_view value) {
  add(name, value);
  HttpField field = std::move(fields_.back());
  fields_.pop_back();
  const auto named = [&](const HttpField& other) { return same_word(other.name, field.name); };
  const auto first = std::ranges::find_if(fields_, named);
  if (first == fields_.end()) {
    fields_.push_back(std::move(field));
    return;
  }
  fields_.erase(std::remove_if(first + 1, fields_.end(), named), fields_.end());
  *first = std::move(field);
}

void HttpFields::remove(std::string_view name) {
  std::erase_if(fields_, [name](const HttpField& field) { return same_word(field.name, name); });
}

void HttpFields::remove_hop_by_hop() {
  constexpr std::array<std::string_view, 8> kNames = {
      "Connection",         "Keep-Alive", "Proxy-Connection", "Proxy-Authorization",
      "Proxy-Authenticate", "TE",         "Trailer",          "Upgrade"};
  std::string named;
  for (const HttpField& field : fields_)
    if (same_word(field.name, "Connection")) named += field.value + ',';
  for (std::string_view rest = named; !rest.empty();) remove(trim_spaces(take_until(rest, ",")));
  for (const std::string_view name : kNames) remove(name);
}

std::string RequestHead::to_string() const {
  std::string out = fmt::format("{} {} HTTP/1.{}\r\n", method, target, minor);
  append_fields(out, fields);
  return out;
}

bool RequestHead::keeps_alive() const {
  return alive(fields, minor);
}

bool RequestHead::wants_websocket() const {
  const std::string* upgrade = fields.find("Upgrade");
  return upgrade != nullptr && same_word(*upgrade, "websocket") && field_count(fields, "Upgrade") == 1 &&
         fields.has_word("Connection", "upgrade");
}

std::string ResponseHead::to_string() const {
  std::string out = fmt::format("HTTP/1.{} {} {}\r\n", minor, status, reason);
  append_fields(out, fields);
  return out;
}

bool ResponseHead::keeps_alive() const {
  return alive(fields, minor);
}

size_t head_length(std::string_view bytes, size_t checked) {
  const std::string_view seen = bytes.substr(0, kMaxHeadBytes);
  for (size_t i = checked; i < seen.size(); ++i) {
    if (seen[i] == '\0') throw BadHttp(400, "there is a NUL in the head");
    if (seen[i] == '\n' && (i == 0 || seen[i - 1] != '\r')) throw BadHttp(400, "a line ends with a bare LF");
    if (seen[i] != '\n' && i > 0 && seen[i - 1] == '\r') throw BadHttp(400, "there is a bare CR in the head");
    if (seen[i] != '\n') continue;
    if (i == 1) throw BadHttp(400, "the first line is empty");
    if (i >= 3 && seen[i - 2] == '\n') return i + 1;
  }
  if (bytes.size() >= kMaxHeadBytes)
    throw BadHttp(431, fmt::format("the head is longer than {} bytes", kMaxHeadBytes));
  return 0;
}

RequestHead parse_request_head(std::string_view head) {
  std::string_view rest = whole_head(head);
  std::string_view line = take_until(rest, "\r\n");
  RequestHead request;
  request.method = take_until(line, " ");
  request.target = take_until(line, " ");
  request.minor = parse_version(line);
  if (!is_token(request.method) || request.method.size() > 32) throw BadHttp(400, "the method is none");
  // Printable ASCII and no fragment (RFC 9112, 3.2): who wants more escapes it.
  const auto printable = [](unsigned char c) { return c > ' ' && c < 0x7f && c != '#'; };
  if (request.target.empty() || !std::ranges::all_of(request.target, printable))
    throw BadHttp(400, "the target of the request has a character that must be escaped");
  request.fields = parse_fields(rest);
  check_framing(request.fields, request.minor);
  const size_t hosts = field_count(request.fields, "Host");
  if (hosts > 1) throw BadHttp(400, "there is more than one Host");
  if (hosts == 0 && request.minor == 1) throw BadHttp(400, "there is no Host");
  return request;
}

ResponseHead parse_response_head(std::string_view head) {
  std::string_view rest = whole_head(head);
  std::string_view line = take_until(rest, "\r\n");
  ResponseHead response;
  response.minor = parse_version(take_until(line, " "));
  const std::string_view status = take_until(line, " ");
  if (status.size() != 3 || !std::ranges::all_of(status, is_decimal) || status[0] < '1' || status[0] > '5')
    throw BadHttp(400, "the status is not between 100 and 599");
  response.status = (status[0] - '0') * 100 + (status[1] - '0') * 10 + (status[2] - '0');
  if (!is_field_value(line)) throw BadHttp(400, "the reason has a control character");
  response.reason = line;
  response.fields = parse_fields(rest);
  check_framing(response.fields, response.minor);
  return response;
}

BodyFraming request_framing(const RequestHead& head) {
  return by_fields(head.fields, BodyFraming::Kind::none);
}

BodyFraming response_framing(const ResponseHead& head, std::string_view request_method) {
  const bool success = head.status >= 200 && head.status < 300;
  if (head.status == 101 || (request_method == "CONNECT" && success)) return {BodyFraming::Kind::tunnel};
  const BodyFraming framing = by_fields(head.fields, BodyFraming::Kind::until_end);
  if (head.status < 200 || head.status == 204) {
    const bool claims_body = framing.kind == BodyFraming::Kind::chunked || framing.length > 0;
    if (claims_body)
      throw BadHttp(400, fmt::format("an answer {} has no body, this one says so", head.status));
    return {};
  }
  if (request_method == "HEAD" || head.status == 304) return {};
  return framing;
}

}  // namespace hutch::net
