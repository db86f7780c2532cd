#pragma once

#include <optional>
#include <string>

#include "net/http_head.h"
#include "net/read_ahead.h"

/// What comes after a head: bodies, and how messages follow each other on one stream.
namespace hutch::net {

/// The next head on the stream; what follows it is still to be read. Nothing: the stream has ended before its
/// first byte. Throws BadHttp, also when the stream ends within a head.
asio::awaitable<std::optional<std::string>> read_head(ReadAhead& from);

/// Reads a body in chunks and writes it anew: what the next reader sees has one meaning, whatever this one
/// said. Extensions of chunks and trailers are checked and left out.
class ChunkReader {
 public:
  enum class Out { chunks, data };
  explicit ChunkReader(Out out = Out::chunks) : framed_(out == Out::chunks) {}
  /// Appends to `out` and returns how many bytes were taken; fewer than all when done(). Throws BadHttp.
  size_t take(std::string_view bytes, std::string& out);
  bool done() const { return state_ == State::done; }

 private:
  enum class State { size, extension, size_lf, data, data_cr, data_lf, trailer, trailer_lf, done };
  void begin_chunk(std::string& out);
  void end_trailer_line(std::string& out);
  void take_byte(char c, std::string& out);

  const bool framed_;
  State state_ = State::size;
  uint64_t left_ = 0;    // of the chunk
  size_t digits_ = 0;    // of its size
  size_t overhead_ = 0;  // bytes of this line's extension, or of all trailers
  std::string line_;     // of the trailer
};

/// Passes a body on; what comes behind it on the stream is still to be read. Not for tunnels. Throws BadHttp
/// when it is malformed or ends too early.
asio::awaitable<void> copy_body(ReadAhead& from, Duplex& to, const BodyFraming& framing);

}  // namespace hutch::net
