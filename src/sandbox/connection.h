#pragma once

#include <asio/any_io_executor.hpp>
#include <asio/awaitable.hpp>
#include <functional>
#include <memory>

#include "net/duplex.h"
#include "sandbox/channel.h"

namespace hutch::sandbox {

/// A TCP connection to a loopback port inside a sandbox, over its agent channel: for every runtime, and
/// without a network in the sandbox. To be used on the I/O thread.
asio::awaitable<std::unique_ptr<net::Duplex>> connect(asio::any_io_executor executor,
                                                      std::shared_ptr<Channel> channel, uint16_t port);

/// Connections that are made inside to one port of the sandbox's loopback.
class Listener {
 public:
  /// On the I/O thread, for each of them.
  using Accept = std::function<void(std::unique_ptr<net::Duplex>)>;
  /// Begins to listen and returns; when that fails, a warning is written.
  Listener(const asio::any_io_executor& executor, std::shared_ptr<Channel> channel, uint16_t port,
           Accept accept);
  ~Listener();
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

 private:
  const std::shared_ptr<Channel> channel_;
  uint32_t id_ = 0;
};

}  // namespace hutch::sandbox
