#include "agent/spare.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "agent/supervisor.h"
#include "agent/sys.h"

namespace hutch::agent {
namespace {

/// Our end does not block; theirs does, as programs expect.
bool make_pipe(UniqueFd& reading, UniqueFd& writing, UniqueFd& ours) {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) return false;
  reading.reset(fds[0]);
  writing.reset(fds[1]);
  return fcntl(ours.get(), F_SETFL, O_NONBLOCK) == 0;
}

bool make_control(UniqueFd& ours, UniqueFd& theirs) {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) != 0) return false;
  ours.reset(fds[0]);
  theirs.reset(fds[1]);
  return true;
}

}  // namespace

HandoverMemory& HandoverMemory::operator=(HandoverMemory&& other) noexcept {
  if (this != &other) {
    reset();
    memory_ = std::exchange(other.memory_, nullptr);
  }
  return *this;
}

bool HandoverMemory::map() {
  reset();
  void* memory = mmap(nullptr, sizeof(Handover), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return false;
  memory_ = static_cast<Handover*>(memory);
  return true;
}

void HandoverMemory::keep_from_forks() const {
  (void)madvise(memory_, sizeof(Handover), MADV_DONTFORK);
}

void HandoverMemory::reset() {
  if (memory_ != nullptr) (void)munmap(memory_, sizeof(Handover));
  memory_ = nullptr;
}

const char* Spare::make(size_t command_index, const Poller& poller, const Inherited& inherited) {
  UniqueFd their_control, their_in, their_out, their_err;
  if (!make_control(control, their_control)) return "socketpair";
  if (!make_pipe(their_in, in, in)) return "pipe";
  if (!make_pipe(out, their_out, out) || !make_pipe(err, their_err, err)) return "pipe";
  if (!handover.map()) return "mmap";
  const bool watched = poller.watch(control.get(), EPOLLIN, Source::control, command_index) &&
                       poller.watch(out.get(), EPOLLIN, Source::out, command_index) &&
                       poller.watch(err.get(), EPOLLIN, Source::err, command_index) &&
                       poller.watch(in.get(), EPOLLOUT, Source::input, command_index);
  if (!watched) return "epoll_ctl";

  // Copies, because the child does not have the memory that this object and those arguments lie in.
  const SupervisorEnds ends{their_in.get(), their_out.get(), their_err.get(), their_control.get()};
  const Inherited inherited_copy = inherited;
  Handover& shared = *handover.get();
  pid = fork();
  if (pid < 0) return "fork";
  if (pid == 0) run_supervisor(ends, shared, inherited_copy);
  handover.keep_from_forks();
  index = command_index;
  return nullptr;
}

}  // namespace hutch::agent
