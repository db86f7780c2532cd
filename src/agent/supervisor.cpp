#include "agent/supervisor.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstring>

#include "agent/close_from.h"
#include "agent/proc_tree.h"
#include "agent/sys.h"

namespace hutch::agent {
namespace {

uint64_t microseconds(const timeval& time) {
  return static_cast<uint64_t>(time.tv_sec) * 1000000 + static_cast<uint64_t>(time.tv_usec);
}

void tell(const Report& report, std::string_view text = {}) {
  char message[sizeof(Report) + kMaxReportText];
  const size_t text_bytes = std::min(text.size(), kMaxReportText);
  std::memcpy(message, &report, sizeof report);
  if (text_bytes > 0) std::memcpy(message + sizeof report, text.data(), text_bytes);
  (void)retry_eintr([&] { return send(kControlFd, message, sizeof report + text_bytes, MSG_NOSIGNAL); });
}

class Supervisor {
 public:
  Supervisor(pid_t main, int child_ended_fd) : main_(main), child_ended_fd_(child_ended_fd) {}
  [[noreturn]] void run();

 private:
  enum class Ending { no, asked, killing };

  bool reap();  // false when no child, and so no descendant, is left
  void report_main();
  void take_orders();
  void signal_tree(int number);
  void signal_command(int number);
  void end_tree(uint32_t grace_ms);
  int next_step();

