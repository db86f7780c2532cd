#include "sandbox/channel.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <asio/post.hpp>
#include <cstring>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/sys.h"
#include "runtime/runtime.h"

namespace hutch::sandbox {

using namespace std::chrono_literals;

namespace {

constexpr size_t kReadBuffer = 2 * (sizeof(wire::Header) + wire::kMaxPayload);
constexpr size_t kBulkBytes = 1 << 20;

std::string frame(wire::Type type, uint32_t stream, uint32_t epoch, std::string_view payload) {
  const wire::Header header{
      .payload_bytes = static_cast<uint32_t>(payload.size()), .stream = stream, .epoch = epoch, .type = type};
  std::string bytes(reinterpret_cast<const char*>(&header), sizeof header);
  bytes.append(payload);
  return bytes;
}

}  // namespace

std::shared_ptr<Channel> Channel::create(asio::io_context& io, const std::string& folder) {
  const std::string to = folder + "/" + std::string(runtime::kToAgent);
  const std::string from = folder + "/" + std::string(runtime::kFromAgent);
  for (const auto& path : {to, from})
    if (::mkfifo(path.c_str(), 0600) != 0 && errno != EEXIST) throw sys_error(errno, "mkfifo", path);
  // O_RDWR on the way in: the agent is not there yet, and opening a FIFO for writing alone would wait for it.
  UniqueFd to_agent = sys::open(to, O_RDWR | O_NONBLOCK), from_agent = sys::open(from, O_RDONLY | O_NONBLOCK);
  ::fcntl(to_agent.get(), F_SETPIPE_SZ,
          1 << 20);  // may be refused by pipe-user-pages-soft: slower, not wrong
  return std::shared_ptr<Channel>(new Channel(io, std::move(to_agent), std::move(from_agent)));
}

Channel::Channel(asio::io_context& io, UniqueFd to_agent, UniqueFd from_agent)
    : to_agent_(io, to_agent.release()),
      from_agent_(std::move(from_agent)),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!wake_) throw sys_error(errno, "eventfd");
  while (epoch_ == 0) epoch_ = static_cast<uint32_t>(std::stoul(sys::random_hex(4), nullptr, 16));
}

void Channel::connect(const wire::Hello& hello, Clock::time_point deadline) {
  send(wire::Type::hello, 0, hello);
  const auto done = [&] {
    const std::lock_guard lock(mutex_);
    return welcomed_ || closed_;
  };
  if (!begin_reading()) throw Error(Errc::internal, "a channel is connected before anybody else uses it");
  while (!done() && Clock::now() < deadline) read_some(deadline);
  end_reading();
  const std::lock_guard lock(mutex_);
  if (closed_) throw Error(Errc::unavailable, "the sandbox ended while it was being started");
  if (!welcomed_) throw Error(Errc::timeout, "the sandbox's agent does not answer");
}

uint32_t Channel::open_stream(std::shared_ptr<Stream> stream) {
  const std::lock_guard lock(mutex_);
  if (closed_) throw Error(Errc::unavailable, "the sandbox has ended");
  streams_[next_stream_] = std::move(stream);
  return next_stream_++;
}

void Channel::close_stream(uint32_t id) {
  const std::lock_guard lock(mutex_);
  streams_.erase(id);
}

void Channel::send_bytes(wire::Type type, uint32_t stream, std::string_view payload) {
  if (payload.size() > wire::kMaxPayload)
    throw Error(Errc::invalid_argument, "the request is larger than 256 KiB")
        .hint("write large data to a file first (sandbox_write_file)");
  const std::lock_guard lock(mutex_);
  if (closed_) return;
  out_.push_back(frame(type, stream, epoch_, payload));
  out_bytes_ += out_.back().size();
  if (!writing_) write_more();
}

void Channel::send_bulk(wire::Type type, uint32_t stream, std::string_view payload,
                        Clock::time_point deadline) {
  {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_until(lock, deadline, [&] { return closed_ || out_bytes_ < kBulkBytes; }))
      throw Error(Errc::timeout, "the sandbox's agent does not take data");
  }
  send_bytes(type, stream, payload);
}

/// With mutex_ held. Writes what the FIFO takes now and has itself called again when it takes more.
void Channel::write_more() {
  writing_ = false;
  while (!out_.empty()) {
    const std::string& first = out_.front();
    const ssize_t n = sys::retry_eintr([&] {
      return ::write(to_agent_.native_handle(), first.data() + out_written_, first.size() - out_written_);
    });
    if (n < 0) {
      if (errno != EAGAIN) return;  // the watch on the process tells everybody that the sandbox is gone
      writing_ = true;
      to_agent_.async_wait(asio::posix::stream_descriptor::wait_write,
                           [self = shared_from_this()](asio::error_code err) {
                             const std::lock_guard lock(self->mutex_);
                             if (!err && !self->closed_) self->write_more();
                           });
      return;
    }
    out_written_ += static_cast<size_t>(n);
    out_bytes_ -= static_cast<size_t>(n);
    if (out_written_ == first.size()) {
      out_.pop_front();
      out_written_ = 0;
    }
  }
  changed_.notify_all();
}

