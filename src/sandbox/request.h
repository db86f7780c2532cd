#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <utility>

#include "base/error.h"
#include "sandbox/channel.h"

namespace hutch::sandbox {

/// A stream on which somebody waits: who reads the channel notes what came, under the lock, and wakes the
/// waiter. After detach() nothing is noted any more, so that handle() may refer to what lives on the waiter's
/// stack.
class WaitedStream : public Stream {
 public:
  void on_frame(const wire::Header& header, std::string_view payload) final {
    const std::lock_guard lock(mutex_);
    if (detached_) return;
    if (header.type == wire::Type::failed)
      on_failed(payload);
    else
      handle(header, payload);
    changed_.notify_all();
  }
  void on_closed() final {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    changed_.notify_all();
  }
  void detach() {
    const std::lock_guard lock(mutex_);
    detached_ = true;
  }
  bool offer_reading() final {
    const std::lock_guard lock(mutex_);
    if (waiting_ == 0) return false;
    offered_ = true;
    changed_.notify_all();
    return true;
  }
  /// Has whoever waits look again at what it waits for, when that depends on more than what came.
  void look_again() {
    {
      const std::lock_guard lock(mutex_);
      changed_.notify_all();
    }
    channel_->wake();  // it may be the one who reads
  }
  void attach(Channel& channel, uint32_t id) {
    channel_ = &channel;
    id_ = id;
  }

 protected:
  /// With the lock held.
  virtual void handle(const wire::Header& header, std::string_view payload) = 0;

  /// True when `ready` held before the deadline and before a stop was requested. `ready` runs with the lock
  /// held, and not again once it was true: it may take what it waited for.
  template <class Ready>
  bool wait_until(std::stop_token stop, Clock::time_point deadline, Ready ready) {
    const std::stop_callback on_stop(stop, [this] { channel_->wake(); });
    std::unique_lock lock(mutex_);
    bool done = ready(), reading = false, offered = false;
    ++waiting_;
    while (!done && !stop.stop_requested() && Clock::now() < deadline) {
      if (reading || (reading = channel_->begin_reading())) {
        lock.unlock();
        channel_->read_some(deadline);
        lock.lock();
        done = ready();
      } else {
        changed_.wait_until(lock, stop, deadline, [&] { return (done = ready()) || offered_; });
        offered = std::exchange(offered_, false) || offered;
      }
    }
    --waiting_;
    offered = std::exchange(offered_, false) || offered;
    lock.unlock();
    // Somebody else may be waiting for what only a reader would bring.
    if (reading)
      channel_->end_reading();
    else if (offered)
      channel_->offer_reading();
    return done;
  }
  bool failed() const { return error_ != 0; }
  bool closed() const { return closed_; }
  Error failure() const { return sys_error(error_, error_step_); }
  uint32_t id() const { return id_; }

  mutable std::mutex mutex_;

 private:
  void on_failed(std::string_view payload) {
    wire::Failed failed;
    if (!wire::decode(payload, failed)) return;
    error_ = failed.error != 0 ? failed.error : EIO;
    error_step_ = failed.step;
  }

  std::condition_variable_any changed_;
  Channel* channel_ = nullptr;
  uint32_t id_ = 0;
  int waiting_ = 0;       // callers in wait_until()
  bool offered_ = false;  // one of them is to read the channel
  int error_ = 0;
  std::string error_step_;
  bool closed_ = false, detached_ = false;
};

/// Keeps a stream registered with its channel for as long as this lives.
template <class StreamType>
class Registered {
 public:
  Registered(Channel& channel, std::shared_ptr<StreamType> stream)
      : channel_(channel), stream_(std::move(stream)), id_(channel.open_stream(stream_)) {
    stream_->attach(channel_, id_);
  }
  ~Registered() {
    channel_.close_stream(id_);
    stream_->detach();
  }
  Registered(const Registered&) = delete;
  Registered& operator=(const Registered&) = delete;

  uint32_t id() const { return id_; }
  StreamType& operator*() { return *stream_; }
  StreamType* operator->() { return stream_.get(); }

 private:
  Channel& channel_;
  std::shared_ptr<StreamType> stream_;
  uint32_t id_;
};

}  // namespace hutch::sandbox
