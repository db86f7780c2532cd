#include "sandbox/channel.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <asio/post.hpp>
#include <cstddef>
#include <cstring>
#include <thread>
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
  const size_t size = payload.empty() ? 0 : payload.size() + sizeof wire::kWhole;
  const wire::Header header{
      .payload_bytes = static_cast<uint32_t>(size), .stream = stream, .epoch = epoch, .type = type};
  std::string bytes;
  bytes.reserve(sizeof header + size);
  bytes.append(reinterpret_cast<const char*>(&header), sizeof header).append(payload);
  if (!payload.empty()) bytes += wire::kWhole;
  return bytes;
}

/// The kernel frees what a killed process held one after the other: its channel may be the last.
void lock(int fd, const std::string& path) {
  for (const auto end = Clock::now() + 500ms; ::flock(fd, LOCK_EX | LOCK_NB) != 0;) {
    if (errno != EWOULDBLOCK && errno != EINTR) throw sys_error(errno, "flock", path);
    if (Clock::now() > end)
      throw Error(Errc::conflict, "another server holds the channel of this sandbox's agent")
          .hint("use the sandbox through that server, or end it there with `sandbox_destroy`");
    std::this_thread::sleep_for(1ms);
  }
}

UniqueFd open_fifo(const std::string& path, int flags) {
  UniqueFd fd(
      sys::retry_eintr([&] { return ::open(path.c_str(), flags | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC); }));
  if (!fd && errno == ENXIO) throw Error(Errc::unavailable, "the sandbox's agent has ended");
  if (!fd) throw sys_error(errno, "open", path);
  // Its owner says nothing: runtimes give what the sandbox's first process has as 0 and 1 to its user. Nobody
  // but us can put anything into the folder.
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) throw sys_error(errno, "stat", path);
  if (!S_ISFIFO(info.st_mode)) throw Error(Errc::denied, path + " is not a FIFO");
  return fd;
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
  lock(to_agent.get(), to);
  return std::shared_ptr<Channel>(new Channel(io, std::move(to_agent), std::move(from_agent)));
}

std::shared_ptr<Channel> Channel::take_over(asio::io_context& io, const std::string& folder) {
  const std::string to = folder + "/" + std::string(runtime::kToAgent);
  UniqueFd to_agent = open_fifo(to, O_WRONLY);
  UniqueFd from_agent = open_fifo(folder + "/" + std::string(runtime::kFromAgent), O_RDONLY);
  lock(to_agent.get(), to);
  std::shared_ptr<Channel> channel(new Channel(io, std::move(to_agent), std::move(from_agent)));
  channel->queue(std::string(wire::kFillBytes, wire::kFill));
  return channel;
}

Channel::Channel(asio::io_context& io, UniqueFd to_agent, UniqueFd from_agent)
    : to_agent_(io, to_agent.release()),
      from_agent_(std::move(from_agent)),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!wake_) throw sys_error(errno, "eventfd");
  while (epoch_ == 0) epoch_ = static_cast<uint32_t>(std::stoul(sys::random_hex(4), nullptr, 16));
}

void Channel::connect(const wire::Hello& hello, Clock::time_point deadline, Claim claim) {
  send(wire::Type::hello, 0, hello);
  const auto closed = [&] {
    const std::lock_guard lock(mutex_);
    return closed_;
  };
  const auto all_told = [&] { return welcomed_ && announced_.size() >= left_; };
  const auto understood = [&] { return agent_version_ == wire::kVersion; };
  if (!begin_reading()) throw Error(Errc::internal, "a channel is connected before anybody else uses it");
  connecting_ = true;
  claim_ = std::move(claim);
  while (!all_told() && understood() && !closed() && Clock::now() < deadline) read_some(deadline);
  connecting_ = false;
  claim_ = nullptr;
  end_reading();
  if (closed()) throw Error(Errc::unavailable, "the sandbox's agent ended before it answered");
  if (all_told()) return;
  close();
  if (!understood())
    throw Error(Errc::unavailable,
                fmt::format("the sandbox's agent is of another version of hutch (it speaks version "
                            "{} of the channel, this server {})",
                            agent_version_, wire::kVersion));
  throw Error(Errc::timeout, "the sandbox's agent does not answer");
}

