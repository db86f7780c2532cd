#include <fcntl.h>

#include <cstring>

#include "agent/command.h"
#include "agent/sys.h"
#include "agent/terminal.h"

namespace hutch::agent {

void Command::start(const wire::Exec& request, uint32_t stream, Spare& spare, Services& services) {
  index_ = spare.index;
  stream_ = stream;
  options_ = request.options;
  number_ = request.number;
  credit_ = wire::kWindow;
  relay_ = (options_ & wire::Exec::kStore) == 0;
  keep_ = !relay_;
  started_at_ms_ = now_ms();
  if (request.timeout_ms > 0 && request.timeout_ms < kForeverMs)
    timeout_at_ms_ = started_at_ms_ + request.timeout_ms;
  size_ = {request.rows, request.columns};
  Handover& handover = *spare.handover.get();
  if (!accepts(request, handover.user, services)) return release();
  wire::FixedEncoder encoder(handover.request, sizeof handover.request);
  const_cast<wire::Exec&>(request).fields(encoder);
  handover.request_bytes = static_cast<uint32_t>(encoder.size());
  if ((options_ & wire::Exec::kInput) != 0) input_.open(index_);
  if (const char* step = take(std::exchange(spare, Spare()), services); step != nullptr)
    fail_to_start(step, services);
}

void Command::fail_to_start(const char* step, Services& services) {
  services.channel.send_failed(stream_, errno, step);
  release();
}

bool Command::accepts(const wire::Exec& request, User& user, Services& services) {
  if (!store_.open(index_, request.log_path, {request.log_max_bytes, request.logs_max_bytes},
                   services.logs)) {
    services.channel.send_failed(stream_, ENAMETOOLONG, "exec: the path of the log");
    return false;
  }
  if (request.argv.packed.empty()) {
    services.channel.send_failed(stream_, EINVAL, "exec: no command");
    return false;
  }
  const char* problem = find_user(request.user, user);
  if (problem != nullptr) services.channel.send_failed(stream_, errno, problem);
  return problem == nullptr;
}

/// nullptr, or with errno the step that failed.
const char* Command::take(Spare spare, Services& services) {
  phase_ = Phase::starting;
  supervisor_ = spare.pid;
  control_ = std::move(spare.control);
  handover_ = std::move(spare.handover);
  UniqueFd terminal;
  if ((options_ & wire::Exec::kTerminal) != 0) {
    if (const char* step = open_terminal(terminal, services); step != nullptr) return step;
  } else {
    outputs_[0] = {std::move(spare.out)};
    if ((options_ & wire::Exec::kMergeOutput) == 0) outputs_[1] = {std::move(spare.err)};
    if ((options_ & wire::Exec::kInput) != 0) input_pipe_ = std::move(spare.in);
  }
  order(Order::Kind::start, 0, terminal.get());  // it may be dead already: that is noticed when it is reaped
  return nullptr;
}

/// Two descriptors for the two directions: each has its own place in the poller, as with pipes.
const char* Command::open_terminal(UniqueFd& theirs, Services& services) {
  Terminal terminal;
  if (const char* step = terminal.open(size_); step != nullptr) return step;
  input_pipe_.reset(fcntl(terminal.ours.get(), F_DUPFD_CLOEXEC, kControlFd + 1));
  if (!input_pipe_) return "fcntl F_DUPFD_CLOEXEC";
  const bool watched = services.poller.watch(terminal.ours.get(), EPOLLIN, Source::out, index_) &&
                       services.poller.watch(input_pipe_.get(), EPOLLOUT, Source::input, index_);
  if (!watched) return "epoll_ctl";
  outputs_[0] = {std::move(terminal.ours)};
  theirs = std::move(terminal.theirs);
  return nullptr;
}

/// The supervisor was killed before it began, so nothing of the command has happened yet.
bool Command::can_start_again() const {
  return phase_ == Phase::starting && lost_ && !ordered_ && !handover_->taken;
}

void Command::start_again(Services& services) {
  Spare spare;
  if (const char* step = spare.make(index_, services.poller, services.inherited); step != nullptr)
    return fail_to_start(step, services);
  lost_ = strays_gone_ = false;
  spare.handover->user = handover_->user;
  spare.handover->request_bytes = handover_->request_bytes;
  std::memcpy(spare.handover->request, handover_->request, handover_->request_bytes);
  if (const char* step = take(std::move(spare), services); step != nullptr) fail_to_start(step, services);
}

}  // namespace hutch::agent
