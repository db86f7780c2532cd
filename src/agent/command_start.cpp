#include <fcntl.h>
#include <sys/socket.h>

#include <cstring>

#include "agent/command.h"
#include "agent/sys.h"

namespace hutch::agent {
namespace {

struct Ends {
  UniqueFd ours, theirs;
};

constexpr int kReading = 0, kWriting = 1;

/// Our end does not block; theirs does, as programs expect.
bool make_pipe(Ends& ends, int our_end) {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) return false;
  ends.ours.reset(fds[our_end]);
  ends.theirs.reset(fds[1 - our_end]);
  return fcntl(fds[our_end], F_SETFL, O_NONBLOCK) == 0;
}

bool make_control(Ends& ends) {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) != 0) return false;
  ends.ours.reset(fds[0]);
  ends.theirs.reset(fds[1]);
  return true;
}

}  // namespace

void Command::start(const wire::Exec& request, uint32_t stream, size_t index, Services& services) {
  index_ = index;
  stream_ = stream;
  phase_ = Phase::starting;
  credit_ = wire::kWindow;
  if (!log_.set(request.log_path, request.log_max_bytes)) {
    services.channel.send_failed(stream, ENAMETOOLONG, "exec: the path of the log");
  } else if (request.argv.packed.empty()) {
    services.channel.send_failed(stream, EINVAL, "exec: no command");
  } else if (launch(request, services)) {
    return;
  }
  release();
}

bool Command::launch(const wire::Exec& request, Services& services) {
  const auto fail = [&](const char* step) {
    services.channel.send_failed(stream_, errno, step);
    return false;
  };
  const bool merge = (request.options & wire::Exec::kMergeOutput) != 0;
  const bool has_input = (request.options & wire::Exec::kInput) != 0;
  Ends control, in, out, err;
  if (!make_control(control)) return fail("socketpair");
  if (!make_pipe(out, kReading) || (!merge && !make_pipe(err, kReading))) return fail("pipe");
  if (has_input && !make_pipe(in, kWriting)) return fail("pipe");

  const Poller& poller = services.poller;
  const bool watched = poller.watch(control.ours.get(), EPOLLIN, Source::control, index_) &&
                       poller.watch(out.ours.get(), EPOLLIN, Source::out, index_) &&
                       (merge || poller.watch(err.ours.get(), EPOLLIN, Source::err, index_)) &&
                       (!has_input || poller.watch(in.ours.get(), EPOLLOUT, Source::input, index_));
  if (!watched) return fail("epoll_ctl");

  const pid_t pid = fork();
  if (pid < 0) return fail("fork");
  if (pid == 0) {
    const Launch launch{request,
                        services.inherited,
                        has_input ? in.theirs.get() : kNullFd,
                        out.theirs.get(),
                        merge ? out.theirs.get() : err.theirs.get(),
                        control.theirs.get()};
    run_supervisor(launch);
  }
  supervisor_ = pid;
  control_ = std::move(control.ours);
  outputs_[0].fd = std::move(out.ours);
  outputs_[1].fd = std::move(err.ours);
  if (has_input) input_.open(std::move(in.ours), index_);
  return true;
}

}  // namespace hutch::agent
