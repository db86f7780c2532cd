#pragma once

#include <memory>
#include <string>
#include <vector>

#include "net/http_head.h"
#include "net/secret.h"
#include "net/secret_text.h"

namespace hutch::net {

/// Puts the values of a sandbox's secrets into its requests to one host, in the places that their forms say
/// and nowhere else, and hides them in the answers.
class SecretRequests {
 public:
  SecretRequests(std::shared_ptr<const Secrets> secrets, const std::string& host, uint16_t port);
  ~SecretRequests();
  SecretRequests(const SecretRequests&) = delete;
  SecretRequests& operator=(const SecretRequests&) = delete;

  /// Whether bodies may hold one as well.
  bool in_bodies() const;
  /// `body`: nullptr when it is not at hand. Returns whether there is a value in the request now. Throws
  /// Error when one that is needed cannot be read.
  asio::awaitable<bool> put_into(RequestHead& head, std::string* body);
  /// All that a server could repeat of what it has been sent by now, by this sandbox or another.
  Mask mask() const;

 private:
  void put(const SecretUse& use, std::string_view value, RequestHead& head, std::string* body);

  const std::shared_ptr<const Secrets> secrets_;
  const std::vector<SecretUse> uses_;
  std::vector<std::string> sent_;  // names and passwords, as the header has them
};

}  // namespace hutch::net
