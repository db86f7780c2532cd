#pragma once

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/error.hpp>
#include <asio/io_context.hpp>
#include <asio/system_error.hpp>
#include <deque>
#include <exception>
#include <optional>
#include <string>

#include "net/duplex.h"
#include "support.h"

namespace hutch::test {

/// Runs a coroutine to its end on a context of its own; passes on what it throws.
template <class T>
T run(asio::io_context& context, asio::awaitable<T> work) {
  std::exception_ptr failure;
  std::conditional_t<std::is_void_v<T>, char, std::optional<T>> result{};
  asio::co_spawn(
      context,
      [&]() -> asio::awaitable<void> {
        if constexpr (std::is_void_v<T>)
          co_await std::move(work);
        else
          result.emplace(co_await std::move(work));
      },
      [&](std::exception_ptr thrown) { failure = thrown; });
  context.restart();
  context.run();
  if (failure) std::rethrow_exception(failure);
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

/// A stream that gives what the test put in, one piece a read, and keeps what is written.
class MemoryDuplex final : public net::Duplex {
 public:
  explicit MemoryDuplex(asio::io_context& context, std::deque<std::string> pieces = {})
      : in(std::move(pieces)), context_(context) {}
  /// The same bytes, one a read.
  static std::deque<std::string> bytewise(const std::string& text) {
    std::deque<std::string> out;
    for (const char c : text) out.emplace_back(1, c);
    return out;
  }

  asio::awaitable<std::string_view> read() override {
    if (closed) throw asio::system_error(asio::error::operation_aborted);
    if (in.empty()) co_return std::string_view();
    current_ = std::move(in.front());
    in.pop_front();
    co_return current_;
  }
  asio::awaitable<void> write(std::string_view bytes) override {
    if (closed) throw asio::system_error(asio::error::operation_aborted);
    out += bytes;
    co_return;
  }
  asio::awaitable<void> end() override {
    ended = true;
    co_return;
  }
  void close() noexcept override { closed = true; }
  asio::any_io_executor executor() override { return context_.get_executor(); }

  std::deque<std::string> in;
  std::string out;
  bool ended = false, closed = false;

 private:
  asio::io_context& context_;
  std::string current_;
};

}  // namespace hutch::test