bool Channel::begin_reading() {
  const std::lock_guard lock(mutex_);
  return !std::exchange(reading_, true);
}

void Channel::end_reading() {
  {
    const std::lock_guard lock(mutex_);
    reading_ = false;
  }
  offer_reading();
}

void Channel::offer_reading() {
  std::vector<std::shared_ptr<Stream>> streams;
  {
    const std::lock_guard lock(mutex_);
    if (reading_) return;
    for (const auto& [_, stream] : streams_) streams.push_back(stream);
  }
  // Without the lock: streams send while they hold theirs.
  for (const auto& stream : streams)
    if (stream->offer_reading()) return;
}

void Channel::read_some(Clock::time_point deadline) {
  pollfd sources[2] = {{.fd = from_agent_.get(), .events = POLLIN, .revents = 0},
                       {.fd = wake_.get(), .events = POLLIN, .revents = 0}};
  const auto left = std::clamp<Clock::duration>(deadline - Clock::now(), 0s, 1h);
  const auto seconds = std::chrono::floor<std::chrono::seconds>(left);
  const timespec timeout{.tv_sec = seconds.count(),
                         .tv_nsec = std::chrono::nanoseconds(left - seconds).count()};
  if (::ppoll(sources, 2, &timeout, nullptr) <= 0) return;
  if (sources[1].revents != 0) {
    uint64_t ignored = 0;
    (void)!::read(wake_.get(), &ignored, sizeof ignored);
  }
  if (sources[0].revents == 0) return;
  if (!in_) in_ = std::make_unique_for_overwrite<char[]>(kReadBuffer);
  const ssize_t n = sys::retry_eintr(
      [&] { return ::read(from_agent_.get(), in_.get() + in_used_, kReadBuffer - in_used_); });
  if (n > 0)
    consume(static_cast<size_t>(n));
  else if (n == 0 || errno != EAGAIN)
    close();
}

void Channel::drain() {
  if (!begin_reading()) return;
  pollfd source{.fd = from_agent_.get(), .events = POLLIN, .revents = 0};
  // Bounded: an agent that never stops talking is not waited for.
  for (int i = 0; i < 16 && ::poll(&source, 1, 0) > 0 && (source.revents & POLLIN) != 0; ++i)
    read_some(Clock::now());
  end_reading();
}

void Channel::wake() noexcept {
  const uint64_t one = 1;
  (void)!::write(wake_.get(), &one, sizeof one);
}

void Channel::consume(size_t bytes) {
  in_used_ += bytes;
  size_t at = 0;
  while (in_used_ - at >= sizeof(wire::Header)) {
    wire::Header header;
    std::memcpy(&header, in_.get() + at, sizeof header);
    if (!wire::valid(header)) {
      log::error("a sandbox's agent sent a malformed frame: the channel is closed");
      return close();
    }
    if (in_used_ - at < sizeof header + header.payload_bytes) break;
    dispatch(header, {in_.get() + at + sizeof header, header.payload_bytes});
    at += sizeof header + header.payload_bytes;
  }
  std::memmove(in_.get(), in_.get() + at, in_used_ - at);
  in_used_ -= at;
}

void Channel::dispatch(const wire::Header& header, std::string_view payload) {
  std::shared_ptr<Stream> stream;
  {
    const std::lock_guard lock(mutex_);
    if (header.epoch != epoch_ || closed_) return;
    if (header.type == wire::Type::welcome) {
      welcomed_ = true;
      return;
    }
    if (const auto it = streams_.find(header.stream); it != streams_.end()) stream = it->second;
  }
  if (stream) stream->on_frame(header, payload);
}

void Channel::close() {
  std::map<uint32_t, std::shared_ptr<Stream>> streams;
  {
    const std::lock_guard lock(mutex_);
    if (closed_) return;
    closed_ = true;
    streams.swap(streams_);
    out_.clear();
    out_bytes_ = 0;
    changed_.notify_all();
  }
  for (const auto& [_, stream] : streams) stream->on_closed();
  wake();
  asio::post(to_agent_.get_executor(), [self = shared_from_this()] {
    asio::error_code ignored;
    self->to_agent_.close(ignored);
  });
}

}  // namespace hutch::sandbox
