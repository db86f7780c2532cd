#include "sandbox/connection.h"

#include <fmt/format.h>

#include <asio/cancellation_state.hpp>
#include <asio/post.hpp>
#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/system_error.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>
#include <cstring>
#include <deque>
#include <utility>

#include "base/log.h"

namespace hutch::sandbox {

namespace {

/// What came of a connection, noted by whoever reads the channel, for a coroutine on the I/O thread.
class ConnectionStream final : public Stream, public std::enable_shared_from_this<ConnectionStream> {
 public:
  explicit ConnectionStream(asio::any_io_executor executor)
      : executor_(std::move(executor)), came_(executor_) {}

  void on_frame(const wire::Header& header, std::string_view payload) override;
  void on_closed() override {
    const std::lock_guard lock(mutex_);
    fail(ECONNRESET);
  }
  bool offer_reading() override { return false; }

  /// Returns when `ready`, which runs with the lock held, is true; throws when the connection is broken, with
  /// `data_first` only after all that came before that.
  template <class Ready>
  asio::awaitable<void> until(Ready ready, bool data_first = false);

  void close() {
    const std::lock_guard lock(mutex_);
    data_.clear();
    fail(ECONNABORTED);
  }

  asio::any_io_executor executor() const { return executor_; }

  std::mutex mutex_;
  // All with the lock held.
  bool ready_ = false, ended_ = false;
  std::deque<std::string> data_;
  size_t data_bytes_ = 0;
  uint32_t credit_ = wire::kConnectionWindow;

 private:
  void fail(int error) {
    if (error_ == 0) error_ = error;
    wake();
  }
  void wake();

  const asio::any_io_executor executor_;
  asio::steady_timer came_;  // cancelled when something did; on the I/O thread alone
  bool woken_ = false;
  int error_ = 0;
};

void ConnectionStream::on_frame(const wire::Header& header, std::string_view payload) {
  wire::Credit credit;
  wire::Failed failed;
  const std::lock_guard lock(mutex_);
  switch (header.type) {
    case wire::Type::ready:
      ready_ = true;
      break;
    case wire::Type::data:
      data_bytes_ += payload.size();
      if (data_bytes_ > wire::kConnectionWindow) return fail(EPROTO);  // more than it had credit for
      if (!data_.empty() && data_.back().size() + payload.size() <= wire::kDataChunk)
        data_.back() += payload;
      else if (!payload.empty())
        data_.emplace_back(payload);
      break;
    case wire::Type::done:
      ended_ = true;
      break;
    case wire::Type::credit:
      if (wire::decode(payload, credit)) credit_ = std::min(credit_ + credit.bytes, wire::kConnectionWindow);
      break;
    case wire::Type::failed:
      return fail(wire::decode(payload, failed) && failed.error > 0 ? failed.error : EIO);
    default:
      return;
  }
  wake();
}

/// With the lock held.
void ConnectionStream::wake() {
  if (std::exchange(woken_, true)) return;
  asio::post(executor_, [self = shared_from_this()] {
    {
      const std::lock_guard lock(self->mutex_);
      self->woken_ = false;
    }
    self->came_.cancel();
  });
}

template <class Ready>
asio::awaitable<void> ConnectionStream::until(Ready ready, bool data_first) {
  for (;;) {
    {
      const std::lock_guard lock(mutex_);
      if (data_first && ready()) co_return;
      if (error_ != 0) throw asio::system_error(asio::error_code(error_, asio::system_category()));
      if (ready()) co_return;
    }
    // Nothing can come in between: what wakes us runs on this thread.
    if (came_.expiry() != asio::steady_timer::time_point::max())
      came_.expires_at(asio::steady_timer::time_point::max());
    asio::error_code cancelled;
    co_await came_.async_wait(asio::redirect_error(asio::use_awaitable, cancelled));
    // Who is called off takes nothing: what has come is for the next one who reads.
    const asio::cancellation_state state = co_await asio::this_coro::cancellation_state;
    if (state.cancelled() != asio::cancellation_type::none)
      throw asio::system_error(asio::error::operation_aborted);
  }
}

class AgentConnection final : public net::Duplex {
 public:
  AgentConnection(std::shared_ptr<Channel> channel, std::shared_ptr<ConnectionStream> stream, uint32_t id)
      : channel_(std::move(channel)), stream_(std::move(stream)), id_(id) {}
  ~AgentConnection() override { close(); }

