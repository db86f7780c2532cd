#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "net/host_name.h"
#include "net/read_ahead.h"

namespace hutch::net {

/// A proxy that this host must use itself: what sandboxes are allowed goes through it by CONNECT. It resolves
/// the names then, so that addresses are neither checked nor pinned by us.
class UpstreamProxy {
 public:
  /// `setting`: a URL `http://[user:password@]host:port`, `none`, or `auto`, the environment's HTTPS_PROXY,
  /// ALL_PROXY or HTTP_PROXY with its NO_PROXY, in lower case first, as curl reads them. nullptr: there is
  /// none. Throws Error(invalid_argument).
  static std::shared_ptr<const UpstreamProxy> from(const std::string& setting,
                                                   const std::map<std::string, std::string>& environment);

  /// Whether NO_PROXY says that this is connected to directly.
  bool is_bypassed(const Host& host) const;
  const HostPort& at() const { return at_; }
  /// The request that opens a tunnel.
  std::string connect_request(const HostPort& target) const;

 private:
  HostPort at_;
  std::string authorization_;          // the value of the field; empty: none
  std::vector<std::string> bypassed_;  // suffixes of names, addresses, networks; "*": all
};

/// The URL as it may be shown.
std::string without_credentials(std::string url);

}  // namespace hutch::net
