#include "net/socks5.h"

#include <algorithm>

#include "base/error.h"

namespace hutch::net {

namespace {

constexpr uint8_t kSocksVersion = 5, kPasswordVersion = 1, kConnect = 1;
constexpr uint8_t kNoMethod = 0, kPasswordMethod = 2, kNoneOfThese = 0xff;
constexpr uint8_t kIpv4 = 1, kName = 3, kIpv6 = 4;

uint8_t byte_at(std::string_view text, size_t at) {
  return static_cast<uint8_t>(text[at]);
}

std::string two_bytes(uint8_t a, uint8_t b) {
  return {static_cast<char>(a), static_cast<char>(b)};
}

Host host_of(std::string_view field, uint8_t kind) {
  if (kind == kName) return parse_host(field);
  if (kind == kIpv4) {
    asio::ip::address_v4::bytes_type bytes;
    std::copy(field.begin(), field.end(), bytes.begin());
    return parse_host(asio::ip::address_v4(bytes).to_string());
  }
  asio::ip::address_v6::bytes_type bytes;
  std::copy(field.begin(), field.end(), bytes.begin());
  return parse_host(asio::ip::address_v6(bytes).to_string());  // which makes IPv4 of a mapped one
}

}  // namespace

std::string socks_reply(SocksReply code) {
  // The address we are bound to is nobody's business: 0.0.0.0:0.
  return std::string{5, static_cast<char>(code), 0, 1, 0, 0, 0, 0, 0, 0};
}

void SocksHandshake::fail(std::string& answer, std::string reply, std::string why) {
  answer += reply;
  why_ = std::move(why);
  step_ = Step::failed;
}

/// How long the step's message is, as far as can be said by now; more than there is until all of it is.
size_t SocksHandshake::needed() const {
  const std::string& m = message_;
  if (step_ == Step::greeting) return m.size() < 2 ? 2 : 2 + byte_at(m, 1);
  if (step_ == Step::password) {
    if (m.size() < 2) return 2;
    const size_t user_end = 2 + byte_at(m, 1);
    return m.size() < user_end + 1 ? user_end + 1 : user_end + 1 + byte_at(m, user_end);
  }
  if (m.size() < 5) return 5;
  switch (byte_at(m, 3)) {
    case kIpv4:
      return 4 + 4 + 2;
    case kIpv6:
      return 4 + 16 + 2;
    case kName:
      return 4 + 1 + byte_at(m, 4) + 2;
    default:
      return 5;
  }
}

void SocksHandshake::greeting(std::string& answer) {
  if (byte_at(message_, 0) != kSocksVersion) return fail(answer, {}, "it is not SOCKS5");
  const std::string_view methods = std::string_view(message_).substr(2);
  const bool open = methods.find(static_cast<char>(kNoMethod)) != methods.npos;
  const bool password = methods.find(static_cast<char>(kPasswordMethod)) != methods.npos;
  if (!open && !password)
    return fail(answer, two_bytes(kSocksVersion, kNoneOfThese), "the client offers no way in that is known");
  answer += two_bytes(kSocksVersion, open ? kNoMethod : kPasswordMethod);
  step_ = open ? Step::request : Step::password;
}

void SocksHandshake::request(std::string& answer) {
  const uint8_t kind = byte_at(message_, 3);
  if (byte_at(message_, 0) != kSocksVersion || message_[2] != 0)
    return fail(answer, socks_reply(SocksReply::failure), "it is not SOCKS5");
  if (byte_at(message_, 1) != kConnect)
    return fail(answer, socks_reply(SocksReply::command_unknown),
                "only CONNECT is there, no BIND and no UDP");
  if (kind != kIpv4 && kind != kName && kind != kIpv6)
    return fail(answer, socks_reply(SocksReply::address_unknown), "the address is of an unknown kind");
  const std::string_view message = message_;
  const size_t begin = kind == kName ? 5 : 4, end = message.size() - 2;
  const int port = byte_at(message, end) << 8 | byte_at(message, end + 1);
  try {
    if (port == 0) throw Error(Errc::invalid_argument, "0 is no port");
    target_ = {host_of(message.substr(begin, end - begin), kind), static_cast<uint16_t>(port)};
    step_ = Step::done;
  } catch (const Error& error) {
    fail(answer, socks_reply(SocksReply::not_allowed), error.what());
  }
}

size_t SocksHandshake::take(std::string_view bytes, std::string& answer) {
  size_t taken = 0;
  while (!done() && !failed()) {
    const size_t wanted = needed();
    if (message_.size() < wanted) {
      const std::string_view part = bytes.substr(taken, wanted - message_.size());
      if (part.empty()) return taken;
      message_ += part;
      taken += part.size();
      continue;
    }
    switch (step_) {
      case Step::greeting:
        greeting(answer);
        break;
      case Step::password:
        answer += two_bytes(kPasswordVersion, 0);
        step_ = Step::request;
        break;
      default:
        request(answer);
        break;
    }
    message_.clear();
  }
  return taken;
}

}  // namespace hutch::net
