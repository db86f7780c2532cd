#include "net/tls.h"

#include <fmt/format.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <asio/ip/address.hpp>
#include <asio/ssl/error.hpp>
#include <asio/system_error.hpp>
#include <optional>

namespace hutch::net {

namespace {

constexpr size_t kRecordBytes = 16 << 10;
constexpr size_t kWriteBytes = 64 << 10;  // what is encrypted at once
constexpr unsigned char kHttp11[] = "\x08http/1.1";
constexpr unsigned kHttp11Bytes = sizeof kHttp11 - 1;

void set_up(SSL_CTX& context) {
  check_openssl(SSL_CTX_set_min_proto_version(&context, TLS1_2_VERSION), "SSL_CTX_set_min_proto_version");
  SSL_CTX_set_options(&context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET);
  SSL_CTX_set_session_cache_mode(&context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_mode(&context, SSL_MODE_RELEASE_BUFFERS);
}

int take_http11(SSL*, const unsigned char** out, unsigned char* out_bytes, const unsigned char* offered,
                unsigned offered_bytes, void*) {
  unsigned char* chosen = nullptr;
  if (SSL_select_next_proto(&chosen, out_bytes, kHttp11, kHttp11Bytes, offered, offered_bytes) !=
      OPENSSL_NPN_NEGOTIATED)
    return SSL_TLSEXT_ERR_ALERT_FATAL;
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
}

/// OpenSSL asks this also when the client named nobody.
int check_name(SSL* ssl, int* alert, void*) {
  const char* asked = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
  const auto* wanted = static_cast<const std::string*>(SSL_get_app_data(ssl));
  if (asked != nullptr && wanted != nullptr && OPENSSL_strcasecmp(asked, wanted->c_str()) == 0)
    return SSL_TLSEXT_ERR_OK;
  *alert = SSL_AD_UNRECOGNIZED_NAME;
  return SSL_TLSEXT_ERR_ALERT_FATAL;
}

asio::system_error truncated() {
  return asio::system_error(asio::error_code(asio::ssl::error::stream_truncated));
}

asio::system_error broken() {
  const auto code = static_cast<int>(ERR_get_error());
  ERR_clear_error();
  return asio::system_error(code == 0 ? asio::error_code(asio::error::connection_aborted)
                                      : asio::error_code(code, asio::error::get_ssl_category()));
}

}  // namespace

TlsDuplex::TlsDuplex(Duplex& below, Openssl<SSL> ssl) : below_(below), ssl_(std::move(ssl)) {
  Openssl<BIO> in = made(BIO_new(BIO_s_mem()), "BIO_new"), out = made(BIO_new(BIO_s_mem()), "BIO_new");
  BIO_set_mem_eof_return(in.get(), -1);  // empty means that more may come
  BIO_set_mem_eof_return(out.get(), -1);
  SSL_set_bio(ssl_.get(), in.release(), out.release());
}

asio::awaitable<bool> TlsDuplex::take_in() {
  const std::string_view bytes = co_await below_.read();
  if (bytes.empty()) co_return false;
  if (BIO_write(SSL_get_rbio(ssl_.get()), bytes.data(), static_cast<int>(bytes.size())) <= 0)
    throw std::bad_alloc();
  co_return true;
}

asio::awaitable<void> TlsDuplex::send_out() {
  BIO* out = SSL_get_wbio(ssl_.get());
  while (BIO_pending(out) > 0) {
    // Taken out first: what is read meanwhile may put an answer there (a key update's).
    std::string bytes(static_cast<size_t>(BIO_pending(out)), '\0');
    bytes.resize(
        static_cast<size_t>(std::max(BIO_read(out, bytes.data(), static_cast<int>(bytes.size())), 0)));
    co_await below_.write(bytes);
  }
}

Error TlsDuplex::handshake_error(const std::string& reason) const {
  const long verified = SSL_get_verify_result(ssl_.get());
  if (SSL_is_server(ssl_.get()) || verified == X509_V_OK)
    return Error(Errc::denied, "TLS handshake failed: " + reason);
  return Error(Errc::denied, fmt::format("the server's certificate is refused: {}",
                                         X509_verify_cert_error_string(verified)))
      .hint("`egress.ca_file` names a file with further certificate authorities to trust");
}

asio::awaitable<void> TlsDuplex::handshake() {
  for (;;) {
    ERR_clear_error();
    const int result = SSL_do_handshake(ssl_.get());
    std::optional<Error> failed;
    if (result != 1 && SSL_get_error(ssl_.get(), result) != SSL_ERROR_WANT_READ)
      failed = handshake_error(openssl_reason());
    bool peer_is_there = true;
    try {
      co_await send_out();  // also the alert that tells the peer
      if (result == 1) co_return;
      peer_is_there = failed || co_await take_in();
    } catch (const asio::system_error&) {
      peer_is_there = false;
    }
    if (failed) throw *failed;
    if (!peer_is_there) throw Error(Errc::unavailable, "the connection ended during the TLS handshake");
  }
}

asio::awaitable<std::string_view> TlsDuplex::read() {
  for (;;) {
    if (!plain_) plain_ = std::make_unique_for_overwrite<char[]>(kRecordBytes);
    size_t count = 0;
    ERR_clear_error();
    const int result = SSL_read_ex(ssl_.get(), plain_.get(), kRecordBytes, &count);
    if (result == 1) co_return std::string_view(plain_.get(), count);
    const int why = SSL_get_error(ssl_.get(), result);
    if (why == SSL_ERROR_ZERO_RETURN) co_return std::string_view();
    if (why != SSL_ERROR_WANT_READ) throw broken();
    plain_.reset();
    if (!co_await take_in()) throw truncated();
  }
}

asio::awaitable<void> TlsDuplex::write(std::string_view bytes) {
  while (!bytes.empty()) {
    size_t count = 0;
    ERR_clear_error();
    if (SSL_write_ex(ssl_.get(), bytes.data(), std::min(bytes.size(), kWriteBytes), &count) != 1)
      throw broken();
    bytes.remove_prefix(count);
    co_await send_out();
  }
}

asio::awaitable<void> TlsDuplex::end() {
  ERR_clear_error();
  (void)SSL_shutdown(ssl_.get());
  co_await send_out();
  co_await below_.end();
}

TlsAcceptor::TlsAcceptor() : context_(made(SSL_CTX_new(TLS_server_method()), "SSL_CTX_new")) {
  set_up(*context_);
  SSL_CTX_set_num_tickets(context_.get(), 0);
  SSL_CTX_set_alpn_select_cb(context_.get(), take_http11, nullptr);
  SSL_CTX_set_tlsext_servername_callback(context_.get(), check_name);
}

asio::awaitable<TlsStream> TlsAcceptor::accept(Duplex& below, std::string host,
                                               const TlsIdentity& identity) const {
  Openssl<SSL> ssl = made(SSL_new(context_.get()), "SSL_new");
  SSL* const raw = ssl.get();
  SSL_set_app_data(raw, &host);
  check_openssl(SSL_use_certificate(raw, identity.certificate.get()), "SSL_use_certificate");
  check_openssl(SSL_use_PrivateKey(raw, identity.key.get()), "SSL_use_PrivateKey");
  SSL_set_accept_state(raw);
  auto stream = std::make_unique<TlsDuplex>(below, std::move(ssl));
  co_await stream->handshake();
  SSL_set_app_data(raw, nullptr);
  co_return stream;
}

TlsConnector::TlsConnector(const std::string& ca_file)
    : context_(made(SSL_CTX_new(TLS_client_method()), "SSL_CTX_new")) {
  set_up(*context_);
  SSL_CTX_set_verify(context_.get(), SSL_VERIFY_PEER, nullptr);
  check_openssl(SSL_CTX_set_default_verify_paths(context_.get()), "SSL_CTX_set_default_verify_paths");
  ERR_clear_error();  // a trust store that is not there is an empty one
  if (!ca_file.empty() && SSL_CTX_load_verify_file(context_.get(), ca_file.c_str()) != 1)
    throw Error(Errc::invalid_argument,
                fmt::format("cannot read certificates from {}: {}", ca_file, openssl_reason()))
        .hint("`egress.ca_file` names a file of certificates in PEM form");
  if (SSL_CTX_set_alpn_protos(context_.get(), kHttp11, kHttp11Bytes) != 0) throw std::bad_alloc();
}

asio::awaitable<TlsStream> TlsConnector::connect(Duplex& below, std::string host) const {
  Openssl<SSL> ssl = made(SSL_new(context_.get()), "SSL_new");
  asio::error_code no_address;
  (void)asio::ip::make_address(host, no_address);
  X509_VERIFY_PARAM* const wanted = SSL_get0_param(ssl.get());
  if (no_address) {
    X509_VERIFY_PARAM_set_hostflags(wanted, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    check_openssl(X509_VERIFY_PARAM_set1_host(wanted, host.data(), host.size()),
                  "X509_VERIFY_PARAM_set1_host");
    check_openssl(SSL_set_tlsext_host_name(ssl.get(), host.c_str()), "SSL_set_tlsext_host_name");
  } else {
    check_openssl(X509_VERIFY_PARAM_set1_ip_asc(wanted, host.c_str()), "X509_VERIFY_PARAM_set1_ip_asc");
  }
  SSL_set_connect_state(ssl.get());
  auto stream = std::make_unique<TlsDuplex>(below, std::move(ssl));
  try {
    co_await stream->handshake();
  } catch (Error& error) {
    error.during("connecting to " + host + " with TLS");
    throw;
  }
  co_return stream;
}

}  // namespace hutch::net
