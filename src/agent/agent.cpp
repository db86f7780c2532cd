#include "agent/agent.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/wait.h>

#include <algorithm>

#include "agent/sys.h"

namespace hutch::agent {
namespace {

void drain(int fd, size_t record_bytes) {
  char records[1024];
  while (read(fd, records, sizeof records / record_bytes * record_bytes) > 0) {
  }
}

/// Of two times, where 0 means never.
uint64_t earlier(uint64_t a, uint64_t b) {
  if (a == 0 || b == 0) return std::max(a, b);
  return std::min(a, b);
}

/// Whoever removes a sandbox's folder removes its FIFOs: then no host can ever come. That is how one is ended
/// of which nobody knows the process, since its server died in the moment of its start.
bool abandoned() {
  struct stat st {};
  return fstat(kHostInFd, &st) == 0 && st.st_nlink == 0;
}

}  // namespace

bool Agent::open(const Inherited& inherited) {
  services_.inherited = inherited;
  (void)madvise(this, sizeof *this, MADV_DONTFORK);
  OutputStore::keep_from_forks();
  for (const int fd : {kHostInFd, kHostOutFd}) {
    const int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) return false;
  }
  constexpr int kPipeBytes = 1 << 20;
  (void)fcntl(kHostOutFd, F_SETPIPE_SZ, kPipeBytes);  // fewer switches between the two ends; may be refused

  sigset_t child_ended;
  sigemptyset(&child_ended);
  sigaddset(&child_ended, SIGCHLD);
  signal_fd_ = signalfd(-1, &child_ended, SFD_CLOEXEC | SFD_NONBLOCK);
  timer_fd_ = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
  wait_for_host();
  return poller_.open() && poller_.watch(kHostInFd, EPOLLIN, Source::host_in) &&
         poller_.watch(kHostOutFd, EPOLLOUT, Source::host_out) &&
         poller_.watch(signal_fd_, EPOLLIN, Source::signals) &&
         poller_.watch(timer_fd_, EPOLLIN, Source::timer);
}

void Agent::run() {
  epoll_event events[64];
  for (;;) {
    arm_timer();
    const int count = poller_.wait(events, 64, !work_left());
    for (int i = 0; i < count; ++i) on_event(events[i]);
    if (child_ended_) reap_children();
    if (!on_time()) return files_.drop_all();  // a temporary file could lie in a folder that outlives us
    serve_host();
    serve_streams();
    channel_.flush();
    if (!work_left()) commands_.keep_spare(services_);
  }
}

/// Whether another round has something to do without a new event.
bool Agent::work_left() const {
  if (host_readable_ && channel_.has_room()) return true;
  return (!host_present_ || channel_.idle()) && !turns_.empty();
}

void Agent::on_event(const epoll_event& event) {
  const size_t index = Poller::index(event);
  switch (const Source source = Poller::source(event)) {
    case Source::host_in:
      host_readable_ = true;
      break;
    case Source::host_out:
      channel_.flush();
      break;
    case Source::signals:
      child_ended_ = true;
      break;
    case Source::timer:
      drain(timer_fd_, sizeof(uint64_t));
      break;
    case Source::file:
      files_.on_event(index, services_);
      break;
    case Source::connection:
    case Source::listener:
      network_.on_event(source, index, event.events, services_);
      break;
    default:
      commands_.at(index).on_event(source, services_);
  }
}

bool Agent::knows(pid_t pid) const {
  return commands_.has_supervisor(pid) || files_.has_worker(pid);
}

void Agent::reap_children() {
  child_ended_ = false;
  drain(signal_fd_, sizeof(signalfd_siginfo));
  for (;;) {
    int status = 0;
    const pid_t pid = retry_eintr([&] { return waitpid(-1, &status, WNOHANG | WUNTRACED); });
    if (pid <= 0) return;
    if (WIFSTOPPED(status)) {
      // Nothing of ours stops by itself: a command stopped its supervisor.
      if (knows(pid)) (void)kill(pid, SIGCONT);
      continue;
    }
    const bool ours = commands_.on_reaped(pid, status, services_) || files_.on_reaped(pid);
    if (!ours) commands_.on_stray_reaped(pid, status);
    if (!ours || WIFSIGNALED(status)) strays_.expect(now_ms());
  }
}

/// False when the sandbox has to end.
bool Agent::on_time() {
  const uint64_t now = now_ms();
  if (ends_at_ms_ != 0 && now >= ends_at_ms_) return false;
  if (orphan_at_ms_ != 0 && (now >= orphan_at_ms_ || abandoned())) return false;
  if (orphan_at_ms_ != 0 && now >= look_at_ms_) look_at_ms_ = now + kLookMs;
  commands_.end_overdue(now, services_);
  if (network_.due_at_ms() != 0 && now >= network_.due_at_ms()) network_.accept_again(services_);
  if (strays_.due_at_ms() != 0 && now >= strays_.due_at_ms() && strays_.sweep(*this, now)) {
    commands_.on_strays_gone(services_);
  }
  return true;
}

void Agent::arm_timer() {
  uint64_t next = earlier(ends_at_ms_, orphan_at_ms_);
  if (orphan_at_ms_ != 0) next = earlier(next, look_at_ms_);
  next = earlier(next, commands_.deadline_ms());
  next = earlier(next, commands_.spare_due_at_ms());
  next = earlier(next, strays_.due_at_ms());
  next = earlier(next, network_.due_at_ms());
  if (next == armed_for_ms_) return;
  armed_for_ms_ = next;
  itimerspec when{};
  when.it_value.tv_sec = static_cast<time_t>(next / 1000);
  when.it_value.tv_nsec = static_cast<long>(next % 1000 * 1'000'000);
  timerfd_settime(timer_fd_, TFD_TIMER_ABSTIME, &when, nullptr);
}

void Agent::serve_host() {
  constexpr int kFramesAtOnce = 32;  // then the streams have their turns
  for (int i = 0; i < kFramesAtOnce && host_readable_ && channel_.has_room(); ++i) {
    Frame frame;
    switch (channel_.receive(frame)) {
      case Channel::Received::frame:
        on_frame(frame);
        break;
      case Channel::Received::nothing:
        host_readable_ = false;
        break;
      case Channel::Received::host_lost:
        host_readable_ = false;
        on_host_lost();
    }
  }
}

void Agent::serve_streams() {
  constexpr int kTurnsAtOnce = 64;  // then the host is listened to
  for (int i = 0; i < kTurnsAtOnce && !turns_.empty(); ++i) {
    channel_.flush();
    if (host_present_ && !channel_.idle()) return;
    const size_t party = turns_.take();
    if (party >= kMaxCommands + kMaxFileStreams) {
      if (host_present_) network_.take_turn(party - kMaxCommands - kMaxFileStreams, services_);
      continue;
    }
    if (party >= kMaxCommands) {
      if (host_present_) files_.take_turn(party - kMaxCommands, services_);
      continue;
    }
    // Without a host output that is to be relayed stays in the pipes: its command waits for the next one,
    // which gives it a turn in reattach(). What is only stored goes on.
    Command& command = commands_.at(party);
    if (host_present_ || command.stored()) command.take_turn(services_);
  }
}

void Agent::on_host_lost() {
  if (!host_present_) return;
  host_present_ = false;
  channel_.mute(true);
  wait_for_host();
  files_.drop_all();
  network_.drop_all();
}

void Agent::wait_for_host() {
  orphan_at_ms_ = now_ms() + orphan_ttl_ms_;
  look_at_ms_ = now_ms() + kLookMs;
}

}  // namespace hutch::agent
