#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"
#include "net/duplex.h"

/// Secrets of the configuration: their values, which are in the server's memory only, and the placeholders
/// that stand for them inside of sandboxes.
namespace hutch::net {

constexpr size_t kMinSecretBytes = 8;  // what is shorter cannot be told from other text
constexpr size_t kMaxSecretBytes = 16 << 10;

/// Wiped when it goes. It cannot be copied, compared, printed or formatted, so that a value gets nowhere by
/// accident: who wants it says so.
class SecretValue {
 public:
  SecretValue() : bytes_(std::make_unique<char[]>(kMaxSecretBytes + 2)) {}
  ~SecretValue();
  SecretValue(const SecretValue&) = delete;
  SecretValue& operator=(const SecretValue&) = delete;

  std::string_view reveal() const noexcept { return {bytes_.get(), size_}; }
  /// For who reads it in: room for more, of which `count` bytes have come then.
  char* room() noexcept { return bytes_.get() + size_; }
  size_t room_size() const noexcept { return kMaxSecretBytes + 2 - size_; }
  void grow(size_t count) noexcept { size_ += count; }
  void drop_last_newline() noexcept;

 private:
  const std::unique_ptr<char[]> bytes_;
  size_t size_ = 0;
};

/// All secrets, for one server; on the I/O thread alone. A process that has one cannot be traced or read by
/// others of its user, and leaves no core file.
class SecretStore {
 public:
  explicit SecretStore(std::map<std::string, config::Secret> all);
  ~SecretStore();

  /// nullptr: there is none of that name.
  const config::Secret* find(const std::string& name) const;
  /// Read when it is needed first; a failure is not kept. Throws Error, which names where it should have come
  /// from and nothing of what came.
  asio::awaitable<std::shared_ptr<const SecretValue>> value(std::string name);
  /// nullptr: nobody has needed it yet.
  std::shared_ptr<const SecretValue> known(const std::string& name) const;

 private:
  struct Reading;
  struct Entry;
  asio::awaitable<void> read(const std::string& name, const config::Secret& settings, Entry& entry);

  const std::map<std::string, config::Secret> settings_;
  std::map<std::string, Entry> entries_;
};

/// One of a sandbox's, on its way to a host that it may go to.
struct SecretUse {
  std::string name, placeholder;
  const config::Secret* settings;
};

/// The secrets of one sandbox.
class Secrets {
 public:
  /// NAME -> `hutch-secret-<NAME>-<32 hex digits>`, new for each sandbox: what one has read of its own is
  /// worth nothing in another.
  static std::map<std::string, std::string> new_environment(const std::vector<std::string>& names);

  /// `environment`: as it was made for this sandbox, by whichever server. What the store does not have any
  /// more is left out.
  Secrets(std::shared_ptr<SecretStore> store, std::map<std::string, std::string> environment);

  const std::map<std::string, std::string>& environment() const noexcept { return environment_; }
  bool applies_to(const std::string& host, uint16_t port) const;
  std::vector<SecretUse> uses_for(const std::string& host, uint16_t port) const;
  SecretStore& store() const noexcept { return *store_; }

 private:
  const std::shared_ptr<SecretStore> store_;
  const std::map<std::string, std::string> environment_;
};

/// `api.example.org`, `*.example.org` (below it, not itself), each with `:PORT` unless that is 443.
bool host_matches(std::string_view pattern, std::string_view host, uint16_t port);

}  // namespace hutch::net
