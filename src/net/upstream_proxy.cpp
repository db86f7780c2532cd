#include "net/upstream_proxy.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "net/http_head.h"

namespace hutch::net {

namespace {

std::string first_set(const std::map<std::string, std::string>& environment,
                      std::initializer_list<const char*> names) {
  for (const char* name : names)
    if (const auto it = environment.find(name); it != environment.end() && !it->second.empty())
      return it->second;
  return {};
}

Error bad_proxy(std::string_view why) {
  // Not the text itself: it may hold a password.
  return Error(Errc::invalid_argument, fmt::format("egress.upstream_proxy, or HTTPS_PROXY, {}", why))
      .hint("write `http://host:port` or `http://user:password@host:port`, or `none` to connect directly");
}

std::string base64(std::string_view text) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < text.size(); i += 3) {
    uint32_t bits = 0;
    for (size_t j = 0; j < 3; ++j)
      bits = bits << 8 | (i + j < text.size() ? static_cast<uint8_t>(text[i + j]) : 0u);
    for (size_t j = 0; j < 4; ++j) out += i + j > text.size() ? '=' : kDigits[bits >> (18 - 6 * j) & 63];
  }
  return out;
}

/// %40 and the like.
std::string unescape(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    unsigned char value = 0;
    const char* const digits = text.data() + i + 1;
    const bool escape = text[i] == '%' && i + 2 < text.size() &&
                        std::from_chars(digits, digits + 2, value, 16).ptr == digits + 2;
    out += escape ? static_cast<char>(value) : text[i];
    if (escape) i += 2;
  }
  return out;
}

std::vector<std::string> bypass_list(std::string text) {
  std::vector<std::string> out;
  std::ranges::replace(text, ',', ' ');
  for (size_t begin = 0; (begin = text.find_first_not_of(" \t", begin)) != text.npos;) {
    const size_t end = std::min(text.find_first_of(" \t", begin), text.size());
    std::string entry = to_lower(std::string_view(text).substr(begin, end - begin));
    if (entry.starts_with('.')) entry.erase(0, 1);
    if (entry.ends_with('.')) entry.pop_back();
    if (!entry.empty()) out.push_back(std::move(entry));
    begin = end;
  }
  return out;
}

bool is_below(std::string_view name, std::string_view suffix) {
  return name == suffix || (name.size() > suffix.size() && name.ends_with(suffix) &&
                            name[name.size() - suffix.size() - 1] == '.');
}

}  // namespace

std::string without_credentials(std::string url) {
  const size_t scheme = url.find("://"), at = url.rfind('@');
  if (at == url.npos) return url;
  const size_t begin = scheme == url.npos ? 0 : scheme + 3;
  return at < begin ? url : url.replace(begin, at - begin, "***");
}

std::shared_ptr<const UpstreamProxy> UpstreamProxy::from(
    const std::string& setting, const std::map<std::string, std::string>& environment) {
  const bool automatic = setting == "auto";
  const std::string url = automatic ? first_set(environment, {"https_proxy", "HTTPS_PROXY", "all_proxy",
                                                              "ALL_PROXY", "http_proxy", "HTTP_PROXY"})
                                    : setting;
  if (url.empty() || url == "none") return nullptr;
  std::string_view rest = url;
  if (const size_t scheme = rest.find("://"); scheme != rest.npos) {
    if (!same_word(rest.substr(0, scheme), "http"))
      throw bad_proxy("is not spoken to by http://: other kinds of proxies are not known");
    rest.remove_prefix(scheme + 3);
  }
  rest = rest.substr(0, rest.find('/'));
  auto proxy = std::make_shared<UpstreamProxy>();
  if (const size_t at = rest.rfind('@'); at != rest.npos) {
    proxy->authorization_ = "Basic " + base64(unescape(rest.substr(0, at)));
    rest.remove_prefix(at + 1);
  }
  try {
    proxy->at_ = parse_host_port(rest, 1080);  // curl's default
  } catch (const Error& error) {
    throw bad_proxy(fmt::format("names no proxy: {}", error.what()));
  }
  if (automatic) proxy->bypassed_ = bypass_list(first_set(environment, {"no_proxy", "NO_PROXY"}));
  return proxy;
}

bool UpstreamProxy::is_bypassed(const Host& host) const {
  return std::ranges::any_of(bypassed_, [&](const std::string& entry) {
    if (entry == "*") return true;
    if (!host.address) return is_below(host.name, entry);
    try {
      const auto cidr = parse_cidr(entry);
      return cidr && cidr->contains(*host.address);
    } catch (const Error&) {
      return false;  // bits behind a prefix: then curl does not match either
    }
  });
}

std::string UpstreamProxy::connect_request(const HostPort& target) const {
  RequestHead head{.method = "CONNECT", .target = target.to_string()};
  head.fields.add("Host", head.target);
  if (!authorization_.empty()) head.fields.add("Proxy-Authorization", authorization_);
  return head.to_string();
}

}  // namespace hutch::net
