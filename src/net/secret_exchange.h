#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "net/certificate_authority.h"
#include "net/secret.h"
#include "net/tls.h"
#include "net/upstream.h"

namespace hutch::net {

/// Where placeholders become values: connections of a sandbox to hosts of its secrets, whose TLS ends here
/// and begins anew. One for each server, on the I/O thread alone.
class SecretExchange {
 public:
  /// `ca_file`: authorities to trust besides the host's; may be empty.
  SecretExchange(const std::string& data_folder, const std::string& ca_file);

  const CertificateAuthority& authority() const noexcept { return authority_; }

  /// Passes on what a client inside, from its first byte of TLS on, and `host` have to say to each other, in
  /// HTTP/1.1, until either ends. What cannot be passed on is answered (with a status and why, once TLS is
  /// there) and thrown as Error, for the record; no text of it holds a value.
  asio::awaitable<void> inspect(Duplex& client, std::shared_ptr<const Secrets> secrets, std::string host,
                                uint16_t port, Connect connect);

 private:
  CertificateAuthority authority_;
  const TlsAcceptor acceptor_;
  const TlsConnector connector_;
};

}  // namespace hutch::net