  pid_t main_;
  int child_ended_fd_;
  bool main_ended_ = false, main_reported_ = false;
  Report ended_{Report::Kind::ended};
  Ending ending_ = Ending::no;
  uint64_t kill_at_ms_ = 0;
  int sweep_pause_ms_ = 1;
};

bool Supervisor::reap() {
  for (;;) {
    int status = 0;
    rusage usage{};
    const pid_t pid = retry_eintr([&] { return wait4(-1, &status, WNOHANG, &usage); });
    if (pid < 0) return false;
    if (pid == 0) return true;
    if (pid != main_ || main_ended_) continue;
    main_ended_ = true;
    ended_.value = status;
    ended_.at_ms = now_ms();
    ended_.cpu_us = microseconds(usage.ru_utime) + microseconds(usage.ru_stime);
    ended_.max_rss_kib = static_cast<uint64_t>(usage.ru_maxrss);
  }
}

void Supervisor::report_main() {
  if (!main_ended_ || main_reported_) return;
  main_reported_ = true;
  tell(ended_);
}

void Supervisor::signal_tree(int number) {
  ProcTree& tree = proc_tree();
  if (!tree.scan()) return;
  tree.mark_descendants(getpid());
  tree.kill_marked(number);
}

void Supervisor::end_tree(uint32_t grace_ms) {
  const uint64_t kill_at_ms = now_ms() + grace_ms;
  if (ending_ != Ending::no) {
    kill_at_ms_ = std::min(kill_at_ms_, kill_at_ms);
    return;
  }
  ending_ = Ending::asked;
  kill_at_ms_ = kill_at_ms;
  if (grace_ms == 0) return;
  signal_tree(SIGTERM);
  signal_tree(SIGCONT);  // a stopped process takes the SIGTERM only when it runs
}

/// Once the main process is reaped its number may belong to somebody else: then what it left is meant.
void Supervisor::signal_command(int number) {
  if (main_ended_)
    signal_tree(number);
  else
    (void)kill(-main_, number);
}

void Supervisor::take_orders() {
  Order order;
  while (retry_eintr([&] { return recv(kControlFd, &order, sizeof order, MSG_DONTWAIT); }) == sizeof order) {
    if (order.kind == Order::Kind::end_tree) end_tree(order.value);
    if (order.kind == Order::Kind::signal) signal_command(static_cast<int>(order.value));
  }
}

/// Does what is due; returns how long to sleep, -1 for until something happens.
int Supervisor::next_step() {
  if (ending_ == Ending::no) return -1;
  const uint64_t now = now_ms();
  if (now < kill_at_ms_) return static_cast<int>(std::min<uint64_t>(kill_at_ms_ - now, 60'000));
  if (ending_ == Ending::asked) ending_ = Ending::killing;
  // A fork bomb makes new processes while we kill; sweeps win because the dead do not fork. The pause
  // grows, so that a process that hangs in the kernel costs nothing.
  signal_tree(SIGKILL);
  sweep_pause_ms_ = std::min(sweep_pause_ms_ + 1, 50);
  return sweep_pause_ms_;
}

void Supervisor::run() {
  pollfd waits[2] = {{child_ended_fd_, POLLIN, 0}, {kControlFd, POLLIN, 0}};
  while (reap()) {
    // While the tree is being ended the answer waits until it is: `left_running` would be wrong at once.
    if (main_ended_ && !main_reported_ && ending_ == Ending::no) {
      proc_tree().scan();
      proc_tree().mark_descendants(getpid());
      ended_.left_running = static_cast<uint32_t>(proc_tree().count_living());
      report_main();
    }
    const int pause_ms = next_step();
    (void)poll(waits, 2, pause_ms);
    signalfd_siginfo ignored;
    (void)!read(waits[0].fd, &ignored, sizeof ignored);
    if ((waits[1].revents & POLLIN) != 0) take_orders();
  }
  // Without a child there is no descendant. Mostly that is so as soon as the main process has ended.
  ended_.last = true;
  if (main_reported_)
    tell({Report::Kind::gone});
  else
    tell(ended_);
  _exit(0);
}

/// Leaves 0, 1, 2, /proc, the empty input and the control socket, and no way to the host.
void arrange_descriptors(const SupervisorEnds& ends) {
  dup2(ends.in, 0);
  dup2(ends.out, 1);
  dup2(ends.err, 2);
  if (ends.control != kControlFd) dup3(ends.control, kControlFd, O_CLOEXEC);
  close(kRootFd);
  close(kPtsFd);
  close_from(kControlFd + 1);
}

int watch_children() {
  sigset_t child_ended;
  sigemptyset(&child_ended);
  sigaddset(&child_ended, SIGCHLD);
  return signalfd(-1, &child_ended, SFD_CLOEXEC | SFD_NONBLOCK);
}

/// The descriptor of the command's terminal, -1 when it has none.
int wait_for_start() {
  Order order{};
  iovec part{&order, sizeof order};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  const ssize_t size = retry_eintr([&] { return recvmsg(kControlFd, &header, MSG_CMSG_CLOEXEC); });
  if (size != sizeof order || order.kind != Order::Kind::start) _exit(0);  // not needed any more
  int terminal = -1;
  if (const cmsghdr* rights = CMSG_FIRSTHDR(&header); rights != nullptr && rights->cmsg_type == SCM_RIGHTS)
    std::memcpy(&terminal, CMSG_DATA(rights), sizeof terminal);
  return terminal;
}

void use_terminal(int terminal) {
  for (const int fd : {0, 1, 2}) dup2(terminal, fd);
  close(terminal);
}

[[noreturn]] void report_failure(const SpawnResult& result, const wire::Exec& request) {
  const std::string_view argv = request.argv.packed;
  const std::string_view name = argv.substr(0, argv.find('\0'));
  char text[kMaxReportText];
  size_t size = 0;
  const auto add = [&](std::string_view part) { size += part.copy(text + size, sizeof text - size); };
  if (result.step == SpawnResult::Step::fork) add("fork");
  if (result.step == SpawnResult::Step::user) add("become user "), add(request.user);
  if (result.step == SpawnResult::Step::chdir) add("chdir "), add(request.workdir);
  if (result.step == SpawnResult::Step::exec) add("exec "), add(name);
  tell({Report::Kind::failed, result.error}, {text, size});
  _exit(0);
}

/// After the start. Its end of the input is closed, so that the agent sees when nobody reads any more; those
/// of the output stay: their closing by the command would wake the agent once more, and for nothing.
void clean_up(bool has_input, OomScore score, Handover& handover) {
  if (has_input) close(0);
  score.set(kSupervisorOomScoreAdj);
  munmap(&handover, sizeof handover);
}

}  // namespace

void run_supervisor(const SupervisorEnds& ends, Handover& handover, const Inherited& inherited) {
  arrange_descriptors(ends);
  prctl(PR_SET_NAME, "hutch-spare");
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  const int child_ended_fd = watch_children();
  OomScore score(inherited.oom_score_adj);
  score.set(kCommandOomScoreAdj);  // the command inherits it; nothing is lost with a spare
  const int terminal = wait_for_start();

  wire::Exec request;
  (void)wire::decode({handover.request, handover.request_bytes}, request);
  const bool has_input = (request.options & wire::Exec::kInput) != 0;
  if (terminal >= 0) use_terminal(terminal);
  if (!has_input) dup2(kNullFd, 0);
  if ((request.options & wire::Exec::kMergeOutput) != 0) dup2(1, 2);
  prctl(PR_SET_NAME, "hutch-super");
  handover.taken = true;
  const SpawnResult result = spawn(request, handover.user, inherited);
  if (result.error != 0) report_failure(result, request);
  tell({Report::Kind::started, result.pid});
  clean_up(has_input, std::move(score), handover);
  Supervisor(result.pid, child_ended_fd).run();
}

}  // namespace hutch::agent
