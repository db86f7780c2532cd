#include "net/openssl.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

namespace hutch::net {

void FreeOpenssl::operator()(SSL_CTX* object) const noexcept {
  SSL_CTX_free(object);
}
void FreeOpenssl::operator()(SSL* object) const noexcept {
  SSL_free(object);
}
void FreeOpenssl::operator()(X509* object) const noexcept {
  X509_free(object);
}
void FreeOpenssl::operator()(EVP_PKEY* object) const noexcept {
  EVP_PKEY_free(object);
}
void FreeOpenssl::operator()(BIO* object) const noexcept {
  BIO_free_all(object);
}

std::string openssl_reason() {
  // The first of the queue is the cause, what follows says who passed it on.
  const unsigned long code = ERR_get_error();
  ERR_clear_error();
  const char* reason = code == 0 ? nullptr : ERR_reason_error_string(code);
  return reason != nullptr ? reason : "no reason given";
}

void check_openssl(long result, const char* call) {
  if (result != 1) throw Error(Errc::internal, std::string(call) + ": " + openssl_reason());
}

}  // namespace hutch::net
