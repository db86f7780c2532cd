#include <sys/socket.h>

#include <cstring>

#include "agent/command.h"
#include "agent/sys.h"

namespace hutch::agent {

void Command::start(const wire::Exec& request, uint32_t stream, Spare& spare, Services& services) {
  index_ = spare.index;
  stream_ = stream;
  options_ = request.options;
  credit_ = wire::kWindow;
  if (!accepts(request, services)) return release();
  Handover& handover = *spare.handover.get();
  wire::FixedEncoder encoder(handover.request, sizeof handover.request);
  const_cast<wire::Exec&>(request).fields(encoder);
  handover.request_bytes = static_cast<uint32_t>(encoder.size());
  if ((options_ & wire::Exec::kInput) != 0) input_.open(index_);
  take(std::exchange(spare, Spare()));
}

bool Command::accepts(const wire::Exec& request, Services& services) {
  if (!log_.set(request.log_path, request.log_max_bytes)) {
    services.channel.send_failed(stream_, ENAMETOOLONG, "exec: the path of the log");
    return false;
  }
  if (!request.argv.packed.empty()) return true;
  services.channel.send_failed(stream_, EINVAL, "exec: no command");
  return false;
}

void Command::take(Spare spare) {
  const Order start{Order::Kind::start};
  // It may be dead already. That is noticed when it is reaped.
  (void)retry_eintr(
      [&] { return send(spare.control.get(), &start, sizeof start, MSG_DONTWAIT | MSG_NOSIGNAL); });
  phase_ = Phase::starting;
  supervisor_ = spare.pid;
  control_ = std::move(spare.control);
  handover_ = std::move(spare.handover);
  outputs_[0] = {std::move(spare.out)};
  if ((options_ & wire::Exec::kMergeOutput) == 0) outputs_[1] = {std::move(spare.err)};
  if ((options_ & wire::Exec::kInput) != 0) input_pipe_ = std::move(spare.in);
}

/// The supervisor was killed before it began, so nothing of the command has happened yet.
bool Command::can_start_again() const {
  return phase_ == Phase::starting && lost_ && !ordered_ && !handover_->taken;
}

void Command::start_again(Services& services) {
  Spare spare;
  if (const char* step = spare.make(index_, services.poller, services.inherited); step != nullptr) {
    services.channel.send_failed(stream_, errno, step);
    return release();
  }
  lost_ = strays_gone_ = false;
  spare.handover->request_bytes = handover_->request_bytes;
  std::memcpy(spare.handover->request, handover_->request, handover_->request_bytes);
  take(std::move(spare));
}

}  // namespace hutch::agent
