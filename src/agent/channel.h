#pragma once

#include <cstddef>
#include <string_view>

#include "wire/messages.h"

/// Frames from and to the host, over the descriptors 0 and 1.
///
/// Resynchronising. A host can die in the middle of a frame, and the next one may open the FIFO before the
/// agent has seen that there was no writer. So a host that takes over first writes wire::kFillBytes of
/// wire::kFill: they complete whatever was cut off, which is dropped for its last byte, the rest is skipped
/// as invalid headers, and from then on only `hello` is listened to. The other way, a frame that was half
/// written when the host died is finished before any other. But the dead host may have read half of one, so
/// the next reads on from the middle of a frame: it must skip bytes until the exact 16-byte header of a
/// `welcome` of its own, random epoch, and read frames only from there on.
namespace hutch::agent {

struct Frame {
  wire::Header header;
  std::string_view payload;  // valid until the next receive()
};

class Channel {
 public:
  enum class Received { frame, nothing, host_lost };

  /// One whole frame, or `nothing` when the host has sent no more. After `host_lost`, and after a broken
  /// header, only a `hello` comes out, which may be of another version.
  Received receive(Frame& frame);

  /// Room for any answer that one request or one turn can cause. Nothing is asked of the agent without it.
  bool has_room() const { return sizeof tx_ - (tx_end_ - tx_begin_) >= kReserve; }
  /// Everything is written: a stream may have a turn.
  bool idle() const { return tx_begin_ == tx_end_; }

  template <class Message>
  void send(wire::Type type, uint32_t stream, const Message& message) {
    if (mute_) return;
    make_room();
    wire::FixedEncoder encoder(payload_space(), sizeof tx_ - tx_end_ - sizeof(wire::Header));
    const_cast<Message&>(message).fields(encoder);
    if (encoder.ok()) send_filled(type, stream, encoder.size());
  }
  void send(wire::Type type, uint32_t stream) {
    if (mute_) return;
    make_room();
    send_filled(type, stream, 0);
  }
  /// `step` is cut to what has_room() promises.
  void send_failed(uint32_t stream, int error, std::string_view step);

  /// Where kDataChunk bytes can be read to before send_filled(); only in a turn (idle() at its start, or
  /// mute).
  char* chunk_space();
  void send_filled(wire::Type type, uint32_t stream, size_t payload_bytes, uint8_t flags = 0);

  /// Writes what the FIFO takes.
  void flush();

  /// Without a host: what is sent is dropped, and a frame that was begun is finished when there is one again.
  void mute(bool on) { mute_ = on; }

  void set_epoch(uint32_t epoch) { epoch_ = epoch; }
  uint32_t epoch() const { return epoch_; }

 private:
  static constexpr size_t kReserve = 4096;
  static constexpr size_t kRxBytes = sizeof(wire::Header) + wire::kMaxPayload;
  static constexpr size_t kTxBytes = 2 * wire::kDataChunk;

  bool parse(Frame& frame);
  void make_room();
  char* payload_space() { return tx_ + tx_end_ + sizeof(wire::Header); }

  uint32_t epoch_ = 0;
  bool hunting_ = true;  // for a hello
  bool mute_ = true;
  size_t rx_begin_ = 0, rx_end_ = 0;
  size_t tx_begin_ = 0, tx_end_ = 0;
  char rx_[kRxBytes];
  char tx_[kTxBytes];
  char unsent_[wire::kDataChunk];  // chunk_space() while mute
};

}  // namespace hutch::agent
