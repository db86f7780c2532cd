#include "net/host_name.h"

#include <fmt/format.h>

#include <algorithm>

#include "net/http_head.h"

namespace hutch::net {

namespace {

Error bad_host(std::string_view text, std::string_view why) {
  return Error(Errc::invalid_argument, fmt::format("'{}' is no host: {}", printable(text), why));
}

bool is_digit_char(char c) {
  return c >= '0' && c <= '9';
}

bool is_label_char(char c) {
  return is_digit_char(c) || (c >= 'a' && c <= 'z') || c == '-' || c == '_';
}

/// 127.1, 0x7f.1, 017700000001: inet_aton() reads them as addresses, and so do browsers.
bool is_numeric(std::string_view label) {
  return std::ranges::all_of(label, is_digit_char) ||
         (label.starts_with("0x") && label.find_first_not_of("0123456789abcdef", 2) == label.npos);
}

void check_label(std::string_view label, std::string_view whole) {
  if (label.empty()) throw bad_host(whole, "a label is empty");
  if (label.size() > 63) throw bad_host(whole, "a label is longer than 63 characters");
  if (!std::ranges::all_of(label, is_label_char))
    throw bad_host(whole, "names are letters, digits, '-' and '.'; other scripts as xn--");
  if (label.front() == '-' || label.back() == '-') throw bad_host(whole, "a label begins or ends with '-'");
}

}  // namespace

std::string printable(std::string_view text) {
  std::string out(text.substr(0, 255));
  std::ranges::replace_if(
      out, [](unsigned char c) { return c <= ' ' || c >= 0x7f; }, '?');
  return out;
}

std::string printable_line(std::string_view text) {
  std::string out(text.substr(0, 1000));
  std::ranges::replace_if(
      out, [](unsigned char c) { return c < ' ' || c >= 0x7f; }, '?');
  return out;
}

std::string normal_name(std::string_view text) {
  std::string name = to_lower(text);
  if (name.ends_with('.')) name.pop_back();
  if (name.size() > 253) throw bad_host(text, "it is longer than 253 characters");
  std::string_view last;
  for (std::string_view rest = name;;) {
    const size_t dot = rest.find('.');
    last = rest.substr(0, dot);
    check_label(last, text);
    if (dot == rest.npos) break;
    rest.remove_prefix(dot + 1);
  }
  if (is_numeric(last)) throw bad_host(text, "it looks like an address, but not like four decimal numbers");
  return name;
}

std::string Host::to_string() const {
  if (!address) return name;
  return address->is_v6() ? fmt::format("[{}]", address->to_string()) : address->to_string();
}

Host parse_host(std::string_view text) {
  if (text.starts_with('[') && text.ends_with(']')) {
    const std::string_view inner = text.substr(1, text.size() - 2);
    const auto address = parse_address(inner);
    if (!address || inner.find(':') == inner.npos)
      throw bad_host(text, "in brackets belongs an IPv6 address");
    return {{}, address};
  }
  if (const auto address = parse_address(text)) return {{}, address};
  return {normal_name(text), std::nullopt};
}

std::string HostPort::to_string() const {
  return fmt::format("{}:{}", host.to_string(), port);
}

std::optional<uint16_t> parse_port(std::string_view text) {
  if (text.empty() || text.size() > 5 || text[0] == '0' || !std::ranges::all_of(text, is_digit_char))
    return std::nullopt;
  const int port = std::stoi(std::string(text));
  if (port > 65'535) return std::nullopt;
  return static_cast<uint16_t>(port);
}

HostPort parse_host_port(std::string_view text, uint16_t default_port) {
  const size_t bracket = text.rfind(']');
  const size_t colon = text.find(':', bracket == text.npos ? 0 : bracket);
  if (colon == text.npos) {
    if (default_port == 0) throw bad_host(text, "a port is missing, as in name:443");
    return {parse_host(text), default_port};
  }
  const auto port = parse_port(text.substr(colon + 1));
  if (!port) throw bad_host(text, "behind the ':' belongs a port from 1 to 65535, and IPv6 in brackets");
  return {parse_host(text.substr(0, colon)), *port};
}

}  // namespace hutch::net
