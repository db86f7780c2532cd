#include "agent/channel.h"

#include <algorithm>
#include <cstring>

#include "agent/sys.h"

namespace hutch::agent {
namespace {

bool is_valid(const wire::Header& header) {
  return wire::valid(header) && header.reserved == 0;
}

/// Of any version: the one who sends it is told ours.
bool is_hello(const wire::Header& header) {
  constexpr size_t kHelloBytes = 2 * sizeof(uint64_t) + sizeof wire::kWhole;
  return header.payload_bytes == kHelloBytes && header.stream == 0 && header.type == wire::Type::hello &&
         header.flags == 0 && header.reserved == 0;
}

}  // namespace

bool Channel::parse(Frame& frame) {
  wire::Header header;
  while (rx_end_ - rx_begin_ >= sizeof header) {
    std::memcpy(&header, rx_ + rx_begin_, sizeof header);
    if (!is_valid(header)) hunting_ = true;
    if (hunting_ && !is_hello(header)) {
      ++rx_begin_;
      continue;
    }
    if (rx_end_ - rx_begin_ < sizeof header + header.payload_bytes) return false;
    std::string_view payload(rx_ + rx_begin_ + sizeof header, header.payload_bytes);
    rx_begin_ += sizeof header + header.payload_bytes;
    hunting_ = !payload.empty() && payload.back() != wire::kWhole;
    if (hunting_) continue;  // its host died before it was all written
    if (!payload.empty()) payload.remove_suffix(1);
    frame = {header, payload};
    return true;
  }
  return false;
}

Channel::Received Channel::receive(Frame& frame) {
  while (!parse(frame)) {
    std::memmove(rx_, rx_ + rx_begin_, rx_end_ - rx_begin_);
    rx_end_ -= rx_begin_;
    rx_begin_ = 0;
    // Never full here: the buffer holds the largest frame, and parse() takes whole frames out.
    const ssize_t count = retry_eintr([&] { return read(kHostInFd, rx_ + rx_end_, sizeof rx_ - rx_end_); });
    if (count < 0) return Received::nothing;
    if (count == 0) {
      rx_end_ = 0;  // the rest of a cut-off frame will never come
      hunting_ = true;
      return Received::host_lost;
    }
    rx_end_ += static_cast<size_t>(count);
  }
  return Received::frame;
}

void Channel::make_room() {
  if (tx_begin_ == 0) return;
  std::memmove(tx_, tx_ + tx_begin_, tx_end_ - tx_begin_);
  tx_end_ -= tx_begin_;
  tx_begin_ = 0;
}

char* Channel::chunk_space() {
  if (mute_) return unsent_;
  make_room();
  return payload_space();
}

void Channel::send_filled(wire::Type type, uint32_t stream, size_t payload_bytes, uint8_t flags) {
  if (mute_) return;
  wire::Header header;
  header.payload_bytes = static_cast<uint32_t>(payload_bytes);
  header.stream = stream;
  header.epoch = epoch_;
  header.type = type;
  header.flags = flags;
  std::memcpy(tx_ + tx_end_, &header, sizeof header);
  tx_end_ += sizeof header + payload_bytes;
}

void Channel::send_failed(uint32_t stream, int error, std::string_view step) {
  constexpr size_t kLongestStep = 1024;
  send(wire::Type::failed, stream, wire::Failed{error, step.substr(0, kLongestStep)});
}

void Channel::flush() {
  while (tx_begin_ < tx_end_) {
    const ssize_t count =
        retry_eintr([&] { return write(kHostOutFd, tx_ + tx_begin_, tx_end_ - tx_begin_); });
    if (count < 0 && errno == EAGAIN) return;
    if (count < 0) break;  // no reader and no way to get one: the orphan timer decides
    tx_begin_ += static_cast<size_t>(count);
  }
  tx_begin_ = tx_end_ = 0;
}

}  // namespace hutch::agent
