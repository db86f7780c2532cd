#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace hutch {

/// SHA-256 of a stream of bytes (libcrypto). Not thread-safe; one object a stream.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;

  void update(std::string_view bytes);
  /// 64 lower-case hex digits; the object is used up.
  std::string hex();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string sha256_hex(std::string_view bytes);

/// HMAC-SHA256 as 64 lower-case hex digits.
std::string hmac_sha256_hex(std::string_view key, std::string_view bytes);
/// Takes equally long wherever the first difference is.
bool same_secret(std::string_view a, std::string_view b);

}  // namespace hutch
