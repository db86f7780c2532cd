#pragma once

#include <openssl/types.h>

#include <memory>
#include <string>

#include "base/error.h"

/// Owners of OpenSSL's objects, and what it says when a call fails.
namespace hutch::net {

struct FreeOpenssl {
  void operator()(SSL_CTX* object) const noexcept;
  void operator()(SSL* object) const noexcept;
  void operator()(X509* object) const noexcept;
  void operator()(EVP_PKEY* object) const noexcept;
  void operator()(BIO* object) const noexcept;
};
template <class T>
using Openssl = std::unique_ptr<T, FreeOpenssl>;

/// Why the latest call on this thread failed. OpenSSL queues that per thread, for all connections alike: it
/// is to be asked before a coroutine waits for anything.
std::string openssl_reason();

/// The object that a call made, owned; throws when it made none.
template <class T>
Openssl<T> made(T* object, const char* call) {
  if (object == nullptr) throw Error(Errc::internal, std::string(call) + ": " + openssl_reason());
  return Openssl<T>(object);
}
/// Throws unless the call said 1, OpenSSL's yes.
void check_openssl(long result, const char* call);

}  // namespace hutch::net
