#include "rpc/line_reader.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>

#include "base/sys.h"

namespace hutch::rpc {

namespace {

constexpr size_t kChunkBytes = 64 << 10;
constexpr size_t kKeptBytes = 1 << 20;

/// For poll(2): rounded up, so that it does not return early, and -1 for no deadline.
int timeout_ms(LineReader::Clock::time_point deadline) {
  if (deadline == LineReader::Clock::time_point::max()) return -1;
  const auto rest = std::chrono::ceil<std::chrono::milliseconds>(deadline - LineReader::Clock::now()).count();
  return static_cast<int>(std::clamp<int64_t>(rest, 0, 3'600'000));
}

}  // namespace

LineReader::Event LineReader::next(std::string_view& line, Clock::time_point deadline) {
  for (;;) {
    while (take_line(line)) {
      const bool rest_of_too_long = discarding_;
      discarding_ = false;
      if (rest_of_too_long) continue;
      if (line.size() > max_bytes_) return Event::too_long;
      if (!line.empty()) return Event::line;
    }
    const bool overflow = buffer_.size() - start_ > max_bytes_ + 1;  // + 1: a '\r' may be the last byte
    const bool report = overflow && !discarding_;
    if (overflow || discarding_) {
      discarding_ = true;
      start_ = scanned_ = buffer_.size();
    }
    compact();
    if (report) return Event::too_long;
    if (at_eof_) return Event::eof;
    const Input input = fill(deadline);
    if (input == Input::stopped) return Event::stopped;
    if (input == Input::timeout) return Event::timeout;
  }
}

bool LineReader::take_line(std::string_view& line) {
  const size_t newline = buffer_.find('\n', scanned_);
  size_t end = newline;
  if (newline == buffer_.npos) {
    scanned_ = buffer_.size();
    if (!at_eof_ || start_ == buffer_.size()) return false;
    end = buffer_.size();
  }
  line = std::string_view(buffer_).substr(start_, end - start_);
  if (line.ends_with('\r')) line.remove_suffix(1);
  start_ = scanned_ = newline == buffer_.npos ? end : end + 1;
  return true;
}

void LineReader::compact() {
  buffer_.erase(0, start_);
  scanned_ -= start_;
  start_ = 0;
  if (buffer_.capacity() > kKeptBytes && buffer_.size() < kKeptBytes / 4) buffer_.shrink_to_fit();
}

LineReader::Input LineReader::fill(Clock::time_point deadline) {
  pollfd entries[2] = {{fd_, POLLIN, 0}, {stop_fd_, POLLIN, 0}};
  for (;;) {
    const int ready = sys::retry_eintr([&] { return ::poll(entries, 2, timeout_ms(deadline)); });
    if (ready < 0) throw sys_error(errno, "poll");
    if (ready == 0) return Input::timeout;
    if (entries[1].revents != 0) return Input::stopped;
    const size_t before = buffer_.size();
    buffer_.resize(before + kChunkBytes);
    const ssize_t got = sys::retry_eintr([&] { return ::read(fd_, buffer_.data() + before, kChunkBytes); });
    const int failure = errno;
    buffer_.resize(before + static_cast<size_t>(got > 0 ? got : 0));
    if (got > 0) return Input::data;
    // The descriptor is shared with whoever started us, who may have made it non-blocking.
    if (got < 0 && failure == EAGAIN) continue;
    if (got < 0 && failure != ECONNRESET) throw sys_error(failure, "read", "stdin");
    at_eof_ = true;
    return Input::eof;
  }
}

}  // namespace hutch::rpc
