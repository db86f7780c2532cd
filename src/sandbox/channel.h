#pragma once

#include <asio/posix/stream_descriptor.hpp>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "base/process.h"
#include "wire/messages.h"

namespace hutch::sandbox {

/// One request to the agent and what comes back for it. Called on the thread of whoever reads the channel:
/// implementations note what came and wake whoever waits, nothing more.
class Stream {
 public:
  virtual ~Stream() = default;
  virtual void on_frame(const wire::Header& header, std::string_view payload) = 0;
  /// Nothing will come any more: the sandbox ended.
  virtual void on_closed() = 0;
  /// Nobody reads the channel any more. True when somebody who waits on this stream will now do it.
  virtual bool offer_reading() = 0;
};

/// The host's end of a sandbox's agent channel: two FIFOs in the sandbox's folder, frames of src/wire
/// multiplexed on them. What comes in is untrusted: a malformed frame closes the channel. One host at a time:
/// it holds a lock on the FIFO that it writes to, which ends with it.
///
/// Whoever waits for an answer reads the channel itself, for all who wait on it, one at a time: an answer
/// that went through a thread of its own would wake two threads instead of one. When nobody waits, the I/O
/// thread reads as long as there are connections or listeners, which nobody waits for; without them nobody
/// does: then the agent keeps what it has, and the end of the sandbox is seen by its pidfd.
class Channel : public std::enable_shared_from_this<Channel> {
 public:
  /// Makes the FIFOs (mode 0600) in `folder` and opens the host's ends.
  static std::shared_ptr<Channel> create(asio::io_context& io, const std::string& folder);
  /// Opens the FIFOs of an agent whose host has died. Throws conflict while that one lives, and unavailable
  /// when the agent is gone. SIGPIPE must be ignored by the process.
  static std::shared_ptr<Channel> take_over(asio::io_context& io, const std::string& folder);

  /// What an earlier host left is given to connect(), once for every command that the agent still holds: the
  /// stream on which it is heard of from now on, `started` first, or nothing.
  using Claim = std::function<std::shared_ptr<Stream>(uint32_t id, const wire::Started& started)>;
  /// Starts a new epoch and waits for the agent's answer. Throws timeout, or unavailable when the channel
  /// closed or the agent speaks another version.
  void connect(const wire::Hello& hello, Clock::time_point deadline, Claim claim = {});

  /// Gives the stream a number under which its frames arrive until close_stream().
  uint32_t open_stream(std::shared_ptr<Stream> stream);
  void close_stream(uint32_t id);

  /// The same for a connection: what comes for it is read also when nobody waits.
  uint32_t open_connection(std::shared_ptr<Stream> stream);
  void close_connection(uint32_t id);
  /// On whoever reads: the stream of a connection that the agent accepted.
  using Accepted = std::function<std::shared_ptr<Stream>(uint32_t id)>;
  uint32_t open_listener(std::shared_ptr<Stream> stream, Accepted accepted);
  void close_listener(uint32_t id);

  template <class Message>
  void send(wire::Type type, uint32_t stream, const Message& message) {
    send_bytes(type, stream, wire::encode(message));
  }
  /// Queues without waiting. Sending on a closed channel does nothing: on_closed() has told everybody.
  void send_bytes(wire::Type type, uint32_t stream, std::string_view payload = {});
  /// The same for bulk data: waits while much is queued, so that an agent that does not read costs no memory.
  void send_bulk(wire::Type type, uint32_t stream, std::string_view payload, Clock::time_point deadline);

  /// Makes the caller the one who reads; false when somebody is. Given back by end_reading(), which offers it
  /// to the streams that are still waited for.
  bool begin_reading();
  void end_reading();
  /// For who was offered the reading and does not want it any more.
  void offer_reading();
  /// For the one who reads: hands what came to its streams, after waiting for it until `deadline` or wake().
  void read_some(Clock::time_point deadline);
  /// Hands what has come already to its streams, unless somebody reads.
  void drain();
  /// Ends a read_some() that waits.
  void wake() noexcept;

  /// Ends the channel; every stream hears on_closed(). Safe from any thread, and twice.
  void close();

 private:
  Channel(asio::io_context& io, UniqueFd to_agent, UniqueFd from_agent);
  void consume(size_t bytes);
  size_t find_welcome();
  void on_welcome(std::string_view payload);
  void dispatch(const wire::Header& header, std::string_view payload);
  std::shared_ptr<Stream> find_stream(const wire::Header& header, std::string_view payload);
  std::shared_ptr<Stream> find_accepted(const wire::Header& header, std::string_view payload);
  uint32_t next_id();
  void queue(std::string bytes);
  void write_more();
  void read_in_background();
  void wait_in_background();
  void watch_idle(bool on);

  asio::posix::stream_descriptor to_agent_;
  const UniqueFd from_agent_, wake_;
  // Of whoever reads. Not initialised: only what is used becomes resident.
  std::unique_ptr<char[]> in_;
  size_t in_used_ = 0;
  bool hunting_ = true;  // for our welcome: an earlier host may have read half of a frame
  bool connecting_ = false;
  Claim claim_;  // during that
  std::set<uint32_t> announced_;
  uint32_t left_ = 0;  // commands of earlier hosts
  uint8_t agent_version_ = wire::kVersion;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<uint32_t, std::shared_ptr<Stream>> streams_, connections_;
  std::map<uint32_t, Accepted> listeners_;
  std::deque<std::string> out_;  // complete frames; the first one may be partly written
  size_t out_written_ = 0, out_bytes_ = 0;
  uint32_t next_stream_ = 1, epoch_ = 0;
  bool welcomed_ = false, closed_ = false, writing_ = false, reading_ = false;
  // Tells the I/O thread of what came, but only while nobody else reads: an epoll instance of its own, since
  // one that is asleep in the loop's would be woken by every answer that somebody else waits for.
  UniqueFd idle_;
  std::optional<asio::posix::stream_descriptor> idle_watch_;
};

}  // namespace hutch::sandbox
