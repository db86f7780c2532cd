#pragma once

#include "net/duplex.h"

namespace hutch::net {

/// A stream whose reader may give back the end of what it has just read: for protocols whose messages do not
/// end where reads do. Nothing is copied.
class ReadAhead final : public Forwarding {
 public:
  using Forwarding::Forwarding;

  /// `tail` is the end of what read() has returned last; it comes again.
  void unread(std::string_view tail) { tail_ = tail; }
  bool has_unread() const noexcept { return !tail_.empty(); }

  asio::awaitable<std::string_view> read() override {
    if (!tail_.empty()) co_return std::exchange(tail_, {});
    co_return co_await rest_.read();
  }

 private:
  std::string_view tail_;  // into the other's buffer, which stays until its next read()
};

}  // namespace hutch::net
