#pragma once

#include <string>

#include "net/duplex.h"
#include "net/openssl.h"

/// TLS on top of any stream: 1.2 or newer, and by ALPN nothing but HTTP/1.1.
namespace hutch::net {

/// Who a server says it is.
struct TlsIdentity {
  Openssl<X509> certificate;
  Openssl<EVP_PKEY> key;
};

/// An established connection. The stream below is not owned and outlives it. A peer that ends without saying
/// so in TLS may have been cut off by anyone: that is an error, not an end.
class TlsDuplex final : public Duplex {
 public:
  TlsDuplex(Duplex& below, Openssl<SSL> ssl);
  /// Throws Error: unavailable when the peer went, denied when the two do not agree or do not trust.
  asio::awaitable<void> handshake();

  asio::awaitable<std::string_view> read() override;
  asio::awaitable<void> write(std::string_view bytes) override;
  asio::awaitable<void> end() override;
  void close() noexcept override { below_.close(); }
  asio::any_io_executor executor() override { return below_.executor(); }

 private:
  asio::awaitable<bool> take_in();
  asio::awaitable<void> send_out();
  Error handshake_error(const std::string& reason) const;

  Duplex& below_;
  const Openssl<SSL> ssl_;
  std::unique_ptr<char[]> plain_;  // one record; only while what is in it is needed
};

using TlsStream = std::unique_ptr<TlsDuplex>;

/// The server's side.
class TlsAcceptor {
 public:
  TlsAcceptor();
  /// A client that asks for another name than `host`, or for none, is refused.
  asio::awaitable<TlsStream> accept(Duplex& below, std::string host, const TlsIdentity& identity) const;

 private:
  const Openssl<SSL_CTX> context_;
};

/// The client's side: verifies the peer's name, and its chain against the host's trust store (as OpenSSL
/// finds it, by SSL_CERT_FILE and SSL_CERT_DIR too) and the authorities of `ca_file`, unless that is empty.
class TlsConnector {
 public:
  explicit TlsConnector(const std::string& ca_file);
  asio::awaitable<TlsStream> connect(Duplex& below, std::string host) const;

 private:
  const Openssl<SSL_CTX> context_;
};

}  // namespace hutch::net
