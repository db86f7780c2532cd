#include "net/secret_body.h"

#include <fmt/format.h>

#include <asio/system_error.hpp>

namespace hutch::net {

namespace {

class Forgiving final : public Forwarding {
 public:
  using Forwarding::Forwarding;
  asio::awaitable<void> write(std::string_view bytes) override {
    if (broken_) co_return;
    try {
      co_await rest_.write(bytes);
    } catch (const asio::system_error&) {
      broken_ = true;
    }
  }

 private:
  bool broken_ = false;
};

/// The data of a body on its way to the client, with its values hidden.
class Masked final : public Forwarding {
 public:
  Masked(Duplex& to, Mask& mask, bool chunked) : Forwarding(to), mask_(mask), chunked_(chunked) {}
  asio::awaitable<void> write(std::string_view bytes) override { return show(mask_.pass(bytes)); }
  asio::awaitable<void> finish() {
    co_await show(mask_.finish());
    if (chunked_) co_await rest_.write("0\r\n\r\n");
  }

 private:
  asio::awaitable<void> show(std::string text) {
    if (text.empty()) co_return;
    if (chunked_) text = fmt::format("{:x}\r\n{}\r\n", text.size(), text);
    co_await rest_.write(text);
  }

  Mask& mask_;
  const bool chunked_;
};

asio::awaitable<void> copy_chunk_data(ReadAhead& from, Duplex& to) {
  ChunkReader reader(ChunkReader::Out::data);
  for (std::string data; !reader.done(); data.clear()) {
    const std::string_view bytes = co_await from.read();
    if (bytes.empty()) throw BadHttp(400, "the stream ended before the body did");
    from.unread(bytes.substr(reader.take(bytes, data)));
    co_await to.write(data);
  }
}

asio::awaitable<void> copy_hiding(ReadAhead& from, Duplex& to, const BodyFraming& framing, Mask& mask) {
  const bool chunked = framing.kind == BodyFraming::Kind::chunked;
  Masked masked(to, mask, chunked);
  if (chunked)
    co_await copy_chunk_data(from, masked);
  else
    co_await copy_body(from, masked, framing);
  co_await masked.finish();
}

asio::awaitable<void> copy_forgiving(ReadAhead& from, Duplex& server, const BodyFraming& framing) {
  Forgiving to(server);
  co_await copy_body(from, to, framing);
}

}  // namespace

asio::awaitable<std::string> read_body(ReadAhead& from, uint64_t length) {
  std::string body;
  while (body.size() < length) {
    const std::string_view bytes = co_await from.read();
    if (bytes.empty()) throw BadHttp(400, "the stream ended before the body did");
    const std::string_view mine = bytes.substr(0, length - body.size());
    from.unread(bytes.substr(mine.size()));
    body += mine;
  }
  co_return body;
}

// The coroutines themselves are above: what they keep has types of this file.
asio::awaitable<void> copy_masked(ReadAhead& from, Duplex& to, const BodyFraming& framing, Mask& mask) {
  const bool as_it_is = mask.hides_nothing() || framing.kind == BodyFraming::Kind::none;
  return as_it_is ? copy_body(from, to, framing) : copy_hiding(from, to, framing, mask);
}

asio::awaitable<void> copy_to_server(ReadAhead& from, Duplex& server, const BodyFraming& framing) {
  return copy_forgiving(from, server, framing);
}

}  // namespace hutch::net