/// With mutex_ held.
uint32_t Channel::next_id() {
  if (closed_) throw Error(Errc::unavailable, "the sandbox has ended");
  for (;; ++next_stream_) {
    next_stream_ &= ~wire::kAgentsStream;
    if (next_stream_ != 0 && !streams_.contains(next_stream_) && !connections_.contains(next_stream_))
      return next_stream_++;
  }
}

uint32_t Channel::open_stream(std::shared_ptr<Stream> stream) {
  const std::lock_guard lock(mutex_);
  const uint32_t id = next_id();
  streams_[id] = std::move(stream);
  return id;
}

uint32_t Channel::open_connection(std::shared_ptr<Stream> stream) {
  const std::lock_guard lock(mutex_);
  const uint32_t id = next_id();
  connections_[id] = std::move(stream);
  read_in_background();
  return id;
}

void Channel::close_connection(uint32_t id) {
  const std::lock_guard lock(mutex_);
  connections_.erase(id);
}

uint32_t Channel::open_listener(std::shared_ptr<Stream> stream, Accepted accepted) {
  const uint32_t id = open_connection(std::move(stream));
  const std::lock_guard lock(mutex_);
  listeners_[id] = std::move(accepted);
  return id;
}

void Channel::close_listener(uint32_t id) {
  const std::lock_guard lock(mutex_);
  listeners_.erase(id);
  connections_.erase(id);
}

/// With mutex_ held. Once begun it goes on: whoever had one connection will have more.
void Channel::read_in_background() {
  if (idle_ || closed_) return;
  idle_.reset(::epoll_create1(EPOLL_CLOEXEC));
  epoll_event nothing{};
  if (!idle_ || ::epoll_ctl(idle_.get(), EPOLL_CTL_ADD, from_agent_.get(), &nothing) != 0)
    throw sys_error(errno, "epoll_ctl");
  idle_watch_.emplace(to_agent_.get_executor(), sys::duplicate(idle_.get()).release());
  watch_idle(!reading_);
  asio::post(to_agent_.get_executor(), [self = shared_from_this()] { self->wait_in_background(); });
}

/// With mutex_ held.
void Channel::watch_idle(bool on) {
  if (!idle_) return;
  epoll_event wanted{};
  if (on) wanted.events = EPOLLIN;
  (void)::epoll_ctl(idle_.get(), EPOLL_CTL_MOD, from_agent_.get(), &wanted);
}

/// On the I/O thread.
void Channel::wait_in_background() {
  idle_watch_->async_wait(asio::posix::stream_descriptor::wait_read,
                          [self = shared_from_this()](asio::error_code err) {
                            if (err) return;
                            if (self->begin_reading()) {
                              self->read_some(Clock::now());
                              self->end_reading();
                            }
                            self->wait_in_background();
                          });
}

void Channel::close_stream(uint32_t id) {
  const std::lock_guard lock(mutex_);
  streams_.erase(id);
}

void Channel::send_bytes(wire::Type type, uint32_t stream, std::string_view payload) {
  if (payload.size() + sizeof wire::kWhole > wire::kMaxPayload)
    throw Error(Errc::invalid_argument, "the request is larger than 256 KiB")
        .hint("write large data to a file first (sandbox_write_file)");
  queue(frame(type, stream, epoch_, payload));
}

void Channel::queue(std::string bytes) {
  const std::lock_guard lock(mutex_);
  if (closed_) return;
  out_bytes_ += bytes.size();
  out_.push_back(std::move(bytes));
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
  if (std::exchange(reading_, true)) return false;
  watch_idle(false);
  return true;
}

