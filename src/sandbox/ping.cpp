#include "sandbox/ping.h"

#include "sandbox/request.h"

namespace hutch::sandbox {

namespace {

class PingStream : public WaitedStream {
 public:
  bool wait(Clock::time_point deadline) {
    wait_until({}, deadline, [&] { return answered_ || closed(); });
    return answered_;
  }

 private:
  void handle(const wire::Header& header, std::string_view) override {
    answered_ = header.type == wire::Type::pong;
  }
  bool answered_ = false;
};

}  // namespace

bool ping(Channel& channel, Clock::time_point deadline) {
  try {
    Registered stream(channel, std::make_shared<PingStream>());
    channel.send_bytes(wire::Type::ping, stream.id());
    return stream->wait(deadline);
  } catch (const Error&) {
    return false;  // the channel is closed
  }
}

}  // namespace hutch::sandbox
