#include "net/http_body.h"

#include <fmt/format.h>

#include <algorithm>

namespace hutch::net {

namespace {

constexpr size_t kMaxExtension = 256, kMaxTrailers = 8192;
constexpr size_t kMaxSizeDigits = 15;  // hexadecimal: fewer bytes than 2^60

int chunk_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

BadHttp bad_chunk(const char* what) {
  return BadHttp(400, std::string("a chunk of the body ") + what);
}

BadHttp cut_off() {
  return BadHttp(400, "the stream ended before the body did");
}

asio::awaitable<void> copy_length(ReadAhead& from, Duplex& to, uint64_t left) {
  while (left > 0) {
    const std::string_view bytes = co_await from.read();
    if (bytes.empty()) throw cut_off();
    const std::string_view mine = bytes.substr(0, std::min<uint64_t>(left, bytes.size()));
    from.unread(bytes.substr(mine.size()));
    left -= mine.size();
    co_await to.write(mine);
  }
}

asio::awaitable<void> copy_chunks(ReadAhead& from, Duplex& to) {
  ChunkReader reader;
  std::string out;
  while (!reader.done()) {
    const std::string_view bytes = co_await from.read();
    if (bytes.empty()) throw cut_off();
    out.clear();
    const size_t taken = reader.take(bytes, out);
    from.unread(bytes.substr(taken));
    if (!out.empty()) co_await to.write(out);
  }
}

asio::awaitable<void> copy_all(ReadAhead& from, Duplex& to) {
  for (;;) {
    const std::string_view bytes = co_await from.read();
    if (bytes.empty()) co_return;
    co_await to.write(bytes);
  }
}

}  // namespace

asio::awaitable<std::optional<std::string>> read_head(ReadAhead& from) {
  std::string head;
  for (;;) {
    const std::string_view bytes = co_await from.read();
    if (bytes.empty() && head.empty()) co_return std::nullopt;
    if (bytes.empty()) throw BadHttp(400, "the stream ended within a head");
    const size_t before = head.size();
    head += bytes.substr(0, kMaxHeadBytes);
    if (const size_t length = head_length(head, before); length > 0) {
      from.unread(bytes.substr(length - before));
      head.resize(length);
      co_return head;
    }
  }
}

void ChunkReader::begin_chunk(std::string& out) {
  overhead_ = 0;
  digits_ = 0;
  state_ = left_ == 0 ? State::trailer : State::data;
  if (framed_ && left_ != 0) out += fmt::format("{:x}\r\n", left_);
}

void ChunkReader::end_trailer_line(std::string& out) {
  state_ = State::trailer;
  if (line_.empty()) {
    if (framed_) out += "0\r\n\r\n";
    state_ = State::done;
    return;
  }
  const size_t colon = line_.find(':');
  if (colon == line_.npos) throw BadHttp(400, "a trailer of the body has no colon");
  HttpFields().add(line_.substr(0, colon), line_.substr(colon + 1));
  line_.clear();
}

void ChunkReader::take_byte(char c, std::string& out) {
  const auto expect = [c](char wanted, const char* where) {
    if (c != wanted) throw bad_chunk(where);
  };
  switch (state_) {
    case State::size:
      if (const int value = chunk_digit(c); value >= 0) {
        if (++digits_ > kMaxSizeDigits) throw bad_chunk("is too long");
        left_ = left_ * 16 + static_cast<uint64_t>(value);
        return;
      }
      if (digits_ == 0 || (c != ';' && c != '\r')) throw bad_chunk("has no length");
      state_ = c == ';' ? State::extension : State::size_lf;
      return;
    case State::extension:
      if (++overhead_ > kMaxExtension) throw bad_chunk("has too long an extension");
      if (c == '\r')
        state_ = State::size_lf;
      else if (c != '\t' && (static_cast<unsigned char>(c) < ' ' || c == 0x7f))
        throw bad_chunk("has a control character in its extension");
      return;
    case State::size_lf:
      expect('\n', "has a bare CR behind its length");
      return begin_chunk(out);
    case State::data_cr:
      expect('\r', "does not end where its length says");
      state_ = State::data_lf;
      return;
    case State::data_lf:
      expect('\n', "ends with a bare CR");
      if (framed_) out += "\r\n";
      state_ = State::size;
      return;
    case State::trailer:
      if (++overhead_ > kMaxTrailers) throw BadHttp(431, "the trailers of the body are too long");
      if (c == '\r')
        state_ = State::trailer_lf;
      else
        line_ += c;
      return;
    case State::trailer_lf:
      expect('\n', "has a bare CR in a trailer");
      return end_trailer_line(out);
    case State::data:
    case State::done:
      return;
  }
}

size_t ChunkReader::take(std::string_view bytes, std::string& out) {
  size_t at = 0;
  while (at < bytes.size() && !done()) {
    if (state_ != State::data) {
      take_byte(bytes[at++], out);
      continue;
    }
    const std::string_view data = bytes.substr(at, std::min<uint64_t>(left_, bytes.size() - at));
    out += data;
    at += data.size();
    left_ -= data.size();
    if (left_ == 0) state_ = State::data_cr;
  }
  return at;
}

asio::awaitable<void> copy_body(ReadAhead& from, Duplex& to, const BodyFraming& framing) {
  switch (framing.kind) {
    case BodyFraming::Kind::length:
      co_return co_await copy_length(from, to, framing.length);
    case BodyFraming::Kind::chunked:
      co_return co_await copy_chunks(from, to);
    case BodyFraming::Kind::until_end:
      co_return co_await copy_all(from, to);
    case BodyFraming::Kind::none:
    case BodyFraming::Kind::tunnel:
      co_return;
  }
}

}  // namespace hutch::net