void Channel::end_reading() {
  {
    const std::lock_guard lock(mutex_);
    reading_ = false;
    watch_idle(!closed_);
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
  size_t at = hunting_ ? find_welcome() : 0;
  while (!hunting_ && in_used_ - at >= sizeof(wire::Header)) {
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

/// The number of bytes that are of no use: those in front of it, or those that cannot be the first part of
/// it.
size_t Channel::find_welcome() {
  const wire::Header wanted{
      .payload_bytes = sizeof(wire::Welcome::commands), .epoch = epoch_, .type = wire::Type::welcome};
  const std::string_view any_version(reinterpret_cast<const char*>(&wanted), offsetof(wire::Header, version));
  const size_t at = std::string_view(in_.get(), in_used_).find(any_version);
  if (at == std::string_view::npos) return in_used_ - std::min(in_used_, sizeof wanted - 1);
  if (in_used_ - at < sizeof wanted) return at;
  wire::Header found;
  std::memcpy(&found, in_.get() + at, sizeof found);
  agent_version_ = found.version;
  hunting_ = found.version != wire::kVersion;
  return at;
}

void Channel::on_welcome(std::string_view payload) {
  wire::Welcome welcome;
  if (welcomed_ || !wire::decode(payload, welcome)) return;
  welcomed_ = true;
  left_ = std::min(welcome.commands, wire::kMaxCommands);
}

void Channel::dispatch(const wire::Header& header, std::string_view payload) {
  if (header.epoch != epoch_) return;
  if (header.type == wire::Type::welcome) return on_welcome(payload);
  if (const auto stream = find_stream(header, payload)) stream->on_frame(header, payload);
}

/// Also of a command that an earlier host left, and that is heard of for the first time.
std::shared_ptr<Stream> Channel::find_stream(const wire::Header& header, std::string_view payload) {
  const uint32_t id = header.stream;
  {
    const std::lock_guard lock(mutex_);
    if (closed_) return nullptr;
    if (const auto it = streams_.find(id); it != streams_.end()) return it->second;
    if (const auto it = connections_.find(id); it != connections_.end()) return it->second;
  }
  if (header.type == wire::Type::accepted) return find_accepted(header, payload);
  wire::Started started;
  const bool exists = header.type == wire::Type::started && wire::decode(payload, started);
  if (!connecting_ || announced_.size() >= left_ || (!exists && header.type != wire::Type::failed))
    return nullptr;
  const bool known = !announced_.insert(id).second;
  auto stream = known || !exists || !claim_ ? nullptr : claim_(id, started);
  const std::lock_guard lock(mutex_);
  next_stream_ = std::max(next_stream_, id + 1);
  if (stream && !closed_) streams_[id] = stream;
  return stream;
}

/// Of a connection that the agent has just accepted. One that nobody wants any more is given back.
std::shared_ptr<Stream> Channel::find_accepted(const wire::Header& header, std::string_view payload) {
  wire::Accepted message;
  if ((header.stream & wire::kAgentsStream) == 0 || !wire::decode(payload, message)) return nullptr;
  Accepted accepted;
  {
    const std::lock_guard lock(mutex_);
    if (const auto it = listeners_.find(message.listener);
        it != listeners_.end() && connections_.size() < 2 * wire::kMaxConnections)
      accepted = it->second;
  }
  if (!accepted) {
    send_bytes(wire::Type::cancel, header.stream);
    return nullptr;
  }
  auto stream = accepted(header.stream);
  {
    const std::lock_guard lock(mutex_);
    if (!closed_) {
      connections_[header.stream] = stream;
      return stream;
    }
  }
  stream->on_closed();
  return nullptr;
}

void Channel::close() {
  std::map<uint32_t, std::shared_ptr<Stream>> streams, connections;
  {
    const std::lock_guard lock(mutex_);
    if (closed_) return;
    closed_ = true;
    streams.swap(streams_);
    connections.swap(connections_);
    listeners_.clear();
    watch_idle(false);
    out_.clear();
    out_bytes_ = 0;
    changed_.notify_all();
  }
  for (const auto& [_, stream] : streams) stream->on_closed();
  for (const auto& [_, stream] : connections) stream->on_closed();
  wake();
  asio::post(to_agent_.get_executor(), [self = shared_from_this()] {
    asio::error_code ignored;
    self->to_agent_.close(ignored);
    if (self->idle_watch_) self->idle_watch_->close(ignored);
  });
}

}  // namespace hutch::sandbox