  asio::awaitable<void> connect(uint16_t port) {
    channel_->send(wire::Type::connect, id_, wire::Connect{port});
    co_await stream_->until([this] { return stream_->ready_; });
  }

  asio::awaitable<std::string_view> read() override {
    give_credit();
    co_await stream_->until(
        [this] {
          if (stream_->data_.empty()) return stream_->ended_;
          current_ = std::move(stream_->data_.front());
          stream_->data_.pop_front();
          stream_->data_bytes_ -= current_.size();
          return true;
        },
        true);
    if (current_.empty()) told_end_ = true;
    co_return current_;
  }

  asio::awaitable<void> write(std::string_view bytes) override {
    while (!bytes.empty()) {
      size_t piece = 0;
      co_await stream_->until([&] {
        piece = std::min<size_t>({bytes.size(), stream_->credit_, wire::kDataChunk});
        stream_->credit_ -= static_cast<uint32_t>(piece);
        return piece > 0;
      });
      channel_->send_bytes(wire::Type::input, id_, bytes.substr(0, piece));
      bytes.remove_prefix(piece);
    }
  }

  asio::awaitable<void> end() override {
    if (!std::exchange(ended_, true)) channel_->send_bytes(wire::Type::input_end, id_);
    co_return;
  }

  void close() noexcept override {
    if (std::exchange(closed_, true)) return;
    channel_->close_connection(id_);
    stream_->close();
    if (!ended_ || !told_end_) channel_->send_bytes(wire::Type::cancel, id_);
  }

  asio::any_io_executor executor() override { return stream_->executor(); }

 private:
  /// What read() returned before has gone on by now.
  void give_credit() {
    consumed_ += static_cast<uint32_t>(current_.size());
    current_.clear();
    if (consumed_ < wire::kConnectionWindow / 4) return;
    channel_->send(wire::Type::credit, id_, wire::Credit{std::exchange(consumed_, 0)});
  }

  const std::shared_ptr<Channel> channel_;
  const std::shared_ptr<ConnectionStream> stream_;
  const uint32_t id_;
  std::string current_;
  uint32_t consumed_ = 0;
  bool ended_ = false, told_end_ = false, closed_ = false;
};

/// Hears whether the agent listens.
class ListenerStream final : public Stream {
 public:
  explicit ListenerStream(uint16_t port) : port_(port) {}
  void on_frame(const wire::Header& header, std::string_view payload) override {
    wire::Failed failed;
    if (header.type != wire::Type::failed || !wire::decode(payload, failed)) return;
    log::warning("nothing can be reached through port {} of a sandbox's loopback: {}: {}", port_, failed.step,
                 ::strerror(failed.error));
  }
  void on_closed() override {}
  bool offer_reading() override { return false; }

 private:
  const uint16_t port_;
};

asio::awaitable<std::unique_ptr<net::Duplex>> open_connection(asio::any_io_executor executor,
                                                              std::shared_ptr<Channel> channel,
                                                              uint16_t port) {
  auto stream = std::make_shared<ConnectionStream>(executor);
  const uint32_t id = channel->open_connection(stream);
  auto connection = std::make_unique<AgentConnection>(channel, stream, id);
  co_await connection->connect(port);
  co_return connection;
}

}  // namespace

asio::awaitable<std::unique_ptr<net::Duplex>> connect(asio::any_io_executor executor,
                                                      std::shared_ptr<Channel> channel, uint16_t port) {
  return open_connection(std::move(executor), std::move(channel), port);
}

Listener::Listener(const asio::any_io_executor& executor, std::shared_ptr<Channel> channel, uint16_t port,
                   Accept accept)
    : channel_(std::move(channel)) {
  const auto on_accepted = [executor, serve = std::move(accept),
                            weak = std::weak_ptr(channel_)](uint32_t id) -> std::shared_ptr<Stream> {
    auto stream = std::make_shared<ConnectionStream>(executor);
    asio::post(executor, [serve, weak, stream, id] {
      if (const auto alive = weak.lock()) serve(std::make_unique<AgentConnection>(alive, stream, id));
    });
    return stream;
  };
  id_ = channel_->open_listener(std::make_shared<ListenerStream>(port), on_accepted);
  channel_->send(wire::Type::listen, id_, wire::Listen{port});
}

Listener::~Listener() {
  channel_->close_listener(id_);
  channel_->send_bytes(wire::Type::cancel, id_);
}

}  // namespace hutch::sandbox
