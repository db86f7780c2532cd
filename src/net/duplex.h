#pragma once

#include <asio/any_io_executor.hpp>
#include <asio/awaitable.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/steady_timer.hpp>
#include <chrono>
#include <memory>
#include <string>
#include <string_view>

/// Streams of bytes as coroutines on the I/O thread see them: TCP connections, connections inside a sandbox
/// that come over its agent channel, TLS on top of either.
namespace hutch::net {

/// Bytes in both directions. At most one read() and one write() are under way at once; nothing of it is safe
/// on another thread. What breaks a stream, close() included, is thrown as asio::system_error by whatever
/// waits on it and by all that comes after.
class Duplex {
 public:
  virtual ~Duplex() = default;
  /// What has come, as soon as anything has; empty when the peer has ended its direction. Valid until the
  /// next read().
  virtual asio::awaitable<std::string_view> read() = 0;
  /// Returns when all of it is on its way: a peer that does not read is waited for.
  virtual asio::awaitable<void> write(std::string_view bytes) = 0;
  /// The peer reads an end after what was written; the other direction goes on.
  virtual asio::awaitable<void> end() = 0;
  /// Ends both directions at once, as a reset where there is something unsent.
  virtual void close() noexcept = 0;
  virtual asio::any_io_executor executor() = 0;
};

class TcpDuplex final : public Duplex {
 public:
  explicit TcpDuplex(asio::ip::tcp::socket socket);
  ~TcpDuplex() override;
  asio::awaitable<std::string_view> read() override;
  asio::awaitable<void> write(std::string_view bytes) override;
  asio::awaitable<void> end() override;
  void close() noexcept override;
  asio::any_io_executor executor() override { return socket_.get_executor(); }
  asio::ip::tcp::socket& socket() { return socket_; }
  /// close(), as an end that the peer cannot take for a good one.
  void reset() noexcept;

 private:
  asio::ip::tcp::socket socket_;
  std::unique_ptr<char[]> buffer_;  // only while what is in it is needed: a thousand idle ones cost nothing
};

/// Passes everything on to another stream, which outlives it: the base of those that change one thing.
class Forwarding : public Duplex {
 public:
  explicit Forwarding(Duplex& rest) : rest_(rest) {}
  asio::awaitable<std::string_view> read() override { return rest_.read(); }
  asio::awaitable<void> write(std::string_view bytes) override { return rest_.write(bytes); }
  asio::awaitable<void> end() override { return rest_.end(); }
  void close() noexcept override { rest_.close(); }
  asio::any_io_executor executor() override { return rest_.executor(); }

 protected:
  Duplex& rest_;
};

/// The same with a stream of its own.
class ForwardingOwner : public Forwarding {
 public:
  explicit ForwardingOwner(std::unique_ptr<Duplex> rest) : Forwarding(*rest), owned_(std::move(rest)) {}

 private:
  const std::unique_ptr<Duplex> owned_;
};

/// A stream of which something was read already: that comes out once more, before the rest.
class Rewound final : public Forwarding {
 public:
  Rewound(Duplex& rest, std::string again) : Forwarding(rest), again_(std::move(again)) {}
  asio::awaitable<std::string_view> read() override;

 private:
  std::string again_;
  bool given_ = false;
};

/// Passes both directions on until both have ended. The end of one is passed on as such; when one side breaks
/// the other is closed. Never throws.
asio::awaitable<void> relay(Duplex& a, Duplex& b);

/// Ends our direction, and gives the other side a moment to read what was written: closing with something
/// unread would reset the connection, and what was written might be lost.
asio::awaitable<void> say_goodbye(Duplex& stream);

/// Closes a stream that takes too long, unless it goes out of scope before.
class CloseAfter {
 public:
  CloseAfter(Duplex& stream, std::chrono::milliseconds time);
  ~CloseAfter();
  CloseAfter(const CloseAfter&) = delete;
  CloseAfter& operator=(const CloseAfter&) = delete;

 private:
  const std::shared_ptr<Duplex*> stream_;  // to nullptr: too late
  asio::steady_timer timer_;
};

}  // namespace hutch::net
