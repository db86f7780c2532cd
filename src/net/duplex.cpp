#include "net/duplex.h"

#include <array>
#include <asio/error.hpp>
#include <asio/experimental/awaitable_operators.hpp>
#include <asio/redirect_error.hpp>
#include <asio/system_error.hpp>
#include <asio/use_awaitable.hpp>
#include <asio/write.hpp>
#include <vector>

namespace hutch::net {

using namespace std::chrono_literals;

namespace {

constexpr size_t kBufferBytes = 128 << 10, kSpareBuffers = 16;

/// All streams live on one thread, and most buffers are wanted again in a moment.
std::vector<std::unique_ptr<char[]>>& spare_buffers() {
  thread_local std::vector<std::unique_ptr<char[]>> spare;
  return spare;
}

std::unique_ptr<char[]> take_buffer() {
  auto& spare = spare_buffers();
  if (spare.empty()) return std::make_unique_for_overwrite<char[]>(kBufferBytes);
  auto buffer = std::move(spare.back());
  spare.pop_back();
  return buffer;
}

void give_back(std::unique_ptr<char[]>& buffer) {
  auto& spare = spare_buffers();
  if (buffer && spare.size() < kSpareBuffers) spare.push_back(std::move(buffer));
  buffer.reset();
}

asio::awaitable<void> pump(Duplex& from, Duplex& to) {
  try {
    for (;;) {
      const std::string_view bytes = co_await from.read();
      if (bytes.empty()) break;
      co_await to.write(bytes);
    }
    co_await to.end();
  } catch (const std::exception&) {
    from.close();
    to.close();
  }
}

}  // namespace

TcpDuplex::TcpDuplex(asio::ip::tcp::socket socket) : socket_(std::move(socket)) {
  asio::error_code ignored;
  socket_.non_blocking(true, ignored);
  socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
}

TcpDuplex::~TcpDuplex() {
  give_back(buffer_);
}

asio::awaitable<std::string_view> TcpDuplex::read() {
  for (;;) {
    if (!buffer_) buffer_ = take_buffer();
    asio::error_code err;
    const size_t count = socket_.read_some(asio::buffer(buffer_.get(), kBufferBytes), err);
    if (!err) co_return std::string_view(buffer_.get(), count);
    if (err == asio::error::eof) co_return std::string_view();
    if (err != asio::error::would_block) throw asio::system_error(err);
    give_back(buffer_);
    co_await socket_.async_wait(asio::ip::tcp::socket::wait_read, asio::use_awaitable);
  }
}

asio::awaitable<void> TcpDuplex::write(std::string_view bytes) {
  // Mostly the kernel takes it at once: then nothing waits.
  asio::error_code err;
  const size_t count = socket_.write_some(asio::buffer(bytes), err);
  if (err && err != asio::error::would_block) throw asio::system_error(err);
  if (!err) bytes.remove_prefix(count);
  if (!bytes.empty()) co_await asio::async_write(socket_, asio::buffer(bytes), asio::use_awaitable);
}

asio::awaitable<void> TcpDuplex::end() {
  asio::error_code ignored;  // such as a peer that has gone already
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  co_return;
}

void TcpDuplex::close() noexcept {
  asio::error_code ignored;
  socket_.close(ignored);
}

void TcpDuplex::reset() noexcept {
  asio::error_code ignored;
  socket_.set_option(asio::socket_base::linger(true, 0), ignored);
  close();
}

asio::awaitable<std::string_view> Rewound::read() {
  if (!std::exchange(given_, true) && !again_.empty()) co_return again_;
  co_return co_await rest_.read();
}

asio::awaitable<void> relay(Duplex& a, Duplex& b) {
  using namespace asio::experimental::awaitable_operators;
  co_await (pump(a, b) && pump(b, a));
}

asio::awaitable<void> say_goodbye(Duplex& stream) {
  const CloseAfter deadline(stream, 2s);
  co_await stream.end();
  for (size_t read = 0; read < 1 << 20;) {
    const std::string_view bytes = co_await stream.read();
    if (bytes.empty()) break;
    read += bytes.size();
  }
}

CloseAfter::CloseAfter(Duplex& stream, std::chrono::milliseconds time)
    : stream_(std::make_shared<Duplex*>(&stream)), timer_(stream.executor(), time) {
  timer_.async_wait([held = stream_](asio::error_code err) {
    if (!err && *held != nullptr) (*held)->close();
  });
}

CloseAfter::~CloseAfter() {
  *stream_ = nullptr;  // the timer may have run out already, with its handler in the queue
}

}  // namespace hutch::net
