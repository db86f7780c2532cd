#pragma once

#include <stdlib.h>

#include <array>
#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/io_context.hpp>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/sys.h"
#include "net/duplex.h"

namespace hutch::test {

/// Runs all of them at once to their end; the first exception of the first that threw is thrown on.
inline void run(asio::io_context& io, std::vector<std::function<asio::awaitable<void>()>> all) {
  std::vector<std::exception_ptr> thrown(all.size());
  for (size_t i = 0; i < all.size(); ++i)
    asio::co_spawn(io, all[i](), [&thrown, i](std::exception_ptr error) { thrown[i] = error; });
  io.restart();
  io.run();
  for (const auto& error : thrown)
    if (error) std::rethrow_exception(error);
}

/// Both ends of a TCP connection on loopback.
struct Pair {
  explicit Pair(asio::io_context& io) {
    using asio::ip::tcp;
    tcp::acceptor listener(io, tcp::endpoint(asio::ip::address_v4::loopback(), 0));
    tcp::socket near(io), far(io);
    near.connect(listener.local_endpoint());
    listener.accept(far);
    a = std::make_unique<net::TcpDuplex>(std::move(near));
    b = std::make_unique<net::TcpDuplex>(std::move(far));
  }
  std::unique_ptr<net::TcpDuplex> a, b;
};

inline asio::awaitable<std::string> read_to_end(net::Duplex& stream) {
  std::string all;
  for (;;) {
    const std::string_view bytes = co_await stream.read();
    if (bytes.empty()) co_return all;
    all += bytes;
  }
}

class ScratchFolder {
 public:
  ScratchFolder() {
    std::string name = "/tmp/hutch-secrets-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) throw sys_error(errno, "mkdtemp");
    path_ = name;
  }
  ~ScratchFolder() { sys::remove_tree(path_); }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace hutch::test
